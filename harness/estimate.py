"""What a plan costs: GPU memory, time and disk of every cell, from architecture facts alone. No hub, no weights.

The model is built on torch's meta device, so parameters are exact. What a step of a method does is counted, not
assumed: it rehearses on random hidden states and every pass that it asks for is noted (`rehearsal.py`). The rest is
arithmetic under these assumptions:

| what | assumed |
| --- | --- |
| weights | of the layers that are read, once, in the model's dtype (`precision: mixed`, `reference`) or float32; the |
| | embedding stays in main memory; a family that is not loaded in part: all parameters |
| trained tensors | value before, gradient (one an objective), two moments of Adam; `mixed`: a float32 copy too, and |
| | only the first two as is; a LoRA: its factors in float32 beside the weights |
| activations | input and output of each matrix, in layers from the first trained to the deepest that runs, for every |
| | pass with gradients (their graphs live until the backward pass); three float32 states a watched layer; |
| | 4 bytes a logit of each such pass, 14 more of the one at work |
| forward | 2 FLOPs a matrix element and token, layers up to the deepest watched, head where logits are read; products |
| | of attention left out; the frozen model's log-probabilities once a text |
| backward | 2 more in layers with gradients, 2 more for trained elements |
| text | every text fills `max_length`, unless `Corpus` says how long it is |
| evaluation | weights in the model's dtype, keys and values of a batch, 24 bytes a kept logit, activations of a layer |
| questions | 123 tokens (letters), 71 a choice (continuation): MMLU's test part, SmolLM2's tokenizer; memory for 512 |
| prompts | 17 tokens, memory for 64: challenging RealToxicityPrompts, SmolLM2's tokenizer |
| decoding | a step of a batch reads weights and cache once, or takes the launch time of the layers if longer |
| speed | utilisation x peak of the dtype; float32 at the rate without TF32, unless `precision: tf32` |
| launches | no pass is faster than the time to launch its layers |
| worker | one process trains and measures, one after the other; the base stands beside an imported checkpoint |
| constant | 1.5 GiB for the CUDA context, workspaces and the judge |
| stress | relearning as a training on text like the forget text; quantisation: the weights, no time of its own |
| disk | changed tensors as stored, 350 bytes a training step, 450 a question, 250 + 100 a sample for prompts |

Dense decoders only: of a mixture of experts every expert is counted as if it ran. Loading, downloads and judging take
time that is not estimated.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from ..methods.base import methods
from ..tasks.base import Decoding, tasks
from .data import Rows, load_rows, texts
from .errors import UserError
from .models.load import ModelSpec
from .models.meta import skeleton
from .plan import Plan, PlannedCell, PlannedTask
from .profiles import A100, GIB, Profile
from .rehearsal import Anatomy, Pass, Rehearsal, Work, rehearse
from .specs import canonical
from .store.files import read_json
from .suite import CorporaSpec, SourceSpec, TrainingSpec
from .transforms.quantise import linear_weights
from .transforms.relearn import LanguageModelling, RelearnSettings

OVERHEAD = int(1.5 * GIB)
LOSS_COPIES = 3
LOGIT_BYTES = 24
SAVED_LOGIT, WORKING_LOGIT = 4, 14
QUESTION_TOKENS = {"letters": 123, "continuation": 4 * 71}
LONG_QUESTION, LONG_ANSWER, PROMPT, LONG_PROMPT = 512, 24, 17, 64
STEP_BYTES, CHOICE_BYTES, PROMPT_BYTES, SAMPLE_BYTES = 350, 450, 250, 100
CHARACTERS = 4
"""Characters of text a token."""
ASSUMPTIONS = (
    "Estimates for {profile} at {utilisation:.0%} of peak, evaluation batch {batch}, one worker;"
    " texts as long as known, else max_length; loading, downloads and judging take more time."
)


@dataclass(frozen=True)
class Corpus:
    """How much text a track trains on; None: texts of unknown length fill `max_length`.

    Attributes:
        forget_texts: texts of all forget topics.
        forget_tokens, retain_tokens, probe_tokens: mean length of a batch (that of its longest text), tokens.
        probe_texts: labelled texts; None: forget and retain text, as many as the method takes.
    """

    forget_texts: int
    forget_tokens: int | None = None
    retain_tokens: int | None = None
    probe_texts: int | None = None
    probe_tokens: int | None = None

    def tokens(self, text: str, longest: int) -> int:
        """Return the length of a batch of `forget`, `retain` or `probe` text."""
        known: int | None = getattr(self, f"{text}_tokens")
        return longest if known is None else min(known, longest)


def corpus_of(
    corpora: CorporaSpec,
    folder: Path | None,
    training: TrainingSpec,
    rows_of: Callable[[SourceSpec, Path | None], Rows] = load_rows,
) -> Corpus:
    """Return a track's corpus: counted where its text can be read, else by the suite's `expected` rows.

    `rows_of` reads a source below `folder`.

    Raises:
        UserError: a forget source that can neither be read nor says how many rows to expect.
    """

    def read(sources: Iterable[SourceSpec]) -> tuple[int, int | None]:
        count, lengths = 0, []
        for source in sources:
            try:
                found = texts(rows_of(source, folder).rows, source)
            except UserError:
                if source.expected is None:
                    raise
                length = (source.expected_length or CHARACTERS * training.max_length) // CHARACTERS + 1
                count, lengths = count + source.expected, [*lengths, min(length, training.max_length)]
                continue
            sizes = [min(len(text) // CHARACTERS + 1, training.max_length) for text in found]
            parts = [sizes[start :: max(1, len(sizes) // training.batch_size)] for start in range(200)]
            count, lengths = count + len(found), [*lengths, np.mean([max(part) for part in parts if part])]
        return count, round(float(np.mean(lengths)))

    def maybe(source: SourceSpec | None) -> tuple[int | None, int | None]:
        try:
            return read([source]) if source is not None else (None, None)
        except UserError:
            return None, None

    forget_texts, forget_tokens = read(corpora.forget.values())
    probe_texts, probe_tokens = maybe(corpora.probe)
    return Corpus(forget_texts, forget_tokens, maybe(corpora.retain)[1], probe_texts, probe_tokens)


@dataclass(frozen=True)
class Estimate:
    """What something costs.

    Attributes:
        memory_bytes: peak memory of the device.
        seconds: time on the device.
        disk_bytes: what the store keeps.
    """

    memory_bytes: int
    seconds: float
    disk_bytes: int


@dataclass(frozen=True)
class Row:
    """A planned cell with its cost; `estimate` is None where nobody knows the model's architecture."""

    cell: PlannedCell
    estimate: Estimate | None


