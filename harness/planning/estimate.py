"""What each cell of a plan costs, and the plan as a whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from ...methods.base import Method, build_method, methods
from ..data import Rows, characters, load_rows, texts
from ..errors import UserError
from ..models.load import ModelSpec
from ..models.meta import meta_model
from ..specs import LabelledRow, RowSpec, canonical
from ..store.files import read_json
from ..suite import CorporaSpec, SourceSpec, TrainingSpec
from ..training.trace import Workload, trace_method
from ..transforms.quantise import linear_weights
from ..transforms.relearn import relearning
from .cost import (
    A100,
    OVERHEAD,
    Corpus,
    CostEstimate,
    DeviceProfile,
    ModelSizes,
    evaluation_cost,
    training_cost,
    width_of,
)
from .plan import Plan, PlannedCell
from .references import fine_tuned_on

CHARACTERS = 4
"""Characters of text a token."""
ASSUMPTIONS = (
    "Estimates for {profile} at {utilisation:.0%} of peak, evaluation batch {batch}, one worker;"
    " texts as long as known, else max_length; loading, downloads and judging take more time."
)


def corpus_of(
    corpora: CorporaSpec,
    folder: Path | None,
    training: TrainingSpec,
    rows_of: Callable[[SourceSpec, Path | None, type[RowSpec]], Rows] = load_rows,
) -> Corpus:
    """Return a track's corpus: counted where its text can be read, else by the suite's `expected` rows.

    `rows_of` reads a source below `folder`.

    Raises:
        UserError: a forget source that can neither be read nor says how many rows to expect.
    """

    def read(sources: Iterable[SourceSpec], schema: type[RowSpec] | None = None) -> tuple[int, int | None]:
        count, lengths = 0, []
        for source in sources:
            try:
                documents = texts(rows_of(source, folder, schema or source.text_row).rows, source)
            except UserError:
                if source.expected is None:
                    raise
                length = (source.expected_length or CHARACTERS * training.max_length) // CHARACTERS + 1
                count, lengths = count + source.expected, [*lengths, min(length, training.max_length)]
                continue
            sizes = [min(characters(text) // CHARACTERS + 1, training.max_length) for text in documents]
            parts = [sizes[start :: max(1, len(sizes) // training.batch_size)] for start in range(200)]
            count, lengths = count + len(documents), [*lengths, np.mean([max(part) for part in parts if part])]
        return count, round(float(np.mean(lengths)))

    def maybe(source: SourceSpec | None, schema: type[RowSpec] | None = None) -> tuple[int | None, int | None]:
        try:
            return read([source], schema) if source is not None else (None, None)
        except UserError:
            return None, None

    forget_texts, forget_tokens = read(corpora.forget.values())
    probe_texts, probe_tokens = maybe(corpora.probe, LabelledRow)
    return Corpus(forget_texts, forget_tokens, maybe(corpora.retain)[1], probe_texts, probe_tokens)


@dataclass(frozen=True)
class CellEstimate:
    """A planned cell with its cost; `estimate` is None where nobody knows the model's architecture."""

    cell: PlannedCell
    estimate: CostEstimate | None


@dataclass(frozen=True)
class PlanEstimate:
    """The cost of a plan: a row a cell, the total (largest memory, sums of time and disk), what was assumed."""

    rows: tuple[CellEstimate, ...]
    total: CostEstimate
    assumptions: str


