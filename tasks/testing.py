"""The test kit of a task: `check_task("name")` holds a registered task, built-in or plugin, to what every task must do.

`unlearn-bench check NAME` tells every rule and whether it is kept (`examine_task`). No model is run.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from ..harness.authoring.rules import Finding, examine, hold, insist, validates
from ..harness.errors import UserError
from ..harness.records import Choices, Generations, Item, Outcome, Preview, Record, Trace, Traces
from ..harness.specs import digest
from .base import ANSWERS, ChoiceRequest, ModelRequest, Scorer, Task, TaskSettings, TraceRequest, tasks

ATTRIBUTES = ("Settings", "version", "summary", "citation", "needs", "metrics")


class FixedScorer(Scorer):
    """A scorer that always says the same; None is a scorer that always fails."""

    summary = "fixed"
    version = 1

    def __init__(self, folder: str = "", device: str = "cpu", *, says: float | None = 0.25) -> None:
        self.says = says

    def score(self, texts: Sequence[str]) -> list[float | None]:
        """Return the same probability for each text."""
        return [self.says for _ in texts]


class PickyScorer(Scorer):
    """A scorer that says something else of every text, and always the same of one."""

    summary = "picky"
    version = 1

    def __init__(self, folder: str = "", device: str = "cpu") -> None:
        pass

    def score(self, texts: Sequence[str]) -> list[float | None]:
        """Return a probability that depends on the text alone."""
        return [int(digest(text)[:4], 16) / 0xFFFF for text in texts]


def check_task(name: str, settings: dict[str, Any] | None = None, examples: Sequence[Mapping[str, Any]] = ()) -> None:
    """Check a registered task with its own example rows; no model is run.

    Args:
        name: the registered name.
        settings: settings to check it with; its defaults where None.
        examples: rows for its few-shot prompts, where the settings ask for some.

    Raises:
        AssertionError: the first rule that the task breaks, in words.
    """
    insist(examine_task(name, settings, examples))


def examine_task(
    name: str, settings: Mapping[str, Any] | None = None, examples: Sequence[Mapping[str, Any]] = ()
) -> Iterator[Finding]:
    """Give a finding for each rule of the contract; arguments as in `check_task`."""
    return examine(
        TaskTrial(name, tasks.get(name), settings, examples), RULES, gates=(_declares, _has_items, _requests)
    )


class TaskTrial:
    """A task on trial.

    Attributes:
        task: it, with the settings asked for.
        items, asked: what it makes of its example rows; set by the rules on the way.
    """

    task: Task
    items: list[Item]
    asked: list[ModelRequest]

    def __init__(
        self, name: str, kind: type[Task], settings: Mapping[str, Any] | None, examples: Sequence[Mapping[str, Any]]
    ) -> None:
        self.name, self.kind, self.settings, self.examples = name, kind, settings or {}, examples
        self.file = inspect.getfile(kind)

    def answers(self, turn: int = 0) -> list[Outcome]:
        """Return sound outcomes, other ones for each item and `turn`."""
        return [_answer(request, self.task, place + turn) for place, request in enumerate(self.asked)]

    def failures(self) -> list[Outcome]:
        """Return outcomes as a broken model would give them."""
        return [_failure(request, self.task) for request in self.asked]

    def score(self, outcomes: Sequence[Any], scorer: Scorer | None = None) -> list[Record]:
        """Return the records of all items, one in the place of each."""
        records = self.task.score(self.items, outcomes, scorer or PickyScorer())
        expected = [(item.id, item.cluster, item.stratum) for item in self.items]
        actual = [(record.item, record.cluster, record.stratum) for record in records]
        hold(
            actual == expected,
            f"{self.name}: score() does not give one record an item, in order, with the item's cluster and stratum.",
        )
        return records


def _declares(trial: TaskTrial) -> None:
    """It says what it is: a version, summary, citation, what it needs of an engine, its metrics."""
    name, kind = trial.name, trial.kind
    for attribute in ATTRIBUTES:
        hold(hasattr(kind, attribute), f"{name}: the class attribute {attribute!r} is missing.")
    hold(type(kind.version) is int and kind.version >= 1, f"{name}: version must be a whole number from 1 on.")
    hold(kind.summary and kind.citation, f"{name}: summary and citation must say something.")
    hold(kind.needs in ANSWERS, f"{name}: needs is {kind.needs!r}, none of {', '.join(map(repr, ANSWERS))}.")
    hold(kind.metrics, f"{name}: metrics is empty.")
    fields = set(kind.Settings.model_fields)
    hold(
        kind.scoring <= fields, f"{name}: `scoring` names {sorted(set(kind.scoring) - fields)}, which are no settings."
    )
    hold(
        kind.needs != "generations" or "decoding" in fields,
        f"{name}: a task that needs generations has a setting `decoding`.",
    )


def _validates(trial: TaskTrial) -> None:
    """Settings are typed, with defaults that fit; a wrong value or an unknown name is refused."""
    hold(issubclass(trial.kind.Settings, TaskSettings), f"{trial.name}: Settings must derive from TaskSettings.")
    validates(trial.kind.Settings, trial.name)


def _has_items(trial: TaskTrial) -> None:
    """It makes items of its example rows, each with an id of its own, the same ones each time."""
    name, kind = trial.name, trial.kind
    trial.task = kind(kind.Settings.parse(trial.settings, f"Task {name}"), trial.examples)
    rows = kind.example_rows()
    hold(len(rows) >= 2, f"{name}: example_rows() needs at least two rows.")
    trial.items = trial.task.items(rows)
    hold(trial.items, f"{name}: items() returns nothing for its own example rows.")
    hold(
        len({item.id for item in trial.items}) == len(trial.items),
        f"{name}: item ids are not unique; a digest of the row's content makes one.",
    )
    hold(trial.items == trial.task.items(kind.example_rows()), f"{name}: items() is not deterministic.")


def _requests(trial: TaskTrial) -> None:
    """It asks one request an item, in order, whatever items stand beside it."""
    name, task, items = trial.name, trial.task, trial.items
    trial.asked = task.requests(items)
    hold([r.item for r in trial.asked] == [i.id for i in items], f"{name}: not one request an item, in order.")
    hold(trial.asked == task.requests(items), f"{name}: requests() is not deterministic.")
    hold(task.requests(items[::-1]) == trial.asked[::-1], f"{name}: a request depends on the items beside it.")
    expected, _ = ANSWERS[trial.kind.needs]
    hold(
        all(isinstance(r, expected) for r in trial.asked),
        f"{name}: it needs {trial.kind.needs!r}, so every request must be a {expected.__name__}.",
    )
    hold(
        task.moments or not any(isinstance(r, TraceRequest) and r.moments for r in trial.asked),
        f"{name}: a request asks for moments, and `Task.moments` does not say so.",
    )
    hold(all(isinstance(task.preview(item), Preview) for item in items), f"{name}: preview() gives no Preview.")


def _refuses_nulls(trial: TaskTrial) -> None:
    """A null in a column is refused with the row's place, or asks nothing else; it is never a word."""
    usual = {replace(request, item="") for request in trial.asked}
    for column in trial.kind.example_rows()[1]:
        rows = trial.kind.example_rows()
        rows[1][column] = None
        try:
            asked = trial.task.requests(trial.task.items(rows))
        except UserError as error:
            hold("row 2" in str(error), f"{trial.name}: of a null in {column!r} it does not say that it is in row 2.")
        else:
            hold(
                {replace(request, item="") for request in asked} <= usual,
                f"{trial.name}: a null in {column!r} is asked as text; read rows by a `Row` that declares it.",
            )