@dataclass(frozen=True)
class Estimates:
    """The cost of a plan: a row a cell, the total (largest memory, sums of time and disk), what was assumed."""

    rows: tuple[Row, ...]
    total: Estimate
    assumptions: str


def training_cost(
    anatomy: Anatomy, work: Work, training: TrainingSpec, corpus: Corpus, dtype: str, profile: Profile = A100
) -> Estimate:
    """Return what one training run costs; `dtype` is the model's own."""
    mixed = training.precision == "mixed" and dtype == "bfloat16"
    own = mixed or training.precision == "reference"
    rate = dtype if own else training.precision.replace("mixed", "float32")
    width, size = _bytes(dtype if own else "float32"), training.batch_size
    changed, first = sum(anatomy.parameters[name] for name in work.trained), anatomy.first(work.trained)
    trained, beside = (changed, 0) if work.elements is None else (work.elements, work.elements)
    tokens = {text: size * corpus.tokens(text, training.max_length) for text in ("forget", "retain", "probe")}
    each = size * training.accumulation
    steps = training.steps or max(1, math.ceil(training.epochs * corpus.forget_texts / each))
    fresh = min(1.0, corpus.forget_texts / (steps * each))
    asked = [count for count in (work.probe_limit, corpus.probe_texts) if count is not None]
    repeats = math.ceil((min(asked) if asked else 2 * corpus.forget_texts) / size) / Rehearsal.PROBE_BATCHES
    head = anatomy.vocabulary * anatomy.hidden

    def seconds(item: Pass) -> float:
        count, ran = tokens[item.text], sum(anatomy.matrices[item.start : item.layers]) + head * item.head
        flops, launched = 2 * ran, item.layers - item.start
        if item.gradients:
            flops += 2 * (sum(anatomy.matrices[first : item.layers]) + head * item.head + trained)
            launched += item.layers - first
        launched *= size if item.once else 1
        return max(profile.seconds(flops * count, rate), launched * profile.layer_seconds) * (fresh if item.once else 1)

    def saved(item: Pass) -> int:
        values = sum(anatomy.values[first : item.layers]) * width + LOSS_COPIES * 4 * anatomy.hidden * item.watched
        return tokens[item.text] * (values + SAVED_LOGIT * anatomy.vocabulary * item.head)

    def working(item: Pass) -> int:
        logits = WORKING_LOGIT * anatomy.vocabulary * item.head
        return tokens[item.text] * max(max(anatomy.values[: item.layers]) * width, logits)

    running = [item for item in work.step if item.gradients]
    peak = max(map(working, work.step), default=0)
    moments = 0 if training.optimizer == "sgd" else 2
    copied = mixed and work.elements is None
    value = width if work.elements is None or training.precision == "reference" else 4
    update = 4 if mixed else value
    held = trained * (value + moments * update + 4 * copied) + beside * value
    kept = work.objectives * value if training.accumulation == 1 else value + work.objectives * update
    backward = trained * kept + sum(map(saved, running)) + peak
    combining = trained * value * (work.objectives + 1) if work.objectives > 1 else 0
    setup = sum(seconds(item) * (repeats if item.text == "probe" else 1) for item in work.setup)
    batch = sum(map(seconds, work.step))
    return Estimate(
        memory_bytes=anatomy.loaded(work) * width + held + max(backward, combining, 4 * trained * copied) + OVERHEAD,
        seconds=setup + steps * (training.accumulation * batch + 4 * held / profile.bandwidth),
        disk_bytes=changed * _bytes(dtype) + steps * STEP_BYTES,
    )