def estimate_plan(
    plan: Plan,
    architectures: Mapping[str, Mapping[str, Any]],
    corpora: Mapping[str, Corpus],
    profile: DeviceProfile = A100,
    batch_size: int = 64,
) -> PlanEstimate:
    """Return the cost of every cell of a plan: making it, and all tasks on it.

    Args:
        plan: what is to run; its models are neither loaded nor looked up.
        architectures: facts by the plan's model name; a model without is read from its folder's config.json.
        corpora: text by track, for all tracks that train; by cell id of references that are fine-tuned.
        profile: the device.
        batch_size: sequences that are evaluated together.
    """
    kinds = [_kind(plan, cell) for cell in plan.cells]
    costs = {
        kind: _cost(plan, cell, architectures, corpora, profile, batch_size)
        for kind, cell in dict(zip(kinds, plan.cells, strict=True)).items()
    }
    rows = tuple(CellEstimate(cell, costs[kind]) for kind, cell in zip(kinds, plan.cells, strict=True))
    known = [row.estimate for row in rows if row.estimate is not None]
    total = CostEstimate(
        max((one.memory_bytes for one in known), default=0),
        sum(one.seconds for one in known),
        sum(one.disk_bytes for one in known),
    )
    assumptions = ASSUMPTIONS.format(profile=profile.name, utilisation=profile.utilisation, batch=batch_size)
    return PlanEstimate(rows, total, assumptions)


def _kind(plan: Plan, cell: PlannedCell) -> tuple[Any, ...]:
    """Return what a cell's cost depends on: all but the seed; that of noise on what its parents change."""
    spec = cell.spec
    parents = [_kind(plan, plan.by_id[parent]) for parent in spec.parents] if spec.transform == "noise" else []
    return cell.model, spec.transform, spec.track, spec.stress, canonical(spec.settings), *parents


def _cost(
    plan: Plan,
    cell: PlannedCell,
    architectures: Mapping[str, Mapping[str, Any]],
    corpora: Mapping[str, Corpus],
    profile: DeviceProfile,
    batch_size: int,
) -> CostEstimate | None:
    spec = plan.models[cell.model]
    facts = architectures.get(cell.model) or _local_facts(spec)
    if facts is None:
        return None
    model = meta_model(facts)
    sizes = _sizes(model)
    tasks = plan.tasks_of(cell).values()
    measured = [evaluation_cost(sizes, task, spec.dtype, batch_size, profile) for task in tasks]
    made = _making(plan, cell, model, sizes, corpora, profile)
    beside = sizes.total * width_of(spec.dtype) if cell.spec.elsewhere else 0
    peak = max((one.memory_bytes for one in measured), default=0) + beside
    return CostEstimate(
        max(made.memory_bytes, peak),
        made.seconds + sum(one.seconds for one in measured),
        made.disk_bytes + sum(one.disk_bytes for one in measured),
    )


@lru_cache(maxsize=8)
def _sizes(model: PreTrainedModel) -> ModelSizes:
    return ModelSizes(model)


def _making(
    plan: Plan,
    cell: PlannedCell,
    model: PreTrainedModel,
    sizes: ModelSizes,
    corpora: Mapping[str, Corpus],
    profile: DeviceProfile,
) -> CostEstimate:
    """Return what making the checkpoint costs."""
    spec, dtype = cell.spec, plan.models[cell.model].dtype
    if spec.transform == "train":
        return _staged(plan, cell, model, sizes, corpora[spec.track or ""], profile)
    if spec.transform == "relearn":
        training = TrainingSpec.parse(spec.settings["training"], "training")
        work = _relearned(model, json.dumps(spec.settings["settings"]), tuple(spec.settings["data"]["relearn"]))
        return training_cost(sizes, work, training, corpora[spec.track or ""], dtype, profile)
    if spec.transform == "finetune":
        training = TrainingSpec.parse(spec.settings["training"], "training")
        work = _relearned(model, "{}", ("text",))
        return training_cost(sizes, work, training, corpora[cell.id], dtype, profile)
    if spec.transform == "quantise":
        rounded = sum(sizes.parameters[name] for name, _ in linear_weights(model))
        return CostEstimate(width_of(dtype) * sizes.total + OVERHEAD, 0.0, width_of(dtype) * rounded)
    if spec.transform == "noise":
        parent = plan.by_id[spec.parents[0]]
        trained = parent.spec.transform == "train"
        changed = work_of(plan, parent, model)[0].trained if trained else sizes.parameters
        delta = width_of(dtype) * sum(sizes.parameters[name] for name in changed)
        return CostEstimate(width_of(dtype) * sizes.total + OVERHEAD, 0.0, delta)
    return CostEstimate(0, 0.0, 0)


