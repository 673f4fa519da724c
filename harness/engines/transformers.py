"""The engine on transformers: runs everywhere, and is what other engines are held against."""

from __future__ import annotations

import inspect
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from importlib.metadata import version
from itertools import islice
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from ...methods.base import DecodingMethod
from ...tasks.base import ChoiceRequest, Decoding, GenerationRequest, TraceRequest
from ..errors import UserError
from ..models.layers import decoder_layers, first_layers
from ..models.linear import use_onednn
from ..models.load import ModelSpec, attention_of, load_model, load_tokenizer
from ..models.patch import apply_delta, check_delta, put_tensors, shapes_of
from ..records import Choices, Generations, Trace, Traces
from ..rng import sampling_noise
from ..store.delta import not_finite
from ._moments import vocabulary_moments
from ._requests import Draw, Generation, GivenTexts, ScoredSequence, Scoring, Tracing
from ._sampling import sample
from ._tokens import Encoder
from .base import Engine, Progress, recorded_batch, register

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Unit = TypeVar("Unit")

BUSY = {"cpu": 1024, "cuda": 16384}
"""Tokens that keep a device busy: a batch of as many is rather closed than padded."""
LEAST = {"cpu": 128}
"""Tokens of a sequence that a batch has memory for even where all are shorter: a CPU reads all weights a step."""
MOST = 8
"""Sequences of a batch of short ones, as a multiple of the batch size."""