def evaluation_cost(
    anatomy: Anatomy, planned: PlannedTask, dtype: str, batch_size: int, profile: Profile = A100
) -> Estimate:
    """Return what one task costs on one checkpoint, without the judge."""
    kind, width = tasks.get(planned.spec.task), _bytes(dtype)
    weights, matrices = anatomy.total * width, sum(anatomy.matrices)
    head = anatomy.vocabulary * anatomy.hidden
    layers = len(anatomy.matrices)

    def forward(rows: int, tokens: float, kept: float) -> float:
        """Return the time of `rows` sequences in batches, each of so many tokens and kept logits."""
        batches = math.ceil(rows / batch_size)
        least = max(layers * profile.layer_seconds, weights / profile.bandwidth)
        return max(profile.seconds(2 * rows * (tokens * matrices + kept * head), dtype), batches * least)

    def memory(tokens: int, kept: int, cached: int) -> int:
        own = max(anatomy.values) * tokens * width + kept * anatomy.vocabulary * LOGIT_BYTES
        return weights + batch_size * (own + cached * anatomy.cache * width) + OVERHEAD

    if kind.needs == "choices":
        form = planned.settings.get("form", "letters")
        rows, kept = (planned.count, 1) if form == "letters" else (4 * planned.count, LONG_ANSWER)
        shots = 1 + int(planned.settings.get("num_fewshot") or 0)
        return Estimate(
            memory(min(LONG_QUESTION * shots, anatomy.longest), kept, 0),
            forward(rows, QUESTION_TOKENS[form] * planned.count / max(rows, 1) * shots, kept),
            planned.count * CHOICE_BYTES,
        )
    decoding = Decoding.model_validate(planned.settings.get("decoding", {}))
    rows, new = planned.count * decoding.samples, decoding.max_new_tokens
    cached = batch_size * (PROMPT + new) * anatomy.cache * width
    read = max((weights + cached) / profile.bandwidth, layers * profile.layer_seconds)
    step = max(read, profile.seconds(2 * batch_size * (matrices + head), dtype))
    seconds = forward(planned.count, PROMPT, 1) + math.ceil(rows / batch_size) * new * step
    peak = memory(LONG_PROMPT, 1, LONG_PROMPT + new)
    if kind.reference:
        seconds += forward(rows, PROMPT + new, new)
        peak = max(peak, memory(LONG_PROMPT + new, new, 0))
    return Estimate(peak, seconds, planned.count * (PROMPT_BYTES + decoding.samples * SAMPLE_BYTES))


def estimate_plan(
    plan: Plan,
    architectures: Mapping[str, Mapping[str, Any]],
    corpora: Mapping[str, Corpus],
    profile: Profile = A100,
    batch_size: int = 64,
) -> Estimates:
    """Return the cost of every cell of a plan: making it, and all tasks on it.

    Args:
        plan: what is to run; its models are neither loaded nor looked up.
        architectures: facts by the plan's model name; a model without is read from its folder's config.json.
        corpora: text by track, for all tracks that train.
        profile: the device.
        batch_size: sequences that are evaluated together.
    """
    kinds = [_kind(cell) for cell in plan.cells]
    costs = {
        kind: _cost(plan, cell, architectures, corpora, profile, batch_size)
        for kind, cell in dict(zip(kinds, plan.cells, strict=True)).items()
    }
    rows = tuple(Row(cell, costs[kind]) for kind, cell in zip(kinds, plan.cells, strict=True))
    known = [row.estimate for row in rows if row.estimate is not None]
    total = Estimate(
        max((one.memory_bytes for one in known), default=0),
        sum(one.seconds for one in known),
        sum(one.disk_bytes for one in known),
    )
    said = ASSUMPTIONS.format(profile=profile.name, utilisation=profile.utilisation, batch=batch_size)
    return Estimates(rows, total, said)


