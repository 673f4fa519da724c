"""What a plan costs: GPU memory, time and disk of every cell, from architecture facts alone. No hub, no weights.

The model is built on torch's meta device, so parameters are exact. What a step of a method does is counted, not
assumed: it is traced on random hidden states and every pass that it asks for is noted (`trace.py`). The rest is
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
| items | as long as their task says (`Task.workload`) |
| decoding | a step of a batch reads weights and cache once, or takes the launch time of the layers if longer |
| speed | utilisation x peak of the dtype; float32 at the rate without TF32, unless `precision: tf32` |
| launches | no pass is faster than the time to launch its layers |
| worker | one process trains and measures, one after the other; the base stands beside an imported checkpoint |
| constant | 1.5 GiB for the CUDA context, workspaces and the scorer |
| stress | relearning as a training on text like the forget text; quantisation: the weights, no time of its own |
| disk | changed tensors as stored, 350 bytes a training step, 450 a question, 250 + 100 a sample for prompts, 18 a |
| | traced token, 40 with its moments |

Dense decoders only: of a mixture of experts every expert is counted as if it ran. Loading, downloads and judging take
time that is not estimated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from ..models.layers import decoder_layers, layer_of
from ..models.load import CUT
from ..suite import TrainingSpec
from ..training.trace import ForwardPass, TracingContext, Workload
from .devices import A100, GIB, DeviceProfile
from .plan import PlannedTask

OVERHEAD = int(1.5 * GIB)
LOSS_COPIES = 3
LOGIT_BYTES = 24
SAVED_LOGIT, WORKING_LOGIT = 4, 14
STEP_BYTES, CHOICE_BYTES, PROMPT_BYTES, SAMPLE_BYTES = 350, 450, 250, 100
TOKEN_BYTES = {False: 18, True: 40}
"""Of a traced token, without and with its moments."""


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


@dataclass(frozen=True)
class CostEstimate:
    """What something costs.

    Attributes:
        memory_bytes: peak memory of the device.
        seconds: time on the device.
        disk_bytes: what the store keeps.
    """

    memory_bytes: int
    seconds: float
    disk_bytes: int


def training_cost(
    sizes: ModelSizes,
    work: Workload,
    training: TrainingSpec,
    corpus: Corpus,
    dtype: str,
    profile: DeviceProfile = A100,
) -> CostEstimate:
    """Return what one training run costs; `dtype` is the model's own."""
    mixed = training.precision == "mixed" and dtype == "bfloat16"
    own = mixed or training.precision == "reference"
    rate = dtype if own else training.precision.replace("mixed", "float32")
    width, size = width_of(dtype if own else "float32"), training.batch_size
    changed, first = sum(sizes.parameters[name] for name in work.trained), sizes.first(work.trained)
    trained, beside = (changed, 0) if work.elements is None else (work.elements, work.elements)
    tokens = {text: size * corpus.tokens(text, training.max_length) for text in ("forget", "retain", "probe")}
    step_texts = size * training.accumulation
    steps = training.steps_for(corpus.forget_texts)
    fresh = min(1.0, corpus.forget_texts / (steps * step_texts))
    counts = [count for count in (work.probe_limit, corpus.probe_texts) if count is not None]
    repeats = math.ceil((min(counts) if counts else 2 * corpus.forget_texts) / size) / TracingContext.PROBE_BATCHES
    head = sizes.vocabulary * sizes.hidden

    def seconds(item: ForwardPass) -> float:
        count, ran = tokens[item.text], sum(sizes.matrices[item.start : item.layers]) + head * item.head
        flops, launched = 2 * ran, item.layers - item.start
        if item.gradients:
            flops += 2 * (sum(sizes.matrices[first : item.layers]) + head * item.head + trained)
            launched += item.layers - first
        launched *= size if item.once else 1
        return max(profile.seconds(flops * count, rate), launched * profile.layer_seconds) * (fresh if item.once else 1)

    def saved(item: ForwardPass) -> int:
        values = sum(sizes.values[first : item.layers]) * width + LOSS_COPIES * 4 * sizes.hidden * item.watched
        return tokens[item.text] * (values + SAVED_LOGIT * sizes.vocabulary * item.head)

    def working(item: ForwardPass) -> int:
        logits = WORKING_LOGIT * sizes.vocabulary * item.head
        return tokens[item.text] * max(max(sizes.values[: item.layers]) * width, logits)

    running = [item for item in work.step if item.gradients]
    peak = max(map(working, work.step), default=0)
    moments = 0 if training.optimizer == "sgd" else 2
    copied = mixed and work.elements is None
    value = width if work.elements is None or training.precision == "reference" else 4
    update = 4 if mixed else value
    state = trained * (value + moments * update + 4 * copied) + beside * value
    kept = work.objectives * value if training.accumulation == 1 else value + work.objectives * update
    backward = trained * kept + sum(map(saved, running)) + peak
    combining = trained * value * (work.objectives + 1) if work.objectives > 1 else 0
    setup = sum(seconds(item) * (repeats if item.text == "probe" else 1) for item in work.setup)
    batch = sum(map(seconds, work.step))
    return CostEstimate(
        memory_bytes=sizes.loaded(work) * width + state + max(backward, combining, 4 * trained * copied) + OVERHEAD,
        seconds=setup + steps * (training.accumulation * batch + 4 * state / profile.bandwidth),
        disk_bytes=changed * width_of(dtype) + steps * STEP_BYTES,
    )