def _staged(
    plan: Plan, cell: PlannedCell, model: PreTrainedModel, sizes: ModelSizes, corpus: Corpus, profile: DeviceProfile
) -> CostEstimate:
    """Return what a method's training costs with those of its stages, whose models stay on the device."""
    dtype = plan.models[cell.model].dtype
    work, training = work_of(plan, cell, model)
    own = training_cost(sizes, work, training, corpus, dtype, profile)
    memory, seconds, kept = own.memory_bytes, own.seconds, 0
    for stage in build_method(cell.spec.settings["method"], cell.spec.settings["settings"]).stages().values():
        before = trace_method(stage.method, model, tuple(plan.suite.tracks[cell.spec.track or ""].corpora.forget))
        settings = TrainingSpec.parse({**training.identity(), **stage.training}, "training of a stage")
        cost = training_cost(sizes, before, settings, corpus, dtype, profile)
        memory, seconds = max(memory, cost.memory_bytes), seconds + cost.seconds
        kept += width_of(dtype) * sum(sizes.parameters[name] for name in before.trained)
    return CostEstimate(memory + kept, seconds, own.disk_bytes)


def work_of(plan: Plan, cell: PlannedCell, model: PreTrainedModel) -> tuple[Workload, TrainingSpec]:
    """Return what a cell's method trains and runs, traced on a model without weights, and its training."""
    settings = cell.spec.settings
    topics = tuple(plan.suite.tracks[cell.spec.track or ""].corpora.forget)
    work = _traced(model, methods.get(settings["method"]), json.dumps(settings["settings"]), topics)
    return work, TrainingSpec.parse(settings["training"], "training")


@lru_cache(maxsize=256)
def _traced(model: PreTrainedModel, kind: type[Method], settings: str, topics: tuple[str, ...]) -> Workload:
    return trace_method(kind(kind.Settings.parse(json.loads(settings), kind.__name__)), model, topics)


@lru_cache(maxsize=256)
def _relearned(model: PreTrainedModel, settings: str, topics: tuple[str, ...]) -> Workload:
    return trace_method(relearning(json.loads(settings)), model, topics)


def architecture(plan: Plan, name: str, spec: ModelSpec) -> Mapping[str, Any] | None:
    """Return the facts of a plan's model: of the suite, or of its folder's config.json; None where neither has them."""
    known = plan.suite.models[name].architecture if name in plan.suite.models else {}
    return known or _local_facts(spec)


def _local_facts(spec: ModelSpec) -> dict[str, Any] | None:
    file = Path(spec.path) / "config.json" if spec.path else None
    return read_json(file) if file is not None and file.is_file() else None


def estimates(
    plan: Plan, batch_size: int, rows_of: Callable[[SourceSpec, Path | None, type[RowSpec]], Rows] = load_rows
) -> PlanEstimate:
    """Return the cost of every cell of a plan from the architectures that the suite or a model's folder knows.

    `rows_of` reads a source below the folder of data.
    """
    folder = Path(plan.data_folder) if plan.data_folder else None
    corpora = {
        track: corpus_of(plan.suite.tracks[track].corpora, folder, plan.suite.training, rows_of)
        for track in plan.tracks
    }
    for cell in plan.cells:
        sources = fine_tuned_on(plan.suite, cell) if cell.spec.stress is None else ()
        if sources:
            text = CorporaSpec(forget={str(place): source for place, source in enumerate(sources)}, retain=sources[0])
            corpora[cell.id] = corpus_of(text, folder, plan.suite.training, rows_of)
    facts = {name: plan.suite.models[name].architecture for name in plan.models if name in plan.suite.models}
    return estimate_plan(plan, facts, corpora, A100, batch_size)


def memory(plan: Plan, batch_size: int) -> dict[str, int]:
    """Return the bytes that a worker needs to make and measure any cell of a model, by the model's digest."""
    most: dict[str, int] = {}
    for row in estimates(plan, batch_size).rows:
        if row.estimate is not None:
            digest = plan.models[row.cell.model].digest
            most[digest] = max(most.get(digest, 0), row.estimate.memory_bytes)
    return most
