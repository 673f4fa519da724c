"""What every engine makes of requests: rows to score, samples to draw, and the outcomes that their results fill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ...tasks.base import ChoiceRequest, Decoding, GenerationRequest
from ..errors import UserError
from ..records import Choices, Generations
from ._tokens import Encoder
from .base import Progress


@dataclass
class ScoredSequence:
    """One sequence to run, with all (request, choice, the choice's tokens) that end with what it predicts."""

    tokens: list[int]
    targets: list[tuple[int, int, list[int]]]


class Scoring:
    """Choice requests as rows: choices that share what they are predicted from share a row.

    A choice without a token of its own has `tokens` 0 and log-probability 0: a task calls it missing.
    """

    def __init__(self, tokens: Encoder, requests: Sequence[ChoiceRequest], progress: Progress | None = None) -> None:
        rows: dict[tuple[int, ...], ScoredSequence] = {}
        self.outcomes: list[Choices] = []
        for index, request in enumerate(requests):
            pairs = tokens.pairs(request.context, request.choices, system=request.system, delimiter=request.delimiter)
            self.outcomes.append(_unscored(request.item, pairs, tokens.max_length))
            for choice, (head, tail) in enumerate(pairs):
                if tail:
                    fed = (head + tail)[-(tokens.max_length + 1) : -1]
                    rows.setdefault(tuple(fed), ScoredSequence(fed, [])).targets.append((index, choice, tail))
        self.rows = list(rows.values())
        self._waiting = [sum(map(bool, outcome.tokens)) for outcome in self.outcomes]
        self._progress = progress
        tell(progress, self._waiting.count(0))

    def finish(self, row: ScoredSequence, scored: Sequence[tuple[float, bool]]) -> None:
        """Take (summed log-probability, whether greedy) of each target of a row."""
        for (index, choice, _), (logprob, greedy) in zip(row.targets, scored, strict=True):
            self.outcomes[index].logprobs[choice] = logprob
            self.outcomes[index].greedy[choice] = greedy
            self._waiting[index] -= 1
            tell(self._progress, int(self._waiting[index] == 0))


@dataclass(frozen=True)
class Draw:
    """One continuation to draw: the number of its request, its item, its own number and its prompt."""

    request: int
    item: str
    number: int
    prompt: tuple[int, ...]


@dataclass
class Generation:
    """Generation requests as samples, each request's in the order of their numbers.

    Greedy continuations are drawn once and repeated. One whose logits stop being finite is empty: no text, no tokens,
    `stopped` False.
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
        prompts = [self.tokens.encode(request.prompt) for request in self.requests]
        self._drawn = self.decoding.samples if self.decoding.temperature > 0 else 1
        self._cut = [max(0, len(prompt) - room) for prompt in prompts]
        self._answers: list[list[tuple[str, int, bool]]] = [[] for _ in prompts]
        self.samples = [
            Draw(index, request.item, number, tuple(prompt[-room:]))
            for index, (request, prompt) in enumerate(zip(self.requests, prompts, strict=True))
            for number in range(self._drawn)
        ]

    def finish(self, sample: Draw, drew: tuple[list[int], bool, bool]) -> None:
        """Take (tokens before the end token, whether it ended by itself, whether its logits broke) of a sample."""
        tokens, stopped, broken = drew
        text = "" if broken else self.tokens.continuation(list(sample.prompt), tokens)
        given = self._answers[sample.request]
        given.append((text, 0 if broken else len(tokens), stopped and not broken))
        tell(self.progress, int(len(given) == self._drawn))

    def outcomes(self) -> list[Generations]:
        """Return the outcomes when every sample is finished, in the order of the requests."""
        outcomes = []
        for request, cut, answer in zip(self.requests, self._cut, self._answers, strict=True):
            texts, tokens, stopped = map(list, zip(*answer * (self.decoding.samples // self._drawn), strict=True))
            outcomes.append(Generations(request.item, texts, tokens, stopped, truncated=cut))
        return outcomes


def tell(progress: Progress | None, finished: int) -> None:
    """Report finished items, if there are any and someone listens."""
    if progress is not None and finished:
        progress(finished)


def _unscored(item: str, pairs: Sequence[tuple[list[int], list[int]]], limit: int) -> Choices:
    """Return the outcome without its log-probabilities; raise a `UserError` on a choice longer than the model takes."""
    for _, tail in pairs:
        if len(tail) > limit:
            raise UserError(
                f"A choice of item {item} has {len(tail)} tokens, more than the {limit} the model takes; leave the item"
                " out of the data, or choose a model that takes more."
            )
    truncated = max(max(0, len(head) + len(tail) - limit - 1) for head, tail in pairs)
    return Choices(item, [0.0] * len(pairs), [len(t) for _, t in pairs], [False] * len(pairs), truncated)
