"""From a request to a plan: which variants, models, tracks, tasks and seeds, each checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..methods.base import methods
from .cells import CellSpec
from .data import corpora_digests, load_rows, sample_items
from .errors import UserError, suggest
from .files import folder_digest
from .judges import resolve_judge
from .models import MODEL_FILES, ModelSpec, unreadable
from .plan import Plan, PlannedCell, PlannedTask, base_cell, build_task
from .specs import digest
from .store import Store
from .suite import SuiteSpec, TrainingSpec, VariantSpec, load_suite
from .variants import choose_variants, overrides


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
    variants = choose_variants(request.methods, request.settings, suite, tracks)
    models = _models(request, suite, store)
    planned = _tasks(request, suite, tracks, folder)
    data = {track: corpora_digests(suite.tracks[track].corpora, folder) for track in tracks}
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
        scorer=resolve_judge(request.scorer, suite, folder, store) if judged else None,
        data_folder=str(folder),
        command=request.command,
    )


def resolve_engine(name: str) -> str:
    """Return a registered engine's name; `auto` is transformers, the only one so far."""
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
    changed = {**suite.training.identity(), **variant.training, **overrides(request.settings).get("training", {})}
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
        _check_layout(f"Model folder {folder}", folder)
        return spec.model_copy(update={"digest": folder_digest(folder, MODEL_FILES, store.digests if store else None)})
    from huggingface_hub import HfApi

    try:
        commit = HfApi().model_info(spec.hub or "", revision=spec.revision).sha
    except Exception as error:
        raise UserError(unreadable(spec, error)) from error
    return spec.model_copy(update={"revision": commit, "digest": f"{spec.hub}@{commit}"})


def _check_layout(what: str, folder: Path) -> None:
    """Raise a `UserError` where a folder is no model in Hugging Face layout."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{what} has no config.json; pass a folder in Hugging Face layout.")
    if not any(path for pattern in ("*.safetensors", "*.bin") for path in folder.glob(pattern)):
        raise UserError(f"{what} holds no weights (*.safetensors or *.bin); pass a folder in Hugging Face layout.")


def _imports(request: Request, name: str, model: ModelSpec, models: int, store: Store | None) -> list[PlannedCell]:
    if request.checkpoints and models > 1:
        raise UserError("--checkpoint belongs to one model; choose it with --models.")
    cells = []
    for label, folder in request.checkpoints.items():
        _check_layout(f"Checkpoint {label}: {folder}", folder)
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