def evaluation_cost(
    sizes: ModelSizes, planned: PlannedTask, dtype: str, batch_size: int, profile: DeviceProfile = A100
) -> CostEstimate:
    """Return what one task costs on one checkpoint, without the scorer."""
    task, width = planned.without_data(), width_of(dtype)
    work = task.workload()
    rows = work.sequences * planned.count
    weights, matrices = sizes.total * width, sum(sizes.matrices)
    head = sizes.vocabulary * sizes.hidden
    layers = len(sizes.matrices)

    def forward(rows: int, tokens: float, kept: float) -> float:
        """Return the time of `rows` sequences in batches, each of so many tokens and kept logits."""
        batches = math.ceil(rows / batch_size)
        least = max(layers * profile.layer_seconds, weights / profile.bandwidth)
        return max(profile.seconds(2 * rows * (tokens * matrices + kept * head), dtype), batches * least)

    def memory(tokens: int, kept: int, cached: int) -> int:
        own = max(sizes.values) * tokens * width + kept * sizes.vocabulary * LOGIT_BYTES
        return weights + batch_size * (own + cached * sizes.cache * width) + OVERHEAD

    if task.needs != "generations":
        kept = CHOICE_BYTES if task.needs == "choices" else work.sequences * work.logits * TOKEN_BYTES[task.moments]
        return CostEstimate(
            memory(min(work.longest, sizes.longest), work.logits, 0),
            forward(rows, work.tokens, work.logits),
            planned.count * kept,
        )
    new = work.sampled
    cached = batch_size * (work.tokens + new) * sizes.cache * width
    read = max((weights + cached) / profile.bandwidth, layers * profile.layer_seconds)
    step = max(read, profile.seconds(2 * batch_size * (matrices + head), dtype))
    seconds = forward(planned.count, work.tokens, 1) + math.ceil(rows / batch_size) * new * step
    peak = memory(work.longest, 1, work.longest + new)
    if task.reference:
        seconds += forward(rows, work.tokens + new, new)
        peak = max(peak, memory(work.longest + new, new, 0))
    return CostEstimate(peak, seconds, planned.count * (PROMPT_BYTES + work.sequences * SAMPLE_BYTES))


def width_of(dtype: str) -> int:
    """Return the bytes of a value of a dtype by its name."""
    return getattr(torch, dtype).itemsize


class ModelSizes:
    """Sizes of a model by decoder layer, from its skeleton.

    Attributes:
        parameters: elements of every parameter by full name; tied ones once.
        matrices: elements of each layer's matrices.
        values: inputs and outputs of each layer's matrices together, values a token.
        vocabulary: tokens of the vocabulary.
        cache: key and value elements that all layers keep a token.
        longest: tokens that the model takes.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.prefix, modules = decoder_layers(model)
        self._cut = model.config.model_type in CUT
        shapes = [[p.shape for p in layer.parameters() if p.dim() > 1] for layer in modules]
        config = model.config.get_text_config(decoder=True)
        heads = config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        table = model.get_input_embeddings().weight
        head = getattr(model.get_output_embeddings(), "weight", None)
        self._embedding = [name for name, p in model.named_parameters() if p is table and p is not head]
        self.parameters = {name: parameter.numel() for name, parameter in model.named_parameters()}
        self.matrices = [sum(shape.numel() for shape in layer) for layer in shapes]
        self.values = [sum(shape[-1] + shape[-2] for shape in layer) for layer in shapes]
        self.vocabulary, self.hidden = config.vocab_size, config.hidden_size
        self.longest = getattr(config, "max_position_embeddings", None) or 1 << 20
        self.cache = 2 * len(shapes) * (getattr(config, "num_key_value_heads", None) or heads) * width

    def loaded(self, work: Workload) -> int:
        """Return the elements on the device while a method trains: the layers it reads; all where it trains others."""
        inside = {name: f".{self.prefix}." in f".{name}" for name in self.parameters}
        if not self._cut or work.head or not all(inside[name] for name in work.trained):
            elsewhere = set(self._embedding) - set(work.trained)
            return self.total - sum(self.parameters[name] for name in elsewhere)
        read = (name for name in self.parameters if inside[name] and layer_of(name, self.prefix) < work.layers)
        return sum(self.parameters[name] for name in read)

    @property
    def total(self) -> int:
        """Number of parameters."""
        return sum(self.parameters.values())

    def first(self, names: Iterable[str]) -> int:
        """Return the first layer that gradients reach; a parameter outside the layers counts as below them."""
        return min(layer_of(name, self.prefix) for name in names)
