"""From a request to a plan in three steps: inputs, each checked before anything runs; cells; the plan itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ...methods.base import methods
from ..data import corpora_digests, forget_texts, lacking, pool_digests
from ..engines.base import engines
from ..errors import UserError
from ..models.differences import embeddings
from ..models.fit import check_weights
from ..models.load import (
    ModelSpec,
    described,
    load_tokenizer,
    model_folder,
    named_model,
    resolve_models,
)
from ..models.tokenizers import may_append, words_beyond
from ..registry import check_alike
from ..runtime import BOARD_SEED
from ..specs import RowSpec
from ..store.entries import Store
from ..store.identity import UNRELATED, CellSpec
from ..suite import CorporaSpec, SourceSpec, StressSpec, SuiteSpec, TrainingSpec, VariantSpec, chosen_suite
from .attached import attached_cells
from .classes import source_of
from .imports import ImportedFolder, import_notes, resolve_imports, same_files, shipped
from .logs import stored_logs
from .names import check_checkpoints, check_once, check_rows
from .nulls import as_unrelated, check_nulls, unmade_nulls, unrelated_text
from .plan import Plan, PlannedCell, PlannedTask, StoredLog, base_cell
from .references import Reference, choose_references, original_on, reference_cells, resolve_folders, taken_names
from .request import Request
from .sources import SourceReader
from .stress import choose_stresses, derived_cells
from .tasks import choose, resolve_tasks
from .variants import choose_variants, overrides, runnable, startable, supplied

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """What a request comes to once every name is known and every source is pinned.

    Attributes:
        folder: where the suite's files are looked for; None: nowhere.
        variants: by track and name.
        nulls: names of null rows.
        imports: by name the checkpoints made elsewhere.
        references: what stands in a role on which tracks.
        logs: those references that are stored values.
        notes: what a board says of what was left out.
        left_out: optional task to why it is not measured.
    """

    request: Request
    suite: SuiteSpec
    folder: Path | None
    reader: SourceReader
    tracks: Sequence[str]
    variants: Mapping[str, Mapping[str, VariantSpec]]
    nulls: Sequence[str]
    stress: Mapping[str, StressSpec]
    models: Mapping[str, ModelSpec]
    tasks: Mapping[str, PlannedTask]
    imports: Mapping[str, ImportedFolder]
    references: Sequence[Reference]
    logs: Sequence[StoredLog]
    engine: str
    notes: Sequence[str]
    left_out: Mapping[str, str]

    def digest_of(self, source: SourceSpec, schema: type[RowSpec]) -> str:
        """Return the digest of a source's rows."""
        return self.reader(lambda: self.reader.rows(source, self.folder, schema).digest, "")

    @cached_property
    def text(self) -> dict[str, Any]:
        """The digests of each track's text."""
        return {track: corpora_digests(self.suite.tracks[track].corpora, self.digest_of) for track in self.tracks}

    @cached_property
    def unrelated(self) -> dict[str, Any]:
        """The digests of the text that the null `unrelated` trains on, by track."""
        corpora = {track: unrelated_text(self.suite.tracks[track].corpora) for track in self.tracks}
        return {track: corpora_digests(text, self.digest_of) for track, text in corpora.items()}

    def auxiliary(self, corpora: CorporaSpec, names: tuple[str, ...]) -> dict[str, Any]:
        """Return the digests of what a method asks for beside its forget rows; raise a `DataError` where it is not."""

        if names:
            self.reader(lambda: forget_texts(corpora, names, self.reader.below(self.folder)), {})
        return pool_digests(corpora, names, self.digest_of)

    def sources(self) -> Iterator[SourceSpec]:
        """Give the sources of the tracks' text and of the tasks' items."""
        for text in (self.suite.tracks[track].corpora for track in self.tracks):
            yield from filter(None, (*text.forget.values(), text.retain, text.probe, *text.relearn.values()))
            yield from text.pools.values()
        for reference in self.references:
            yield from reference.spec.finetune.text if reference.spec.finetune else ()
        for task in self.tasks.values():
            if task.spec.data is not None:
                yield task.spec.data