def _kind(cell: PlannedCell) -> tuple[Any, ...]:
    """Return what a cell's cost depends on: all but the seed."""
    spec = cell.spec
    return cell.model, spec.transform, spec.track, spec.stress, canonical(spec.settings)


def _cost(
    plan: Plan,
    cell: PlannedCell,
    architectures: Mapping[str, Mapping[str, Any]],
    corpora: Mapping[str, Corpus],
    profile: Profile,
    batch_size: int,
) -> Estimate | None:
    spec = plan.models[cell.model]
    facts = architectures.get(cell.model) or _local_facts(spec)
    if facts is None:
        return None
    model = skeleton(facts)
    anatomy = _anatomy(model)
    asked = plan.tasks_of(cell).values()
    measured = [evaluation_cost(anatomy, task, spec.dtype, batch_size, profile) for task in asked]
    made = _making(plan, cell, model, anatomy, corpora, profile)
    beside = anatomy.total * _bytes(spec.dtype) if cell.spec.transform == "import" else 0
    peak = max((one.memory_bytes for one in measured), default=0) + beside
    return Estimate(
        max(made.memory_bytes, peak),
        made.seconds + sum(one.seconds for one in measured),
        made.disk_bytes + sum(one.disk_bytes for one in measured),
    )


@lru_cache(maxsize=8)
def _anatomy(model: PreTrainedModel) -> Anatomy:
    return Anatomy(model)


def _making(
    plan: Plan,
    cell: PlannedCell,
    model: PreTrainedModel,
    anatomy: Anatomy,
    corpora: Mapping[str, Corpus],
    profile: Profile,
) -> Estimate:
    """Return what making the checkpoint costs."""
    spec, dtype = cell.spec, plan.models[cell.model].dtype
    if spec.transform == "train":
        work, training = _work(plan, cell, model)
        return training_cost(anatomy, work, training, corpora[spec.track or ""], dtype, profile)
    if spec.transform == "relearn":
        training = TrainingSpec.parse(spec.settings["training"], "training")
        work = _relearned(model, json.dumps(spec.settings["settings"]), tuple(spec.settings["data"]["relearn"]))
        return training_cost(anatomy, work, training, corpora[spec.track or ""], dtype, profile)
    if spec.transform == "quantise":
        rounded = sum(anatomy.parameters[name] for name, _ in linear_weights(model))
        return Estimate(_bytes(dtype) * anatomy.total + OVERHEAD, 0.0, _bytes(dtype) * rounded)
    if spec.transform == "noise":
        parents = plan.trained(cell.model, spec.track or "", spec.seed or 0)
        changed = {name for parent in parents for name in _work(plan, parent, model)[0].trained}
        delta = _bytes(dtype) * sum(anatomy.parameters[name] for name in changed)
        return Estimate(_bytes(dtype) * anatomy.total + OVERHEAD, 0.0, delta)
    return Estimate(0, 0.0, 0)


def _work(plan: Plan, cell: PlannedCell, model: PreTrainedModel) -> tuple[Work, TrainingSpec]:
    settings = cell.spec.settings
    topics = tuple(plan.suite.tracks[cell.spec.track or ""].corpora.forget)
    work = _rehearsed(model, settings["method"], json.dumps(settings["settings"]), topics)
    return work, TrainingSpec.parse(settings["training"], "training")


@lru_cache(maxsize=256)
def _rehearsed(model: PreTrainedModel, method: str, settings: str, topics: tuple[str, ...]) -> Work:
    kind = methods.get(method)
    return rehearse(kind(kind.Settings.parse(json.loads(settings), method)), model, topics)


@lru_cache(maxsize=256)
def _relearned(model: PreTrainedModel, settings: str, topics: tuple[str, ...]) -> Work:
    return rehearse(LanguageModelling(RelearnSettings.parse(json.loads(settings), "relearn")), model, topics)


def _local_facts(spec: ModelSpec) -> dict[str, Any] | None:
    file = Path(spec.path) / "config.json" if spec.path else None
    return read_json(file) if file is not None and file.is_file() else None


def _bytes(dtype: str) -> int:
    return getattr(torch, dtype).itemsize
