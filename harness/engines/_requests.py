"""What every engine makes of requests: rows to score, samples to draw, and the outcomes that their results fill."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...tasks.base import ChoiceRequest, Decoding, GenerationRequest, TraceRequest
from ..errors import UserError
from ..records import Choices, Generations, Trace, Traces
from ._tokens import Encoder
from .base import Progress


@dataclass
class ScoredSequence:
    """One sequence to run, with all (request, choice, the choice's tokens) that end with what it predicts."""

    tokens: list[int]
    targets: list[tuple[int, int, list[int]]]


Pair = tuple[list[int], list[int]]
"""The tokens of a context and those of a text after it."""


class GivenTexts(ABC):
    """Requests that give texts, as rows: texts that share what they are predicted from share a row.

    Args:
        pairs: of each request its texts after their contexts.
        limit: tokens of a row; what is longer loses tokens on the left.
    """

    def __init__(self, pairs: Sequence[Sequence[Pair]], limit: int, progress: Progress | None) -> None:
        rows: dict[tuple[int, ...], ScoredSequence] = {}
        for index, texts in enumerate(pairs):
            for place, (head, tail) in enumerate(texts):
                if tail:
                    fed = (head + tail)[-(limit + 1) : -1]
                    rows.setdefault(tuple(fed), ScoredSequence(fed, [])).targets.append((index, place, tail))
        self.rows = list(rows.values())
        self._waiting = [sum(bool(tail) for _, tail in texts) for texts in pairs]
        self._progress = progress
        tell(progress, self._waiting.count(0))

    def finish(self, row: ScoredSequence, results: Sequence[Any]) -> None:
        """Take the result of each target of a row."""
        for (index, place, _), result in zip(row.targets, results, strict=True):
            self._take(index, place, result)
            self._waiting[index] -= 1
            tell(self._progress, int(self._waiting[index] == 0))

    @abstractmethod
    def _take(self, index: int, place: int, result: Any) -> None:
        """Put the result of a text into the outcome of its request."""


class Scoring(GivenTexts):
    """Choice requests as rows; the result of a choice is its summed log-probability and whether it is greedy.

    A choice without a token of its own has `tokens` 0 and log-probability 0: a task calls it missing.
    """

    def __init__(self, tokens: Encoder, requests: Sequence[ChoiceRequest], progress: Progress | None = None) -> None:
        limit = tokens.max_length
        pairs = [tokens.given(request) for request in requests]
        self.outcomes = [
            Choices(
                request.item,
                [0.0] * len(texts),
                [len(tail) for _, tail in texts],
                [False] * len(texts),
                _truncated("choice", request.item, texts, limit),
            )
            for request, texts in zip(requests, pairs, strict=True)
        ]
        super().__init__(pairs, limit, progress)

    def _take(self, index: int, place: int, result: tuple[float, bool]) -> None:
        self.outcomes[index].logprobs[place], self.outcomes[index].greedy[place] = result


class Tracing(GivenTexts):
    """Trace requests as rows; the result of a text is its `Trace`. A row fits the model with its last token.

    Attributes:
        moments: whether a request asks for mean and variance over the vocabulary.
    """

    def __init__(self, tokens: Encoder, requests: Sequence[TraceRequest], progress: Progress | None = None) -> None:
        limit = tokens.max_length - 1
        pairs = [tokens.given(request) for request in requests]
        self.outcomes = [
            Traces(
                request.item,
                [Trace([], []) for _ in texts],
                _truncated("text", request.item, texts, limit),
            )
            for request, texts in zip(requests, pairs, strict=True)
        ]
        self.moments = any(request.moments for request in requests)
        self._ended = [request.end for request in requests]
        super().__init__(pairs, limit, progress)

    def _take(self, index: int, place: int, result: Trace) -> None:
        self.outcomes[index].traces[place] = Trace(
            short(result.logprobs),
            result.hits,
            None if result.means is None else short(result.means),
            None if result.variances is None else short(result.variances),
            self._ended[index],
        )


def short(numbers: Sequence[float]) -> list[float]:
    """Return float32 numbers as the shortest decimals that stand for them."""
    return np.asarray(numbers, dtype=np.float32).astype(str).astype(float).tolist()


@dataclass(frozen=True)
class Draw:
    """One continuation to draw: the number of its request, its item, its own number, its prompt, its most tokens."""

    request: int
    item: str
    number: int
    prompt: tuple[int, ...]
    limit: int


@dataclass
class Generation:
    """Generation requests as samples, each request's in the order of their numbers.

    Greedy continuations are drawn once and repeated. One whose logits stop being finite is empty: no text, no tokens,
    `stopped` False; so is one whose prompt leaves no room for it. One that stops at a text is cut before it and has the
    tokens that complete that text, however many an engine drew.
    """

    tokens: Encoder
    requests: Sequence[GenerationRequest]
    decoding: Decoding
    progress: Progress | None = None
    samples: list[Draw] = field(init=False)

    def __post_init__(self) -> None:
        limit, new = self.tokens.max_length, self.decoding.max_new_tokens
        room = limit - new
        if room < 1:
            raise UserError(
                f"{new} new tokens leave no room for a prompt: the model takes {limit}. Lower max_new_tokens."
            )
        prompts = [self.tokens.asked(request) for request in self.requests]
        self._drawn = self.decoding.samples if self.decoding.temperature > 0 else 1
        self._cut = [max(0, len(prompt) - room) for prompt in prompts]
        self._answers: list[list[tuple[str, int, bool]]] = [[] for _ in prompts]
        self.samples = []
        for index, (request, whole) in enumerate(zip(self.requests, prompts, strict=True)):
            prompt = tuple(whole[-room:])
            most = max(0, min(new, (self.decoding.max_length or limit) - len(prompt)))
            draws = [Draw(index, request.item, number, prompt, most) for number in range(self._drawn)]
            if most:
                self.samples += draws
            else:
                for draw in draws:
                    self.finish(draw, ([], False, False))

    def finish(self, sample: Draw, drew: tuple[list[int], bool, bool]) -> None:
        """Take (tokens before the end token, whether it ended by itself, whether its logits broke) of a sample."""
        tokens, stopped, broken = drew
        text = "" if broken else self._text(sample, tokens)
        count = self.stop_at(sample, tokens) if any(stop in text for stop in self.decoding.stop) else None
        if count is not None and not broken:
            tokens, stopped = tokens[:count], True
            text = _before(self._text(sample, tokens), self.decoding.stop)
        given = self._answers[sample.request]
        given.append((text, 0 if broken else len(tokens), stopped and not broken))
        tell(self.progress, int(len(given) == self._drawn))

    def stop_at(self, sample: Draw, tokens: Sequence[int], start: int = 0) -> int | None:
        """Return the fewest tokens, above `start`, whose text holds one at which it stops; None: no such number."""
        for count in range(start + 1, len(tokens) + 1):
            text = self._text(sample, tokens[:count])
            if any(stop in text for stop in self.decoding.stop):
                return count
        return None

    def _text(self, sample: Draw, tokens: Sequence[int]) -> str:
        return self.tokens.continuation(list(sample.prompt), list(tokens))

    def outcomes(self) -> list[Generations]:
        """Return the outcomes when every sample is finished, in the order of the requests."""
        outcomes = []
        for request, cut, answer in zip(self.requests, self._cut, self._answers, strict=True):
            texts, tokens, stopped = map(list, zip(*answer * (self.decoding.samples // self._drawn), strict=True))
            outcomes.append(Generations(request.item, texts, tokens, stopped, truncated=cut))
        return outcomes


def _before(text: str, stops: Sequence[str]) -> str:
    """Return a text up to the first occurrence of any of these."""
    return text[: min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))]


def tell(progress: Progress | None, finished: int) -> None:
    """Report finished items, if there are any and someone listens."""
    if progress is not None and finished:
        progress(finished)


def _truncated(kind: str, item: str, pairs: Sequence[Pair], limit: int) -> int:
    """Return the context tokens that do not fit; raise a `UserError` on a text longer than the model takes."""
    for _, tail in pairs:
        if len(tail) > limit:
            raise UserError(
                f"A {kind} of item {item} has {len(tail)} tokens, more than the {limit} the model takes; leave the item"
                " out of the data, or choose a model that takes more."
            )
    return max((max(0, len(head) + len(tail) - limit - 1) for head, tail in pairs), default=0)