def make_plan(request: Request, store: Store | None, reader: SourceReader | None = None) -> Plan:
    """Resolve a request into a plan; reads data and digests models, trains and measures nothing.

    With a lenient `SourceReader` it goes on where a model, data set or scorer cannot be reached: the plan's `unreached`
    says which, and the ids that would depend on them stand for nothing.

    Raises:
        UserError: an unknown name, a refused setting, missing data or an unreadable model, each with what to do.
    """
    started = time.perf_counter()
    inputs = resolve(request, store, reader or SourceReader())
    cells = list(plan_cells(inputs))
    check_rows(cells)
    logger.info("suite %s: %d cells planned in %.1f s", inputs.suite.name, len(cells), time.perf_counter() - started)
    return Plan(
        suite=inputs.suite,
        models=dict(inputs.models),
        tracks=tuple(inputs.tracks),
        tasks=dict(inputs.tasks),
        cells=tuple(cells),
        logs=tuple(inputs.logs),
        stress=dict(inputs.stress),
        seeds=request.training_seeds,
        limit=request.limit,
        engine=inputs.engine,
        data_folder=str(inputs.folder) if inputs.folder else None,
        command=request.command,
        notes=tuple(dict.fromkeys([*inputs.notes, *inputs.reader.notes(inputs.sources())])),
        left_out=dict(inputs.left_out),
        unreached=tuple(dict.fromkeys(inputs.reader.missing)),
    )


def resolve(request: Request, store: Store | None, reader: SourceReader) -> Inputs:
    """Return what a request names, each checked: suite, tracks, variants, nulls, stresses, models, tasks, imports."""
    check_once(request)
    request, suite = request.with_named_tasks(request.extended(chosen_suite(request.suite, request.data_root)))
    folder = _data_folder(request, suite)
    tracks = choose("track", request.tracks or suite.default_tracks, suite.tracks)
    chosen = choose_variants(request.method_names, request.settings, suite, tracks, request.grid)
    references = choose_references(request, suite, tracks, taken_names([*request.checkpoints, *suite.logs], chosen))
    originals = {track for reference in references if reference.role == "original" for track in reference.tracks}
    variants, left_out = runnable(chosen, request.method_names, _engine_name(request.engine))
    variants, unstarted = startable(variants, request.method_names, originals)
    variants, unsupplied = supplied(variants, request.method_names, _lacks(suite, folder, reader))
    notes = [*left_out, *unstarted, *unsupplied]
    check_checkpoints([*request.checkpoints, *suite.logs], suite, chosen)
    nulls = check_nulls(request.nulls or ())
    if UNRELATED in nulls and not all(variants.values()):
        raise UserError("The null `unrelated` is a method trained on other text: name one with --methods.")
    if request.replicate and not any(variants.values()):
        raise UserError("--replicate trains methods once more: name one with --methods.")
    stress = choose_stresses(request.stress or (), suite, tracks)
    models = _models(request, suite, store, reader)
    check_alike("model", models, "this run")
    _check_models(models.values())
    _check_tokenizers(models, reader)
    imports = resolve_imports(request, models, store)
    tasks, unmeasured = resolve_tasks(request, suite, tracks, folder, store, reader)
    engine = resolve_engine(request.engine, request.engine_options)
    check_traced(tasks.values(), engine)
    places = [Path(suite.folder), *([folder] if folder else []), Path()]
    return Inputs(
        request=request,
        suite=suite,
        folder=folder,
        reader=reader,
        tracks=tracks,
        variants=variants,
        nulls=nulls,
        stress=stress,
        models=models,
        tasks=tasks,
        left_out=unmeasured,
        imports=imports,
        references=resolve_folders(references, models, suite, store, reader, places),
        logs=stored_logs(references, request.stored, suite, tracks, tasks, places),
        engine=engine,
        notes=[
            *notes,
            *same_files(imports),
            *(own.note for own in imports.values() if own.note),
        ],
    )