def _scores(trial: TaskTrial) -> None:
    """It scores every sound answer: each metric finite and within its bounds, each mark a share."""
    name = trial.name
    records = trial.score(trial.answers())
    hold(records == trial.score(trial.answers()), f"{name}: score() is not deterministic.")
    for record in records:
        hold(record.scores is not None, f"{name}: a sound outcome is missing: {record.missing}.")
        scores = record.scores or {}
        lacking = [metric.score for metric in trial.kind.metrics if metric.score not in scores]
        hold(not lacking, f"{name}: a record has no score for {lacking}.")
        hold(all(map(math.isfinite, scores.values())), f"{name}: a score is not finite: {scores}.")
        for metric in trial.kind.metrics:
            hold(
                0 <= scores[metric.score] <= (math.inf if metric.largest is None else metric.largest),
                f"{name}: {metric.score} is {scores[metric.score]}, outside [0, {metric.largest}];"
                " see `largest` of Metric.",
            )
        hold(all(0 <= mark <= 1 for mark in record.marks.values()), f"{name}: a mark is no share in [0, 1].")


def _misses(trial: TaskTrial) -> None:
    """What cannot be scored is missing with a reason, never a value, and leaves the other items as they are."""
    name = trial.name
    broken: list[tuple[list[Any], Scorer]] = [(trial.failures(), PickyScorer())]
    if trial.kind.judged:
        broken += [(trial.answers(), FixedScorer(says=says)) for says in (None, math.nan)]
    for outcomes, scorer in broken:
        for record in trial.score(outcomes, scorer):
            hold(
                record.scores is None,
                f"{name}: a failed outcome has scores {record.scores}; return"
                " Record(item.id, item.cluster, item.stratum, None, 'why').",
            )
            hold(record.missing, f"{name}: a missing record does not say why.")
    alone = trial.score([*trial.failures()[:1], *trial.answers()[1:]])
    hold(
        _same(alone[1:], trial.score(trial.answers())[1:]),
        f"{name}: a failed outcome of one item changes the records of others.",
    )


