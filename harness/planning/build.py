"""From a request to a plan: which variants, models, tracks, tasks and seeds, each checked before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...methods.base import methods
from ...tasks.base import tasks
from ..data import corpora_digests
from ..engines.base import engines
from ..errors import UserError, suggest
from ..models.load import MODEL_FILES, ModelSpec, check_layout, named_model, resolve_models
from ..registry import check_name
from ..store.entries import Store
from ..store.files import folder_digest
from ..store.identity import UNRELATED, CellSpec
from ..suite import ScorerSpec, SourceSpec, SuiteSpec, TaskSpec, TrainingSpec, VariantSpec, load_suite
from .nulls import as_unrelated, check_nulls, unmade_nulls, unrelated_text
from .plan import Plan, PlannedCell, PlannedTask, base_cell, pin_items
from .request import Request
from .scorers import resolve_judge
from .sources import SourceReader
from .stress import choose_stresses, derived_cells
from .variants import choose_variants, overrides, runnable


def make_plan(request: Request, store: Store | None, reader: SourceReader | None = None) -> Plan:
    """Resolve a request into a plan; reads data and digests models, trains and measures nothing.

    With a lenient `SourceReader` it goes on where a model, data set or judge cannot be reached: the plan's `unreached`
    says which, and the ids that would depend on them stand for nothing.

    Raises:
        UserError: an unknown name, a refused setting, missing data or an unreadable model, each with what to do.
    """
    reader = reader or SourceReader()
    asked = request.suite or ("real" if request.data_root else "micro")
    suite = asked if isinstance(asked, SuiteSpec) else load_suite(asked)
    folder = _data_folder(request, suite)
    tracks = _chosen("track", request.tracks, suite.tracks)
    chosen = choose_variants(request.methods, request.settings, suite, tracks, request.grid)
    variants, left_out = runnable(chosen, request.methods, _engine_name(request.engine))
    nulls = check_nulls(request.nulls or ())
    stresses = choose_stresses(request.stress or (), suite, tracks)
    models = _models(request, suite, store, reader)
    planned = _tasks(request, suite, tracks, folder, store, reader)

    def digest_of(source: SourceSpec) -> str:
        return reader(lambda: reader.rows(source, folder).digest, "")

    data = {track: corpora_digests(suite.tracks[track].corpora, digest_of) for track in tracks}
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
                changed = [cell for cell in trained if cell.spec.changes == "weights"]
                if changed and request.noise:
                    cells.append(PlannedCell(model=name, spec=_noise_cell(model, track, seed, changed)))
    cells += list(derived_cells(cells, stresses, suite, tracks, digest_of))
    for name, model in models.items():
        specs = unmade_nulls(model, nulls)
        if UNRELATED in nulls:
            specs += _unrelated_cells(model, variants, suite, request, digest_of)
        cells += [PlannedCell(model=name, spec=spec) for spec in specs]
    return Plan(
        suite=suite,
        models=models,
        tracks=tuple(tracks),
        tasks=planned,
        cells=tuple(cells),
        stress=stresses,
        seeds=tuple(request.seeds),
        limit=request.limit,
        engine=resolve_engine(request.engine, request.engine_options),
        data_folder=str(folder) if folder else None,
        command=request.command,
        notes=tuple(dict.fromkeys([*left_out, *reader.notes(_sources(suite, tracks, planned))])),
        unreached=tuple(dict.fromkeys(reader.missing)),
    )


def _data_folder(request: Request, suite: SuiteSpec) -> Path | None:
    """Return where files are looked for: an embedded suite's own folder, else --data-root, else a suite file's."""
    named = suite.folder if suite.embedded else request.data_root or suite.folder
    folder = Path(named) if named else None
    if folder is not None and not folder.is_dir():
        raise UserError(f"Data folder {folder} does not exist; pass an existing one with --data-root.")
    return folder


def _models(request: Request, suite: SuiteSpec, store: Store | None, reader: SourceReader) -> dict[str, ModelSpec]:
    if not reader.lenient:
        return resolve_models(request.models, suite, store, request.dtype, request.chat_template)
    found: dict[str, ModelSpec] = {}
    for name in request.models or suite.models:
        named = named_model(name, suite)
        dtype = named.dtype if request.dtype == "auto" else request.dtype
        found |= reader(
            lambda name=name: resolve_models([name], suite, store, request.dtype, request.chat_template),
            {named.name: named.model_copy(update={"dtype": dtype})},
        )
    return found


def _sources(suite: SuiteSpec, tracks: Sequence[str], planned: Mapping[str, PlannedTask]) -> Iterator[SourceSpec]:
    """Give the sources of a plan's text and questions."""
    for text in (suite.tracks[track].corpora for track in tracks):
        yield from filter(None, (*text.forget.values(), text.retain, text.probe, *text.relearn.values()))
    for task in planned.values():
        yield task.spec.data