def plan_cells(inputs: Inputs) -> Iterator[PlannedCell]:
    """Give the cells of a plan: base, imports and trained ones, each with what stands beside it; attacks and nulls."""
    cells = [cell for name, model in inputs.models.items() for cell in _cells_of(inputs, name, model)]
    references = {name: [cell for cell in cells if cell.role and cell.model == name] for name in inputs.models}
    variants = {cell.spec.variant for cell in cells}
    for cell in cells:
        yield cell
        for attached in _attached_cells(inputs, cell, references[cell.model]):
            if attached.spec.variant in variants:
                raise UserError(
                    f"{attached.spec.variant!r} is the name of what stands beside {cell.spec.variant!r}; rename the"
                    " checkpoint or variant that is called so."
                )
            yield attached
    yield from derived_cells(cells, inputs.stress, inputs.suite, inputs.tracks, inputs.digest_of)
    for name, model in inputs.models.items():
        unrelated = _unrelated_cells(inputs, model, references[name]) if UNRELATED in inputs.nulls else []
        yield from (PlannedCell(model=name, spec=spec) for spec in [*unmade_nulls(model, inputs.nulls), *unrelated])


def _cells_of(inputs: Inputs, name: str, model: ModelSpec) -> Iterator[PlannedCell]:
    """Give the cells of a model that are made from nothing but the base."""
    yield PlannedCell(model=name, spec=base_cell(model))
    references = list(_reference_cells(inputs, name, model))
    yield from references
    yield from _import_cells(inputs, name, model)
    for track, text in inputs.text.items():
        start = original_on(track, references, inputs.tracks)
        for seed in inputs.request.training_seeds:
            trained = [_train_cell(inputs, model, track, label, seed, text, start) for label in inputs.variants[track]]
            yield from (PlannedCell(model=name, spec=spec) for spec in trained)


def _attached_cells(inputs: Inputs, cell: PlannedCell, references: Sequence[PlannedCell]) -> Iterator[PlannedCell]:
    request = inputs.request
    first = next(iter(request.training_seeds), BOARD_SEED)
    dtype = inputs.models[cell.model].dtype
    start = cell.spec.start
    if cell.spec.transform == "import" and cell.role is None:
        original = original_on(None, references, inputs.tracks)
        start = original.id if original else None
    return attached_cells(cell, start, dtype, first, noise=request.noise, replicate=request.replicate)


def _reference_cells(inputs: Inputs, name: str, model: ModelSpec) -> Iterator[PlannedCell]:
    def notes(label: str, own: ImportedFolder) -> tuple[str, ...]:
        return _notes(inputs, label, own, model)

    return reference_cells(inputs.references, name, model, inputs.suite, inputs.digest_of, notes)


def _import_cells(inputs: Inputs, name: str, model: ModelSpec) -> Iterator[PlannedCell]:
    for label, own in inputs.imports.items():
        spec = CellSpec(
            model=model.digest, transform="import", settings=dict(own.settings), method="import", variant=label
        )
        notes = _notes(inputs, label, own, model)
        yield PlannedCell(model=name, spec=spec, folder=str(own.folder.resolve()), notes=notes)


def _notes(inputs: Inputs, label: str, own: ImportedFolder, model: ModelSpec) -> tuple[str, ...]:
    """Return what is said of a whole model beside its base; an adapter has the base's configuration and tokenizer."""
    whole = model.digest and "digest" in own.settings
    if not whole or inputs.reader(lambda: model_folder(model, weights=False), None) is None:
        return ()
    changed = {"name": label, "path": str(own.folder), "hub": None, "digest": own.settings["digest"]}
    return import_notes(model, model.model_copy(update=changed), tuple(inputs.tasks.values()))


def _train_cell(
    inputs: Inputs, model: ModelSpec, track: str, label: str, seed: int, text: Any, start: PlannedCell | None
) -> CellSpec:
    """Return the cell of a variant, trained on text with these digests from a cell, None: from the base."""
    variant, suite = inputs.variants[track][label], inputs.suite
    kind = methods.get(variant.method)
    settings = kind.Settings.parse(variant.settings, variant.method)
    own = overrides(inputs.request.settings).get("training", {})
    training = TrainingSpec.parse({**suite.training.identity(), **variant.training, **own}, "training")
    return CellSpec(
        model=model.digest,
        transform="train",
        parents=() if start is None else (start.id,),
        track=track,
        seed=seed,
        settings={
            "method": variant.method,
            "version": kind.version,
            "settings": settings.identity(),
            "training": training.identity(),
            "data": text | inputs.auxiliary(suite.tracks[track].corpora, kind.auxiliary),
            "dtype": model.dtype,
            **source_of(kind),
            **({} if kind.changes == "weights" else {"changes": kind.changes}),
        },
        method=variant.method,
        variant=label,
    )