def _listens(trial: TaskTrial) -> None:
    """Other answers get other scores."""
    first, other = trial.answers(), trial.answers(turn=1)
    same = [_same(trial.score(first), trial.score(other))]
    if trial.kind.judged:
        same.append(_same(*(trial.score(first, FixedScorer(says=says)) for says in (0.0, 1.0))))
    hold(not all(same), f"{trial.name}: the scores are the same whatever is answered.")


def _is_itemwise(trial: TaskTrial) -> None:
    """A record depends on its own item and answer, not on their order or on what is scored beside it."""
    records = trial.score(trial.answers())
    turned = trial.task.score(trial.items[::-1], trial.answers()[::-1], PickyScorer())
    hold(
        _same(turned[::-1], records),
        f"{trial.name}: the scores depend on the order of the items; score each item from its own outcome alone.",
    )
    single = [
        trial.task.score([item], [outcome], PickyScorer())[0]
        for item, outcome in zip(trial.items, trial.answers(), strict=True)
    ]
    hold(_same(single, records), f"{trial.name}: an item scored alone has another record than among others.")


RULES = (_declares, _validates, _has_items, _requests, _refuses_nulls, _scores, _misses, _listens, _is_itemwise)


def _same(one: Sequence[Record], other: Sequence[Record]) -> bool:
    return [asdict(record) for record in one] == [asdict(record) for record in other]


def _answer(request: ModelRequest, task: Task, turn: int) -> Outcome:
    """Return an outcome as a sound model would give it; which choice it favours depends on `turn`."""
    if isinstance(request, ChoiceRequest):
        count = len(request.choices)
        logprobs = [-1.0 - 0.25 * turn - (index + turn) % count for index in range(count)]
        return Choices(request.item, logprobs, [1] * count, [False] * count)
    if isinstance(request, TraceRequest):
        return Traces(request.item, [_trace(request, turn + place) for place in range(len(request.texts))])
    samples = task.settings.decoding.samples
    texts = [f" some words number {index} of {turn}" for index in range(samples)]
    return Generations(request.item, texts, [6] * samples, [True] * samples, [-8.0] * samples)


def _failure(request: ModelRequest, task: Task) -> Outcome:
    """Return an outcome as a broken model would give it: no finite log-probability, no text."""
    if isinstance(request, ChoiceRequest):
        count = len(request.choices)
        return Choices(request.item, [math.nan] * count, [1] * count, [False] * count)
    if isinstance(request, TraceRequest):
        broken = Trace([math.nan] * 4, [0] * 4, ended=request.end)
        return Traces(request.item, [broken] * len(request.texts))
    samples = task.settings.decoding.samples
    return Generations(request.item, [""] * samples, [0] * samples, [False] * samples, [0.0] * samples)


def _trace(request: TraceRequest, turn: int) -> Trace:
    """Return the trace of a text of four tokens."""
    logprobs = [-0.5 - 0.25 * ((place + turn) % 3) for place in range(4)]
    hits = [int(place >= turn % 3) for place in range(4)]
    moments = ([-2.0] * 4, [1.0] * 4) if request.moments else (None, None)
    return Trace(logprobs, hits, *moments, ended=request.end)