class Caches(tuple[Any, Any]):
    """The caches of keys and values of the model and of its assistant, as one."""

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows of both."""
        for cache in self:
            cache.batch_select_indices(indices)


class Wrapped:
    """A model whose logits a method changes, called like the model.

    The assistant is the model's first layers under its norm and head, with a checkpoint's tensors in place of its own
    while it runs; all other tensors are shared, and the model's own never change.

    Raises:
        UserError: the assistant has more layers than the model.
    """

    def __init__(self, model: PreTrainedModel, tensors: Mapping[str, torch.Tensor], method: DecodingMethod) -> None:
        own = model.state_dict()
        self._model, self._method = model, method
        self._tensors = {name: tensor.to(own[name].device, own[name].dtype) for name, tensor in tensors.items()}
        _, self._layers = decoder_layers(model)
        self._depth = len(self._layers) if method.depth is None else method.depth
        if not 1 <= self._depth <= len(self._layers):
            raise UserError(
                f"The checkpoint's assistant has {self._depth} layers, {type(model).__name__} {len(self._layers)};"
                " pass the model it was made for with --models."
            )

    def __call__(self, *, past_key_values: Caches | None = None, **inputs: Any) -> SimpleNamespace:
        """Return `logits`, float32, and `past_key_values`: the caches of both, None where there are none."""
        own, assistants = past_key_values or (None, None)
        base = self._model(past_key_values=own, **inputs)
        with first_layers(self._layers, self._depth):
            inputs["past_key_values"] = assistants
            assistant = torch.func.functional_call(self._model, self._tensors, (), inputs)
        caches = [getattr(out, "past_key_values", None) for out in (base, assistant)]
        return SimpleNamespace(
            logits=self._method.decode(base.logits.float(), assistant.logits.float()),
            past_key_values=None if None in caches else Caches(caches),
        )


@register("transformers")
class TransformersEngine(Engine):
    """Runs a causal language model on one device. Log-probabilities are float32, sampling probabilities float64.

    Batches are as large as the device is busy with; one that does not fit its memory is halved, and so are those after
    it. In float32 that moves last bits only; in half precision it can change answers, and the size is recorded.
    """

    summary = "transformers on one device, CPU or GPU; the reference for other engines"
    wrappers = True
    traces = moments = True

    def __init__(
        self, model: ModelSpec, *, device: str = "cpu", batch_size: int = 64, options: Mapping[str, Any] | None = None
    ) -> None:
        self.spec, self.device = model, torch.device(device)
        self.batch_size = self._first_batch_size = batch_size
        self.model = load_model(model, device)
        use_onednn(self.model)
        self._wrapped: Wrapped | None = None
        self.tokens = Encoder.of(load_tokenizer(model), self.model.config, chat=model.chat)
        self._accepts = set(inspect.signature(self.model.forward).parameters)
        self._originals: dict[str, torch.Tensor] = {}
        self._repeats = True

    def apply(self, delta: Mapping[str, torch.Tensor]) -> None:
        """Put a checkpoint's tensors into the base model; a delta that is still there is taken out first."""
        self.restore()
        self._originals = apply_delta(self.model, self.spec.name, delta)

    def wrap(self, tensors: Mapping[str, torch.Tensor], method: DecodingMethod) -> None:
        """Run the base beside the assistant that the tensors make; see `Engine.wrap`. The base does not change."""
        self.restore()
        check_delta(self.spec.name, shapes_of(self.model), tensors)
        self._wrapped = Wrapped(self.model, tensors, method)

    def restore(self) -> None:
        """Put the base model's tensors back, bit by bit, and take an assistant away."""
        put_tensors(self.model.state_dict(), self._originals)
        self._originals = {}
        self._wrapped = None

    def broken_tensor(self) -> str | None:
        """Return the first tensor that holds a value that is not finite."""
        return not_finite(dict(self.model.named_parameters()))

    def recorded(self) -> dict[str, Any]:
        """Return device, dtype, attention kernel, threads and versions, in half precision the batch size too."""
        sizes = dict.fromkeys((self._first_batch_size, self.batch_size))
        return {
            **recorded_batch(self.spec.dtype, " cut to ".join(map(str, sizes))),
            "engine": "transformers",
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "attention": attention_of(self.model),
            "matmul_precision": torch.get_float32_matmul_precision(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": version("transformers"),
        }

    def score_choices(self, requests: Sequence[ChoiceRequest], progress: Progress | None = None) -> list[Choices]:
        """Return the log-probabilities (nats) of each request's choices; see `Engine.score_choices`."""
        scoring = Scoring(self.tokens, requests, progress)
        self._run_rows(scoring, self._score)
        return scoring.outcomes

    def trace(self, requests: Sequence[TraceRequest], progress: Progress | None = None) -> list[Traces]:
        """Return what the model thinks of each token of given texts; see `Engine.trace`."""
        tracing = Tracing(self.tokens, requests, progress)
        self._run_rows(tracing, partial(self._trace, moments=tracing.moments))
        return tracing.outcomes

    def _run_rows(self, given: GivenTexts, run: Callable[[Sequence[ScoredSequence]], list[Any]]) -> None:
        ordered = sorted(given.rows, key=_place, reverse=True)
        sizes = [len(_context(row)) for row in ordered]
        self._in_batches(ordered, sizes, run, given.finish, enough=BUSY[self.device.type])

    def generate(
        self, requests: Sequence[GenerationRequest], decoding: Decoding, progress: Progress | None = None
    ) -> list[Generations]:
        """Return `decoding.samples` continuations a request; see `Engine.generate`."""
        drawing = Generation(self.tokens, requests, decoding, progress)

        def run(batch: Sequence[Draw]) -> list[tuple[list[int], bool, bool]]:
            return self._generate(batch, decoding, drawing.stop_at if decoding.stop else None)

        ordered = sorted(drawing.samples, key=lambda sample: len(sample.prompt), reverse=True)
        sizes = [len(sample.prompt) + sample.limit for sample in ordered]
        self._in_batches(ordered, sizes, run, drawing.finish)
        return drawing.outcomes()

    def _in_batches(
        self,
        units: Sequence[Unit],
        sizes: Sequence[int],
        run: Callable[[Sequence[Unit]], list[Any]],
        finish: Callable[[Unit, Any], None],
        enough: int | None = None,
    ) -> None:
        """Run units together, the longest first, half as many from the first batch on that memory cannot hold.

        A batch holds as many tokens, padding included, as `batch_size` of the longest unit, on a CPU of `LEAST` at
        least: the shorter, the more of them. Once it holds `enough`, the first shorter unit starts the next.
        """
        start, budget = 0, self.batch_size * max(LEAST.get(self.device.type, 0), *sizes, 0)
        while start < len(units):
            part = sizes[start : start + min(max(1, budget // sizes[start]), MOST * self.batch_size)]
            count = len(part)
            if enough is not None:
                count = next((n for n, size in enumerate(part) if size < part[0] and n * part[0] >= enough), count)
            batch = units[start : start + count]
            try:
                results = run(batch)
            except torch.OutOfMemoryError as error:
                if count == 1:
                    raise UserError(
                        f"{self.spec.name} with a single sequence does not fit the memory of {self.device}; use a"
                        " device with more, or --dtype bfloat16.",
                        status=1,
                    ) from error
                results = None
            if results is None:
                self.batch_size, budget = max(1, min(self.batch_size, count) // 2), count // 2 * sizes[start]
                torch.cuda.empty_cache()
                continue
            start += count
            for unit, result in zip(batch, results, strict=True):
                finish(unit, result)

    @torch.inference_mode()
    def _score(self, batch: Sequence[ScoredSequence]) -> list[list[tuple[float, bool]]]:
        """Return (log-probability, whether greedy) of every target of the rows."""
        logits, spot, tokens = self._at_targets(batch)
        values = iter(logits.log_softmax(-1)[spot, tokens].double().tolist())
        hits = iter((logits.argmax(-1)[spot] == tokens).tolist())
        return [
            [(sum(islice(values, len(tail))), all(tuple(islice(hits, len(tail))))) for *_, tail in unit.targets]
            for unit in batch
        ]

    @torch.inference_mode()
    def _trace(self, batch: Sequence[ScoredSequence], moments: bool) -> list[list[Trace]]:
        """Return the trace of every target of the rows."""
        logits, spot, tokens = self._at_targets(batch)
        logprobs = logits.log_softmax(-1)
        columns = [logprobs[spot, tokens].tolist(), (logits.argmax(-1)[spot] == tokens).int().tolist()]
        if moments:
            columns += [column[spot].tolist() for column in vocabulary_moments(logprobs)]
        places = iter(zip(*columns, strict=True))
        traces: Any = [
            [map(list, zip(*islice(places, len(tail)), strict=True)) for *_, tail in unit.targets] for unit in batch
        ]
        return [[Trace(*each) for each in texts] for texts in traces]

    def _at_targets(self, batch: Sequence[ScoredSequence]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run rows; return float32 logits, [spots, vocabulary], and the spot and token of each token of each target."""
        logits, starts = self._after_contexts(batch) or self._whole(batch)
        places = [
            (row, starts[row] + _choice(unit) - len(tail) + offset, token)
            for row, unit in enumerate(batch)
            for *_, tail in unit.targets
            for offset, token in enumerate(tail)
        ]
        rows, positions, tokens = torch.tensor(places, device=self.device).unbind(1)
        spots, spot = torch.unique(rows * logits.shape[1] + positions, return_inverse=True)
        return logits.flatten(0, 1)[spots].float(), spot, tokens

    def _whole(self, batch: Sequence[ScoredSequence]) -> tuple[torch.Tensor, list[int]]:
        """Return the logits that predict each row's choices, [rows, positions, vocabulary], and where they start.

        Rows are padded on the right: no real token sees padding, and attention that needs no mask is faster.
        """
        starts = [len(row.tokens) - _choice(row) for row in batch]
        ids, _ = self._padded([row.tokens for row in batch], left=False)
        out = self._forward(ids, None, None, keep=ids.shape[1] - min(starts), use_cache=False)
        return out.logits[:, min(starts) - ids.shape[1] :], [start - min(starts) for start in starts]

    def _after_contexts(self, batch: Sequence[ScoredSequence]) -> tuple[torch.Tensor, list[int]] | None:
        """Do the same with a context run once for all its choices; None where there is nothing to share.

        Choices are padded on the right: a gap between a context and its choice would use up a sliding window.
        """
        place = {context: index for index, context in enumerate(dict.fromkeys(map(_context, batch)))}
        if len(place) == len(batch) or not self._repeats:
            return None
        ids, mask = self._padded(list(place))
        out = self._forward(ids, mask, _positions(mask), keep=1, use_cache=True)
        cache = getattr(out, "past_key_values", None)
        self._repeats = _repeatable(cache)
        if cache is None or not self._repeats:
            return None
        spread = torch.tensor([place[_context(row)] for row in batch], device=self.device)
        cache.batch_select_indices(spread)
        first = out.logits[:, -1:][spread]
        ids, real = self._padded([row.tokens[len(_context(row)) :] for row in batch], left=False)
        mask = torch.cat([mask[spread], real], -1)
        width = ids.shape[1]
        positions = _positions(mask)[:, -width:]
        out = self._forward(ids, mask, positions, keep=width, use_cache=True, past_key_values=cache)
        return torch.cat([first, out.logits[:, -width:]], 1), [0] * len(batch)

    @torch.inference_mode()
    def _generate(
        self,
        batch: Sequence[Draw],
        decoding: Decoding,
        stop_at: Callable[[Draw, list[int], int], int | None] | None = None,
    ) -> list[tuple[list[int], bool, bool]]:
        """Return (tokens before the end token, whether it ended by itself, whether its logits broke) a continuation.

        `stop_at` says whether one has come to a text at which it stops, so that no more of it is drawn.
        """
        from ._attention import give_room

        length = max(unit.limit for unit in batch)
        draws = [sampling_noise(decoding.seed, unit.item, unit.number, decoding.max_new_tokens) for unit in batch]
        uniform = torch.from_numpy(np.stack(draws)).to(self.device)
        prompts = list(dict.fromkeys(unit.prompt for unit in batch))
        place = {prompt: index for index, prompt in enumerate(prompts)}
        spread = torch.tensor([place[unit.prompt] for unit in batch], device=self.device)

        ids, mask = self._padded(prompts)
        out = self._forward(ids, mask, _positions(mask), keep=1, use_cache=True)
        cache = out.past_key_values
        cache.batch_select_indices(spread)
        give_room(cache)
        logits, mask = out.logits[:, -1].float()[spread], mask[spread]
        positions = mask.sum(-1, keepdim=True)
        ends = torch.tensor(self.tokens.ends(self.model.generation_config), device=self.device)
        limits = torch.tensor([unit.limit for unit in batch], device=self.device)
        drawn = torch.full((len(batch), length), -2, device=self.device)
        alive = torch.arange(len(batch), device=self.device)
        going = torch.ones_like(alive, dtype=torch.bool)
        for step in range(length):
            tokens = sample(logits, uniform[alive, step], temperature=decoding.temperature, top_p=decoding.top_p)
            drawn[alive[going], step] = tokens[going]
            going = going & (tokens >= 0) & ~torch.isin(tokens, ends) & (limits[alive] > step + 1)
            if stop_at is not None:
                for place in going.nonzero().flatten().tolist():
                    row = int(alive[place])
                    going[place] = stop_at(batch[row], drawn[row, : step + 1].tolist(), step) is None
            if step == length - 1 or not bool(going.any()):
                break
            if 4 * int(going.sum()) <= 3 * len(alive):
                cache.batch_select_indices(going.nonzero().squeeze(-1))
                alive, tokens, mask, positions = alive[going], tokens[going], mask[going], positions[going]
                going = going[going]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], -1)
            fed = tokens.clamp(min=0)[:, None]
            out = self._forward(fed, mask, positions + step, keep=1, use_cache=True, past_key_values=cache)
            logits = out.logits[:, -1].float()
        return [_ending(row, set(ends.tolist())) for row in drawn.tolist()]

    def _padded(self, sequences: Sequence[Sequence[int]], left: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        """Return token ids and attention mask, padded on the left or the right: [rows, longest]."""
        longest = max(map(len, sequences))
        ids = torch.full((len(sequences), longest), self.tokens.prefix)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(sequences):
            start = longest - len(tokens) if left else 0
            ids[row, start : start + len(tokens)] = torch.tensor(tokens)
            mask[row, start : start + len(tokens)] = 1
        return ids.to(self.device), mask.to(self.device)

    def _forward(
        self, ids: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor | None, *, keep: int, **more: Any
    ) -> Any:
        """Run the model; `keep` is the number of last positions whose logits are needed."""
        optional = {"position_ids": positions, "logits_to_keep": keep}
        accepted = {name: value for name, value in optional.items() if name in self._accepts}
        from ._attention import grouped_attention

        with grouped_attention() if self.device.type == "cpu" else nullcontext():
            return (self._wrapped or self.model)(input_ids=ids, attention_mask=mask, **accepted, **more)


def _choice(row: ScoredSequence) -> int:
    """Return the number of tokens of the longest choice that a row predicts; the last of them is not in the row."""
    return max(len(tail) for *_, tail in row.targets)


def _context(row: ScoredSequence) -> tuple[int, ...]:
    """Return the tokens before the longest choice of a row, which the other choices of its request share."""
    return tuple(row.tokens[: len(row.tokens) - _choice(row) + 1])


def _place(row: ScoredSequence) -> tuple[int, tuple[int, ...], int]:
    """Return what rows are ordered by: those of one context stand together, the longest contexts first."""
    context = _context(row)
    return len(context), context, len(row.tokens)


def _repeatable(cache: Any) -> bool:
    """Whether a cache holds keys and values only: recurrent states cannot go on from the middle by several tokens."""
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    kinds = (DynamicLayer, DynamicSlidingWindowLayer)
    if isinstance(cache, Caches):
        return all(map(_repeatable, cache))
    return type(cache) is DynamicCache and all(type(layer) in kinds for layer in cache.layers)


def _positions(mask: torch.Tensor) -> torch.Tensor:
    return (mask.cumsum(-1) - 1).clamp(min=0)


def _ending(drawn: list[int], ends: set[int]) -> tuple[list[int], bool, bool]:
    """Cut a drawn row at its end: -1 is where logits broke, -2 was never drawn."""
    for index, token in enumerate(drawn):
        if token in ends:
            return drawn[:index], True, False
        if token < 0:
            return drawn[:index], False, token == -1
    return drawn, False, False