def _unrelated_cells(inputs: Inputs, model: ModelSpec, references: Sequence[PlannedCell]) -> list[CellSpec]:
    """Return the first method of each track, trained on text that has nothing to do with its topics."""
    start = {track: original_on(track, references, inputs.tracks) for track in inputs.tracks}
    return [
        as_unrelated(
            _train_cell(inputs, model, track, next(iter(variants)), seed, inputs.unrelated[track], start[track])
        )
        for track, variants in inputs.variants.items()
        for seed in inputs.request.training_seeds
    ]


def _lacks(suite: SuiteSpec, folder: Path | None, reader: SourceReader) -> Callable[[str, Sequence[str]], str | None]:
    """Return what says of a track which text beside forget rows it has not, given the names; see `supplied`."""
    rows_of = reader.below(folder)
    return lambda track, names: reader(lambda: lacking(suite.tracks[track].corpora, names, rows_of), None)


def _data_folder(request: Request, suite: SuiteSpec) -> Path | None:
    """Return where files are looked for: an embedded suite's own folder, else --data-root, else a suite file's."""
    named = suite.folder if suite.embedded else request.data_root or suite.folder
    folder = Path(named) if named else None
    if folder is not None and not folder.is_dir():
        raise UserError(f"Data folder {folder} does not exist; pass an existing one with --data-root.")
    return folder


def _models(request: Request, suite: SuiteSpec, store: Store | None, reader: SourceReader) -> dict[str, ModelSpec]:
    if not reader.lenient:
        return resolve_models(request.model_names, suite, store, request.dtype, request.chat_template)
    models: dict[str, ModelSpec] = {}
    for name in request.model_names or suite.models:
        named = named_model(name, suite)
        dtype = named.dtype if request.dtype == "auto" else request.dtype
        models |= reader(
            lambda name=name: resolve_models([name], suite, store, request.dtype, request.chat_template),
            {named.name: named.model_copy(update={"dtype": dtype})},
        )
    return models


def _check_models(models: Iterable[ModelSpec]) -> None:
    """Raise a `UserError` where the weights of a model that lies here do not fit it; this package's own do."""
    for model in models:
        if model.path is not None and Path(model.path).is_dir() and not shipped(Path(model.path)):
            check_weights(described(model), Path(model.path))


def _check_tokenizers(models: Mapping[str, ModelSpec], reader: SourceReader) -> None:
    """Raise a `UserError` where the tokenizer of a model within reach ends every text, or is another model's."""
    for model in models.values():
        folder = reader(lambda model=model: model_folder(model, weights=False), None) if model.digest else None
        if folder is None:
            continue
        known = embeddings(folder)
        beyond = words_beyond(folder, known) if known is not None else 0
        if beyond:
            raise UserError(
                f"{described(model)} has {known} embeddings and its tokenizer {beyond} words beyond them: they are of"
                " different models. Put the tokenizer that the weights were trained with there."
            )
        if may_append(folder):
            load_tokenizer(model)


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


def check_traced(tasks: Iterable[PlannedTask], engine: str) -> None:
    """Raise a `UserError` where an engine cannot trace given texts as a task asks, with moments or without."""
    kind = engines.get(engine)
    for planned in tasks:
        task = planned.without_data()
        if task.needs == "traces" and not (kind.moments if task.moments else kind.traces):
            raise UserError(
                f"Engine {engine} cannot trace given texts{' with moments' if task.moments else ''}, which task"
                f" {planned.name} needs: pass --engine transformers, or leave the task out of --tasks."
            )


def _engine_name(name: str) -> str:
    """Return the engine that `auto` stands for here, another name as it is."""
    if name != "auto":
        return name
    return "vllm" if engines.get("vllm").unusable() is None else "transformers"
