"""Null rows (baselines) on request, beside base and noise: what nothing scores. They are shown and never ranked.

`constant` looks at nothing: it answers every question with its first choice and continues every prompt with `TEXT`; a
text whose probability is asked for has none. `shuffled` is the base, asked with the choices of every question in
another order (the settings `Task.shuffled` of the tasks that have them). `unrelated` is the first method of the
run, trained with the track's retain text in place of its forget text: all that training does but forget.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ...tasks.base import ChoiceRequest, ModelRequest, TraceRequest
from ..errors import UserError, suggest
from ..models.load import ModelSpec
from ..records import Choices, Generations, Outcome, Trace, Traces
from ..store.identity import CONSTANT, NULLS, SHUFFLED, UNRELATED, CellSpec
from ..suite import CorporaSpec

TEXT = " I cannot help with that."


def check_nulls(names: Iterable[str]) -> list[str]:
    """Return the names of nulls, each once; raise a `UserError` on one that is none."""
    chosen = list(dict.fromkeys(names))
    for name in chosen:
        if name not in NULLS:
            raise UserError(f"Unknown null {name!r}.{suggest(name, NULLS)} Known: {', '.join(NULLS)}.")
    return chosen


def unmade_nulls(model: ModelSpec, names: Iterable[str]) -> list[CellSpec]:
    """Return the cells of those nulls that are not trained."""
    return [
        CellSpec(model=model.digest, transform=name, settings={"version": 1}, method=name, variant=name)
        for name in names
        if name in (CONSTANT, SHUFFLED)
    ]


def as_unrelated(trained: CellSpec) -> CellSpec:
    """Return a training cell on unrelated text as the null that it is."""
    return trained.model_copy(update={"method": UNRELATED, "variant": UNRELATED})


def unrelated_text(corpora: CorporaSpec) -> CorporaSpec:
    """Return a track's text with its retain text for every forget topic, and without labelled text."""
    return corpora.model_copy(update={"forget": dict.fromkeys(corpora.forget, corpora.retain), "probe": None})


def text_of(cell: CellSpec, corpora: CorporaSpec) -> CorporaSpec:
    """Return the text that a cell is trained on, of its track's."""
    return unrelated_text(corpora) if cell.origin == UNRELATED else corpora


def constant_answers(requests: Sequence[ModelRequest], samples: int, tokens: int) -> list[Outcome]:
    """Return the answers of `constant`: `samples` continuations a prompt, `TEXT` of so many tokens each."""
    return [_constant(request, samples, tokens) for request in requests]


def _constant(request: ModelRequest, samples: int, tokens: int) -> Outcome:
    if isinstance(request, ChoiceRequest):
        return _first_choice(request)
    if isinstance(request, TraceRequest):
        return Traces(request.item, [Trace([math.nan], [0], ended=request.end) for _ in request.texts])
    return Generations(request.item, [TEXT] * samples, [tokens] * samples, [True] * samples)


def _first_choice(request: ChoiceRequest) -> Choices:
    count = len(request.choices)
    logprobs = [math.nan] if count == 1 else [0.0, *[-1.0] * (count - 1)]
    return Choices(request.item, logprobs, [1] * count, [place == 0 for place in range(count)])
