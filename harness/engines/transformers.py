"""The engine on transformers: runs everywhere, and is what other engines are held against."""

from __future__ import annotations

import inspect
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch

from ...tasks.base import ChoiceRequest, Decoding, GenerationRequest
from ..errors import UserError, suggest
from ..models import ModelSpec, load_model, load_tokenizer
from ..records import Choices, Generations
from ._sampling import noise, sample
from ._tokens import Tokens
from .base import Engine, Progress, register

Unit = TypeVar("Unit")


@dataclass
class _Row:
    """One sequence to run, with all (request, choice, the choice's tokens) that end with what it predicts."""

    tokens: list[int]
    targets: list[tuple[int, int, list[int]]]


@dataclass(frozen=True)
class _Sample:
    request: int
    number: int
    prompt: tuple[int, ...]


@register("transformers")
class TransformersEngine(Engine):
    """Runs a causal language model on one device. Log-probabilities are float32, sampling probabilities float64.

    A batch that does not fit the device's memory is halved, and so are those after it; outcomes do not change.
    """

    summary = "transformers on one device, CPU or GPU; the reference for other engines"

    def __init__(self, model: ModelSpec, *, device: str = "cpu", batch_size: int = 64) -> None:
        self.spec, self.device, self.batch_size = model, torch.device(device), batch_size
        self.model = load_model(model, device)
        self.tokens = Tokens.of(load_tokenizer(model), self.model.config)
        self._accepts = set(inspect.signature(self.model.forward).parameters)
        self._originals: dict[str, torch.Tensor] = {}

    def apply(self, delta: Mapping[str, torch.Tensor]) -> None:
        """Put a checkpoint's tensors into the base model; a delta that is still there is taken out first."""
        self.restore()
        state = self.model.state_dict()
        for name, tensor in delta.items():
            if name not in state:
                raise UserError(
                    f"The checkpoint changes {name!r}, which {self.spec.name} has not.{suggest(name, state)}"
                )
            if state[name].shape != tensor.shape:
                raise UserError(
                    f"The checkpoint's {name!r} is {tuple(tensor.shape)}, but {tuple(state[name].shape)} in"
                    f" {self.spec.name}: it belongs to another model."
                )
        self._originals = {name: state[name].to("cpu", copy=True) for name in delta}
        self._copy(delta)

    def restore(self) -> None:
        """Put the base model's tensors back, bit by bit."""
        self._copy(self._originals)
        self._originals = {}

    def _copy(self, tensors: Mapping[str, torch.Tensor]) -> None:
        state = self.model.state_dict()
        with torch.no_grad():
            for name, tensor in tensors.items():
                state[name].copy_(tensor)

    def recorded(self) -> dict[str, Any]:
        """Return device, dtype, attention kernel, threads and versions."""
        return {
            "engine": "transformers",
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "attention": getattr(self.model.config, "_attn_implementation", None),
            "matmul_precision": torch.get_float32_matmul_precision(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": version("transformers"),
        }

    def score_choices(self, requests: Sequence[ChoiceRequest], progress: Progress | None = None) -> list[Choices]:
        """Return the log-probabilities (nats) of each request's choices; see `Engine.score_choices`.

        A choice without a token of its own has `tokens` 0 and log-probability 0: a task calls it missing.
        """
        rows: dict[tuple[int, ...], _Row] = {}
        outcomes = []
        for index, request in enumerate(requests):
            pairs = self.tokens.pairs(request.context, request.choices)
            outcomes.append(_unscored(request.item, pairs, self.tokens.max_length))
            for choice, (head, tail) in enumerate(pairs):
                if tail:
                    fed = (head + tail)[-(self.tokens.max_length + 1) : -1]
                    row = rows.setdefault(tuple(fed), _Row(fed, []))
                    row.targets.append((index, choice, tail))
        waiting = [sum(map(bool, outcome.tokens)) for outcome in outcomes]
        _tell(progress, waiting.count(0))

        def finish(row: _Row, scored: list[tuple[float, bool]]) -> None:
            for (index, choice, _), (logprob, greedy) in zip(row.targets, scored, strict=True):
                outcomes[index].logprobs[choice] = logprob
                outcomes[index].greedy[choice] = greedy
                waiting[index] -= 1
                _tell(progress, int(waiting[index] == 0))

        ordered = sorted(rows.values(), key=lambda row: len(row.tokens), reverse=True)
        self._in_batches(ordered, self._score, finish)
        return outcomes

    def generate(
        self, requests: Sequence[GenerationRequest], decoding: Decoding, progress: Progress | None = None
    ) -> list[Generations]:
        """Return `decoding.samples` continuations a request; see `Engine.generate`.

        A continuation ends at any end token of the generation configuration. One whose logits stop being finite is
        empty: no text, no tokens, `stopped` False.
        """
        room = self.tokens.max_length - decoding.max_new_tokens
        if room < 1:
            raise UserError(
                f"{decoding.max_new_tokens} new tokens leave no room for a prompt: {self.spec.name} takes"
                f" {self.tokens.max_length}. Lower max_new_tokens."
            )
        prompts = [self.tokens.encode(request.prompt) for request in requests]
        drawn = decoding.samples if decoding.temperature > 0 else 1
        units = [_Sample(i, s, tuple(prompt[-room:])) for i, prompt in enumerate(prompts) for s in range(drawn)]
        answers: list[list[tuple[str, int, bool]]] = [[] for _ in requests]

        def run(batch: Sequence[_Sample]) -> list[tuple[list[int], bool, bool]]:
            return self._generate(batch, [requests[unit.request].item for unit in batch], decoding)

        def finish(unit: _Sample, drew: tuple[list[int], bool, bool]) -> None:
            tokens, stopped, broken = drew
            text = "" if broken else self.tokens.continuation(list(unit.prompt), tokens)
            given = answers[unit.request]
            given.append((text, 0 if broken else len(tokens), stopped))
            _tell(progress, int(len(given) == drawn))

        self._in_batches(sorted(units, key=lambda unit: len(unit.prompt), reverse=True), run, finish)
        outcomes = []
        for request, prompt, answer in zip(requests, prompts, answers, strict=True):
            texts, tokens, stopped = map(list, zip(*answer * (decoding.samples // drawn), strict=True))
            outcomes.append(Generations(request.item, texts, tokens, stopped, truncated=max(0, len(prompt) - room)))
        return outcomes

    def _in_batches(
        self, units: Sequence[Unit], run: Callable[[Sequence[Unit]], list[Any]], finish: Callable[[Unit, Any], None]
    ) -> None:
        """Run units together, `batch_size` at a time, half as many from the first batch on that memory cannot hold."""
        start = 0
        while start < len(units):
            batch = units[start : start + self.batch_size]
            try:
                results = run(batch)
            except torch.OutOfMemoryError as error:
                if len(batch) == 1:
                    raise UserError(
                        f"{self.spec.name} with a single sequence does not fit the memory of {self.device}.", status=1
                    ) from error
                results = None
            if results is None:
                self.batch_size = len(batch) // 2
                torch.cuda.empty_cache()
                continue
            start += len(batch)
            for unit, result in zip(batch, results, strict=True):
                finish(unit, result)

    @torch.inference_mode()
    def _score(self, batch: Sequence[_Row]) -> list[list[tuple[float, bool]]]:
        """Return (log-probability, whether greedy) of every target of the rows, from one forward pass."""
        keep = max(len(tail) for row in batch for *_, tail in row.targets)
        ids, mask = self._padded([row.tokens for row in batch])
        logits = self._forward(ids, mask, _positions(mask), keep=keep, use_cache=False).logits[:, -keep:].float()
        best = logits.argmax(-1)
        logprobs = logits.log_softmax(-1)
        places = [
            (row, keep - len(tail) + offset, token)
            for row, unit in enumerate(batch)
            for *_, tail in unit.targets
            for offset, token in enumerate(tail)
        ]
        rows, positions, tokens = torch.tensor(places, device=self.device).unbind(1)
        values = iter(logprobs[rows, positions, tokens].double().tolist())
        hits = iter((best[rows, positions] == tokens).tolist())
        return [
            [(sum(islice(values, len(tail))), all(tuple(islice(hits, len(tail))))) for *_, tail in unit.targets]
            for unit in batch
        ]

    @torch.inference_mode()
    def _generate(
        self, batch: Sequence[_Sample], items: Sequence[str], decoding: Decoding
    ) -> list[tuple[list[int], bool, bool]]:
        """Return (tokens before the end token, whether it ended by itself, whether its logits broke) a continuation."""
        length = decoding.max_new_tokens
        draws = [noise(decoding.seed, item, unit.number, length) for item, unit in zip(items, batch, strict=True)]
        uniform = torch.from_numpy(np.stack(draws)).to(self.device)
        prompts = list(dict.fromkeys(unit.prompt for unit in batch))
        place = {prompt: index for index, prompt in enumerate(prompts)}
        spread = torch.tensor([place[unit.prompt] for unit in batch], device=self.device)

        ids, mask = self._padded(prompts)
        out = self._forward(ids, mask, _positions(mask), keep=1, use_cache=True)
        cache = out.past_key_values
        cache.batch_select_indices(spread)
        logits, mask = out.logits[:, -1].float()[spread], mask[spread]
        positions = mask.sum(-1, keepdim=True)
        ends = torch.tensor(self._end_tokens(), device=self.device)
        drawn = torch.full((len(batch), length), -2, device=self.device)
        alive = torch.arange(len(batch), device=self.device)
        going = torch.ones_like(alive, dtype=torch.bool)
        for step in range(length):
            tokens = sample(logits, uniform[alive, step], temperature=decoding.temperature, top_p=decoding.top_p)
            drawn[alive[going], step] = tokens[going]
            going = going & (tokens >= 0) & ~torch.isin(tokens, ends)
            if step == length - 1 or not bool(going.any()):
                break
            if 2 * int(going.sum()) <= len(alive):
                cache.batch_select_indices(going.nonzero().squeeze(-1))
                alive, tokens, mask, positions = alive[going], tokens[going], mask[going], positions[going]
                going = going[going]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], -1)
            fed = tokens.clamp(min=0)[:, None]
            out = self._forward(fed, mask, positions + step, keep=1, use_cache=True, past_key_values=cache)
            logits = out.logits[:, -1].float()
        return [_ending(row, set(ends.tolist())) for row in drawn.tolist()]

    def _end_tokens(self) -> list[int]:
        config = self.model.generation_config
        ends: Any = config.eos_token_id if config is not None else None
        if ends is None:
            ends = self.tokens.tokenizer.eos_token_id
        return [] if ends is None else [ends] if isinstance(ends, int) else list(ends)

    def _padded(self, sequences: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return token ids and attention mask, padded on the left: [rows, longest]."""
        longest = max(map(len, sequences))
        ids = torch.full((len(sequences), longest), self.tokens.prefix)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(sequences):
            ids[row, longest - len(tokens) :] = torch.tensor(tokens)
            mask[row, longest - len(tokens) :] = 1
        return ids.to(self.device), mask.to(self.device)

    def _forward(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, *, keep: int, **more: Any
    ) -> Any:
        """Run the model; `keep` is the number of last positions whose logits are needed."""
        optional = {"position_ids": positions, "logits_to_keep": keep}
        accepted = {name: value for name, value in optional.items() if name in self._accepts}
        return self.model(input_ids=ids, attention_mask=mask, **accepted, **more)


def _positions(mask: torch.Tensor) -> torch.Tensor:
    return (mask.cumsum(-1) - 1).clamp(min=0)


def _tell(progress: Progress | None, finished: int) -> None:
    if progress is not None and finished:
        progress(finished)


def _unscored(item: str, pairs: Sequence[tuple[list[int], list[int]]], limit: int) -> Choices:
    """Return the outcome without its log-probabilities; raise a `UserError` on a choice longer than the model takes."""
    for _, tail in pairs:
        if len(tail) > limit:
            raise UserError(f"A choice of item {item} has {len(tail)} tokens, more than the {limit} the model takes.")
    truncated = max(max(0, len(head) + len(tail) - limit - 1) for head, tail in pairs)
    return Choices(item, [0.0] * len(pairs), [len(t) for _, t in pairs], [False] * len(pairs), truncated)


def _ending(drawn: list[int], ends: set[int]) -> tuple[list[int], bool, bool]:
    """Cut a drawn row at its end: -1 is where logits broke, -2 was never drawn."""
    for index, token in enumerate(drawn):
        if token in ends:
            return drawn[:index], True, False
        if token == -1:
            return drawn[:index], False, True
    return drawn, False, False
