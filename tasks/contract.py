"""What every task must do, checked for the built-in ones and for plugins: `check_task("name")` in a test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..harness.errors import UserError
from ..harness.records import Choices, Generations, Item, Record
from .base import ChoiceRequest, GenerationRequest, Request, Scorer, Task, tasks


class FixedScorer(Scorer):
    """A judge that always says the same; None is a judge that always fails."""

    summary = "fixed"
    version = 1

    def __init__(self, folder: str = "", device: str = "cpu", *, says: float | None = 0.25) -> None:
        self.says = says

    def score(self, texts: Sequence[str]) -> list[float | None]:
        """Return the same probability for each text."""
        return [self.says for _ in texts]


def check_task(name: str, settings: dict[str, Any] | None = None, examples: Sequence[Mapping[str, Any]] = ()) -> None:
    """Check a registered task with its own example rows; no model is run.

    Args:
        name: the registered name.
        settings: settings to check it with; its defaults where None.
        examples: rows for its few-shot prompts, where the settings ask for some.

    Raises:
        AssertionError: the first rule that the task breaks, in words.
    """
    kind = tasks.get(name)
    _check_class(name, kind)
    _check_settings(name, kind)
    task = kind(kind.Settings.parse(settings or {}, f"Task {name}"), examples)
    rows = kind.example_rows()
    _require(len(rows) >= 2, f"{name}: example_rows() needs at least two rows.")
    items = task.items(rows)
    _require(len(items) > 0, f"{name}: items() returns nothing for its own example rows.")
    _require(len({item.id for item in items}) == len(items), f"{name}: item ids are not unique.")
    _require(items == task.items(kind.example_rows()), f"{name}: items() is not deterministic.")
    requests = task.requests(items)
    _require([r.item for r in requests] == [i.id for i in items], f"{name}: not one request an item, in order.")
    _require(requests == task.requests(items), f"{name}: requests() is not deterministic.")
    _require(task.requests(items[::-1]) == requests[::-1], f"{name}: a request depends on the items beside it.")
    expected = ChoiceRequest if kind.needs == "choices" else GenerationRequest
    _require(all(isinstance(r, expected) for r in requests), f"{name}: requests are not what it says it needs.")
    _check_scores(name, task, items, requests)
    _check_failures(name, task, items, requests)


def _check_class(name: str, kind: type[Task]) -> None:
    for attribute in ("Settings", "version", "summary", "citation", "needs", "metrics"):
        _require(hasattr(kind, attribute), f"{name}: the class attribute {attribute!r} is missing.")
    _require(isinstance(kind.version, int) and kind.version >= 1, f"{name}: version must be a whole number from 1 on.")
    _require(len(kind.metrics) > 0, f"{name}: metrics is empty.")
    _require(
        kind.scoring <= set(kind.Settings.model_fields),
        f"{name}: `scoring` names {set(kind.scoring) - set(kind.Settings.model_fields)}, which are no settings.",
    )
    _require(
        kind.needs == "choices" or "decoding" in kind.Settings.model_fields,
        f"{name}: a task that needs generations has a setting `decoding`.",
    )


def _check_settings(name: str, kind: type[Task]) -> None:
    for known in kind.Settings.model_fields:
        _require(kind.Settings.kind_of(known) is not None, f"{name}: the setting {known!r} is of no kind.")
    near = next(iter(kind.Settings.model_fields), "nothing")
    try:
        kind.Settings.parse({near + "x": 1}, name)
    except UserError as error:
        _require(near == "nothing" or repr(near) in str(error), f"{name}: no suggestion for {near + 'x'!r}: {error}")
    else:
        raise AssertionError(f"{name}: the unknown setting {near + 'x'!r} is accepted.")


def _check_scores(name: str, task: Task, items: Sequence[Item], requests: Sequence[Request]) -> None:
    outcomes = [_answer(request, task) for request in requests]
    records = task.score(items, outcomes, FixedScorer())
    _check_places(name, items, records)
    _require(records == task.score(items, outcomes, FixedScorer()), f"{name}: score() is not deterministic.")
    for record in records:
        _require(record.scores is not None, f"{name}: a sound outcome is missing: {record.missing}.")
        lacking = [metric.score for metric in task.metrics if metric.score not in (record.scores or {})]
        _require(not lacking, f"{name}: a record has no score for {lacking}.")
        _require(all(map(math.isfinite, (record.scores or {}).values())), f"{name}: a score is not finite.")
        _require(all(0 <= mark <= 1 for mark in record.marks.values()), f"{name}: a mark is no share in [0, 1].")


def _check_failures(name: str, task: Task, items: Sequence[Item], requests: Sequence[Request]) -> None:
    broken: list[tuple[list[Any], Scorer]] = [([_failure(request, task) for request in requests], FixedScorer())]
    if task.judged:
        broken.append(([_answer(request, task) for request in requests], FixedScorer(says=None)))
        broken.append(([_answer(request, task) for request in requests], FixedScorer(says=math.nan)))
    for outcomes, scorer in broken:
        records = task.score(items, outcomes, scorer)
        _check_places(name, items, records)
        for record in records:
            _require(record.scores is None, f"{name}: a failed outcome has scores {record.scores}.")
            _require(bool(record.missing), f"{name}: a missing record does not say why.")


def _check_places(name: str, items: Sequence[Item], records: Sequence[Record]) -> None:
    expected = [(item.id, item.cluster, item.stratum) for item in items]
    found = [(record.item, record.cluster, record.stratum) for record in records]
    _require(found == expected, f"{name}: not one record an item, in order, with its cluster and stratum.")


def _answer(request: Request, task: Task) -> Choices | Generations:
    """Return an outcome as a sound model would give it."""
    if isinstance(request, ChoiceRequest):
        count = len(request.choices)
        return Choices(request.item, [-1.0 - index for index in range(count)], [1] * count, [False] * count)
    samples = task.settings.decoding.samples
    texts = [f" some words number {index}" for index in range(samples)]
    return Generations(request.item, texts, [4] * samples, [True] * samples, [-8.0] * samples)


def _failure(request: Request, task: Task) -> Choices | Generations:
    """Return an outcome as a broken model would give it: no finite log-probability, no text."""
    if isinstance(request, ChoiceRequest):
        count = len(request.choices)
        return Choices(request.item, [math.nan] * count, [1] * count, [False] * count)
    samples = task.settings.decoding.samples
    return Generations(request.item, [""] * samples, [0] * samples, [False] * samples, [0.0] * samples)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)