def resolve_engine(name: str, options: Mapping[str, Any]) -> str:
    """Return a registered engine's name; `auto` is vLLM where it is installed and usable, else transformers.

    Raises:
        UserError: an unknown engine or option, or an engine that cannot run here, with the cause.
    """
    name = _engine_name(name)
    kind = engines.get(name)
    cause = kind.unusable()
    if cause is not None:
        raise UserError(f"Engine {name} cannot run here: {cause}. Or pass --engine transformers.")
    kind.check_options(name, options)
    return name


def _engine_name(name: str) -> str:
    """Return the engine that `auto` stands for here, another name as it is."""
    if name != "auto":
        return name
    return "vllm" if engines.get("vllm").unusable() is None else "transformers"


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
            "dtype": model.dtype,
            **({} if kind.changes == "weights" else {"changes": kind.changes}),
        },
        method=variant.method,
        variant=label,
    )


def _unrelated_cells(
    model: ModelSpec,
    variants: Mapping[str, Mapping[str, VariantSpec]],
    suite: SuiteSpec,
    request: Request,
    digest_of: Callable[[SourceSpec], str],
) -> list[CellSpec]:
    """Return the first method of each track, trained on text that has nothing to do with its topics."""
    if not all(variants.values()):
        raise UserError("The null `unrelated` is a method trained on other text: name one with --methods.")
    data = {track: corpora_digests(unrelated_text(suite.tracks[track].corpora), digest_of) for track in variants}
    return [
        as_unrelated(_train_cell(model, track, *next(iter(found.items())), seed, suite, request, data))
        for track, found in variants.items()
        for seed in request.seeds
    ]


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


def _imports(request: Request, name: str, model: ModelSpec, models: int, store: Store | None) -> list[PlannedCell]:
    if request.checkpoints and models > 1:
        raise UserError("--checkpoint belongs to one model; choose it with --models.")
    cells = []
    for label, folder in request.checkpoints.items():
        check_name("checkpoint", label)
        check_layout(f"Checkpoint {label}: {folder}", folder)
        content = folder_digest(folder, MODEL_FILES, store.digests if store else None)
        spec = CellSpec(
            model=model.digest, transform="import", settings={"digest": content}, method="import", variant=label
        )
        cells.append(PlannedCell(model=name, spec=spec, folder=str(folder.resolve())))
    return cells


def _tasks(
    request: Request,
    suite: SuiteSpec,
    tracks: Sequence[str],
    folder: Path | None,
    store: Store | None,
    reader: SourceReader,
) -> dict[str, PlannedTask]:
    """Return the tasks of the tracks, controls last, each pinned to its rows, items and judge."""
    asked = [suite.tracks[track] for track in tracks]
    roles = [name for track in asked for name in (track.forget_task, track.retain_task)]
    controls = [name for track in asked for name in track.controls]
    known = {name: suite.tasks[name] for name in dict.fromkeys([*roles, *controls])}
    planned = {}
    for name in _chosen("task", request.tasks, known):
        spec = known[name]
        kind = tasks.get(spec.task)
        settings = kind.Settings.parse(spec.settings, spec.task).identity()
        limit = min(filter(None, (spec.limit, request.limit)), default=None)
        expected = min(filter(None, (spec.data.expected, limit)), default=0)
        data, items, count = reader(
            lambda spec=spec, limit=limit: _pin(spec, folder, limit, reader), ("", "", expected)
        )
        planned[name] = PlannedTask(
            name=name,
            spec=spec,
            version=kind.version,
            settings=settings,
            outcome_settings={key: value for key, value in settings.items() if key not in kind.scoring},
            judged=kind.judged,
            scorer=reader(lambda spec=spec: _judge(request, spec, suite, folder, store), None) if kind.judged else None,
            data=data,
            items=items,
            count=count,
            limit=limit,
            folder=str(folder) if folder else None,
        )
    return planned


def _pin(spec: TaskSpec, folder: Path | None, limit: int | None, reader: SourceReader) -> tuple[str, str, int]:
    """Pin a task's rows and items, without asking again for what was out of reader."""
    reader.rows(spec.data, folder)
    return pin_items(spec, folder, limit)


def _judge(
    request: Request, task: TaskSpec, suite: SuiteSpec, folder: Path | None, store: Store | None
) -> ScorerSpec | None:
    """Return the judge of a task: its own, else the one that the user named, else the suite's."""
    asked = request.scorer if task.scorer is None else None
    return resolve_judge(asked, task.scorer or suite.scorer, Path(suite.folder), folder, store)
