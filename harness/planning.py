"""From a request to a plan: which variants, models, tracks, tasks and seeds, each checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..methods.base import methods
from ..tasks.base import scorers
from .cells import CellSpec
from .data import load_rows, sample_items
from .errors import UserError, suggest
from .files import folder_digest, write_jsonl
from .models import MODEL_FILES, ModelSpec, unreadable
from .plan import Plan, PlannedCell, PlannedTask, base_cell, build_task
from .specs import digest
from .store import Store
from .suite import ScorerSpec, SourceSpec, SuiteSpec, TrainingSpec, VariantSpec, load_suite

SCORER_FILES = ("*.pth", "*.json", "*.jsonl", "*.safetensors", "vocab.txt")


@dataclass(frozen=True)
class Request:
    """What a user asks `evaluate` for. None means: as the suite says.

    Attributes:
        suite: name of a suite, its YAML file, or the spec itself.
        methods: names of methods or of the suite's variants, or ("all",).
        checkpoints: name to folder of checkpoints made elsewhere.
        settings: overrides, `METHOD.KEY=VALUE` or `training.KEY=VALUE`.
    """

    suite: str | SuiteSpec | None = None
    methods: Sequence[str] = ("all",)
    models: Sequence[str] | None = None
    checkpoints: Mapping[str, Path] = field(default_factory=dict)
    tracks: Sequence[str] | None = None
    tasks: Sequence[str] | None = None
    seeds: Sequence[int] = (0,)
    limit: int | None = None
    settings: Sequence[str] = ()
    engine: str = "auto"
    scorer: Path | None = None
    data_root: Path | None = None
    command: str = "unlearn-bench evaluate"


def make_plan(request: Request, store: Store | None) -> Plan:
    """Resolve a request into a plan; reads data and digests models, trains and measures nothing.

    Raises:
        UserError: an unknown name, a refused setting, missing data or an unreadable model, each with what to do.
    """
    asked = request.suite or ("real" if request.data_root else "micro")
    suite = asked if isinstance(asked, SuiteSpec) else load_suite(asked)
    folder = Path(suite.folder) if suite.embedded else request.data_root or Path(suite.folder)
    if not folder.is_dir():
        raise UserError(f"Data folder {folder} does not exist; pass an existing one with --data-root.")
    tracks = _chosen("track", request.tracks, suite.tracks)
    variants = _variants(request, suite, tracks)
    models = _models(request, suite, store)
    planned = _tasks(request, suite, tracks, folder)
    data = {track: _corpora_digests(suite, track, folder) for track in tracks}
    cells: list[PlannedCell] = []
    for name, model in models.items():
        cells.append(PlannedCell(model=name, spec=base_cell(model)))
        cells += _imports(request, name, model, len(models), store)
        for track in tracks:
            for seed in request.seeds:
                trained = [
                    PlannedCell(model=name, spec=_train_cell(model, track, label, variant, seed, suite, request, data))
                    for label, variant in variants[track].items()
                ]
                cells += trained
                if trained:
                    cells.append(PlannedCell(model=name, spec=_noise_cell(model, track, seed, trained)))
    judged = any(task.judged for task in planned.values())
    return Plan(
        suite=suite,
        models=models,
        tracks=tuple(tracks),
        tasks=planned,
        cells=tuple(cells),
        seeds=tuple(request.seeds),
        limit=request.limit,
        engine=resolve_engine(request.engine),
        scorer=resolve_scorer(request, suite, folder, store) if judged else None,
        data_folder=str(folder),
        command=request.command,
    )


def resolve_engine(name: str) -> str:
    """Return the engine for `auto`: vLLM where it is registered and usable, else transformers."""
    from .engines.base import engines

    if name == "auto":
        return "transformers"
    engines.get(name)
    return name


def _chosen(kind: str, wanted: Sequence[str] | None, known: Mapping[str, Any]) -> list[str]:
    for name in wanted or ():
        if name not in known:
            raise UserError(f"Unknown {kind} {name!r}.{suggest(name, known)}")
    return list(wanted or known)


def _variants(request: Request, suite: SuiteSpec, tracks: Sequence[str]) -> dict[str, dict[str, VariantSpec]]:
    """Return per track the variants to run, with the overrides of `--set` in their settings and names."""
    every = request.methods == ("all",) or "all" in request.methods
    wanted = set() if every else {name for name in request.methods if name != "none"}
    offered = {track: dict(suite.variants.get(track, {})) for track in tracks}
    for track in tracks:
        covered = {variant.method for variant in offered[track].values()}
        offered[track] |= {name: VariantSpec(method=name) for name in methods.names() if name not in covered}
    known = {name for track in tracks for label, v in offered[track].items() for name in (label, v.method)}
    for name in sorted(wanted - known):
        methods.get(name)
        raise UserError(f"The method {name!r} serves none of the tracks {', '.join(tracks)}.")
    overrides = _overrides(request.settings)
    chosen = {
        track: {
            _label(label, overrides.get(variant.method, {})): variant.model_copy(
                update={"settings": {**variant.settings, **overrides.get(variant.method, {})}}
            )
            for label, variant in sorted(offered[track].items())
            if every or label in wanted or variant.method in wanted
        }
        for track in tracks
    }
    running = {variant.method for group in chosen.values() for variant in group.values()}
    for name in overrides:
        if name != "training" and name not in running:
            methods.get(name)
            raise UserError(
                f"--set {name}.…: {name} is not among the methods of this run ({', '.join(sorted(running))})."
            )
    return chosen


def _overrides(settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for setting in settings:
        target, separator, value = setting.partition("=")
        name, dot, key = target.partition(".")
        if not (separator and dot and key):
            raise UserError(f"--set takes METHOD.KEY=VALUE or training.KEY=VALUE, not {setting!r}.")
        if name != "training":
            methods.get(name)
        found.setdefault(name, {})[key] = yaml.safe_load(value)
    return found


def _label(label: str, overrides: Mapping[str, Any]) -> str:
    inside = ",".join(f"{key}={value}" for key, value in sorted(overrides.items()))
    return f"{label}[{inside}]" if inside else label


def _train_cell(
    model: ModelSpec,
    track: str,
    label: str,
    variant: VariantSpec,
    seed: int,
    suite: SuiteSpec,
    request: Request,
    data: Mapping[str, Any],
) -> CellSpec:
    kind = methods.get(variant.method)
    settings = kind.Settings.parse(variant.settings, variant.method)
    changed = {**suite.training.identity(), **variant.training, **_overrides(request.settings).get("training", {})}
    training = TrainingSpec.parse(changed, "training")
    return CellSpec(
        model=model.digest,
        transform="train",
        track=track,
        seed=seed,
        settings={
            "method": variant.method,
            "version": kind.version,
            "settings": settings.identity(),
            "training": training.identity(),
            "data": data[track],
            **({"dtype": model.dtype} if training.precision == "reference" else {}),
        },
        method=variant.method,
        variant=label,
    )


def _noise_cell(model: ModelSpec, track: str, seed: int, trained: Sequence[PlannedCell]) -> CellSpec:
    return CellSpec(
        model=model.digest,
        transform="noise",
        track=track,
        seed=seed,
        parents=tuple(sorted(cell.id for cell in trained)),
        settings={"version": 1},
        method="noise",
        variant="noise",
    )


def _corpora_digests(suite: SuiteSpec, track: str, folder: Path) -> dict[str, Any]:
    corpora = suite.tracks[track].corpora

    def of(source: SourceSpec | None) -> str | None:
        return None if source is None else load_rows(source, folder).digest

    forget = {topic: of(source) for topic, source in corpora.forget.items()}
    return {"forget": forget, "retain": of(corpora.retain), "probe": of(corpora.probe)}


def _models(request: Request, suite: SuiteSpec, store: Store | None) -> dict[str, ModelSpec]:
    """Return the models by name: of the suite, or a folder or hub id that the user named."""
    found: dict[str, ModelSpec] = {}
    for name in request.models or suite.models:
        if name in suite.models:
            listed = suite.models[name]
            path = str(Path(suite.folder) / listed.path) if listed.path else None
            spec = ModelSpec(name=name, path=path, hub=listed.hub, revision=listed.revision, dtype=listed.dtype)
        elif Path(name).is_dir():
            spec = ModelSpec(name=Path(name).resolve().name, path=str(Path(name).resolve()))
        elif "/" in name and not name.startswith((".", "/", "~")):
            hub, _, revision = name.partition("@")
            spec = ModelSpec(name=hub.rsplit("/", 1)[-1], hub=hub, revision=revision or None)
        else:
            raise UserError(
                f"Unknown model {name!r}: neither a model of suite {suite.name}, nor a folder, nor a hub id"
                f" (owner/name).{suggest(name, suite.models)}"
            )
        if spec.name in found:
            raise UserError(f"Two models are called {spec.name!r}; rename a folder.")
        found[spec.name] = _pin(spec, store)
    if not found:
        raise UserError(f"Suite {suite.name} names no model; pass one with --models FOLDER_OR_HUB_ID.")
    return found


def _pin(spec: ModelSpec, store: Store | None) -> ModelSpec:
    if spec.path is not None:
        folder = Path(spec.path)
        if not (folder / "config.json").is_file():
            raise UserError(f"Model folder {folder} has no config.json; pass a folder in Hugging Face layout.")
        return spec.model_copy(update={"digest": folder_digest(folder, MODEL_FILES, store.digests if store else None)})
    from huggingface_hub import HfApi

    try:
        commit = HfApi().model_info(spec.hub or "", revision=spec.revision).sha
    except Exception as error:
        raise UserError(unreadable(spec, error)) from error
    return spec.model_copy(update={"revision": commit, "digest": f"{spec.hub}@{commit}"})


def _imports(request: Request, name: str, model: ModelSpec, models: int, store: Store | None) -> list[PlannedCell]:
    if request.checkpoints and models > 1:
        raise UserError("--checkpoint belongs to one model; choose it with --models.")
    cells = []
    for label, folder in request.checkpoints.items():
        if not (folder / "config.json").is_file():
            raise UserError(f"Checkpoint {label}: {folder} has no config.json; pass a folder in Hugging Face layout.")
        content = folder_digest(folder, MODEL_FILES, store.digests if store else None)
        spec = CellSpec(
            model=model.digest, transform="import", settings={"digest": content}, method="import", variant=label
        )
        cells.append(PlannedCell(model=name, spec=spec, folder=str(folder.resolve())))
    return cells


def _tasks(request: Request, suite: SuiteSpec, tracks: Sequence[str], folder: Path) -> dict[str, PlannedTask]:
    """Return the tasks of the tracks, each pinned to its rows and items."""
    roles = [name for track in tracks for name in (suite.tracks[track].forget_task, suite.tracks[track].retain_task)]
    known = {name: suite.tasks[name] for name in dict.fromkeys(roles)}
    planned = {}
    for name in _chosen("task", request.tasks, known):
        spec = known[name]
        task = build_task(spec)
        rows = load_rows(spec.data, folder)
        items = sample_items(task.items(rows.rows), request.limit)
        settings = task.settings.identity()
        planned[name] = PlannedTask(
            name=name,
            spec=spec,
            version=task.version,
            settings=settings,
            outcome_settings={key: value for key, value in settings.items() if key not in task.scoring},
            judged=task.judged,
            data=rows.digest,
            items=digest([item.id for item in items]),
            count=len(items),
            limit=request.limit,
            folder=str(folder),
        )
    return planned


def resolve_scorer(request: Request, suite: SuiteSpec, folder: Path, store: Store | None) -> ScorerSpec:
    """Return the judge: the folder the user named, the suite's own, or one trained on its labelled text."""
    if request.scorer is not None:
        if not request.scorer.is_dir():
            raise UserError(f"Judge folder {request.scorer} does not exist.")
        kind = next((kind for file, kind in _KINDS.items() if (request.scorer / file).is_file()), None)
        if kind is None:
            raise UserError(f"{request.scorer} holds no judge; expected one of {', '.join(_KINDS)}.")
        chosen = ScorerSpec(
            kind=kind, path=str(request.scorer.resolve()), name=f"{request.scorer.resolve().name} ({kind})"
        )
    elif suite.scorer is None:
        raise UserError(f"Suite {suite.name} needs a judge of texts; pass one with --scorer FOLDER.")
    elif suite.scorer.path is not None:
        chosen = suite.scorer.model_copy(update={"path": str(Path(suite.folder) / suite.scorer.path), "train": None})
    else:
        return _trained_scorer(suite.scorer, folder, store)
    files = folder_digest(Path(chosen.path or ""), SCORER_FILES)
    return chosen.model_copy(update={"digest": files, "version": scorers.get(chosen.kind).version})


_KINDS = {
    "toxicity_classifier.pth": "trust",
    "labelled.jsonl": "ngram",
    "config.json": "sequence_classifier",
}
"""The file that gives a judge's kind away, the telling ones first."""


def _trained_scorer(scorer: ScorerSpec, folder: Path, store: Store | None) -> ScorerSpec:
    """Put the labelled text of a judge that is fitted when loaded into the store, and point to it."""
    if scorer.train is None:
        raise UserError("The suite's judge has neither a folder nor labelled text; pass --scorer FOLDER.")
    rows = load_rows(scorer.train, folder)
    path = None
    if store is not None:
        target = store.root / "scorers" / rows.digest
        target.mkdir(parents=True, exist_ok=True)
        write_jsonl(target / "labelled.jsonl", [{"text": row["text"], "label": row["label"]} for row in rows.rows])
        path = str(target)
    version = scorers.get(scorer.kind).version
    return scorer.model_copy(update={"path": path, "digest": rows.digest, "version": version, "train": None})
