"""The items behind a number: what was asked, what was answered, how it was scored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ...leaderboards.text.format import shorten
from ...reports.data import COVERED
from ...reports.document.escape import visible
from ...reports.document.markdown import digits
from ...reports.items import checkpoint_answer, flipped, open_question, sample
from ...tasks.base import Task
from ..errors import UserError, suggest
from ..planning.plan import Plan, PlannedCell
from ..planning.status import entries, find_cell, settle
from ..records import Item, Preview, Printable, Record
from ..store.entries import Store
from ..store.files import read_jsonl
from ..store.identity import BASE

Rows = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class GivenAnswer:
    """What another checkpoint answered to an item and how that scored; None: it has none."""

    answer: Mapping[str, Any] | None
    scores: dict[str, float] | None


@dataclass(frozen=True)
class ScoredItem:
    """An item of a task on a cell.

    Attributes:
        asked: its row of the data.
        base: the base model's scores, None where it has none.
        beside: what base and the references of the cell's track made of it, by name; empty where it has none.
    """

    item: str
    asked: dict[str, Any] | None
    answer: Mapping[str, Any]
    scores: dict[str, float] | None
    base: dict[str, float] | None
    missing: str | None
    marks: dict[str, float]
    beside: dict[str, GivenAnswer]


@dataclass(frozen=True)
class CellItems(Printable):
    """The items behind a number; `table` is what a person reads of them, `score` the metric."""

    ascii = False
    items: list[ScoredItem]
    score: str
    table: Sequence[tuple[str, str, str, str]] = field(default=(), repr=False)

    def facts(self) -> list[dict[str, Any]]:
        """Return the items as plain JSON types, `beside` where the track has references."""
        rows = map(asdict, self.items)
        return [{key: value for key, value in row.items() if (key, value) != ("beside", {})} for row in rows]

    def to_lines(self) -> str:
        """Return the items as JSON, a line each."""
        return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in self.facts())

    def to_text(self) -> str:
        """Return a table as wide as the terminal: of each item what was asked, and each answer with its score."""
        room = shutil.get_terminal_size().columns - 6
        room -= sum(max((len(row[place]) for row in self.table), default=0) for place in (0, 1))
        room -= max(len(self.score), *(len(row[2]) for row in self.table)) if self.table else 0
        body = [(*row[:3], shorten(row[3], max(room, 20))) for row in self.table]
        headers = ("item", "", self.score, "answer")
        return tabulate(body, headers, tablefmt="simple", disable_numparse=True) + "\n"


@dataclass(frozen=True)
class _Measured:
    """A checkpoint's records and raw answers to a task, by item; no answers where it is stored values."""

    name: str
    records: Rows
    answers: Rows

    def given(self, item: str) -> GivenAnswer:
        """Return what it made of an item."""
        return GivenAnswer(self.answers.get(item), (self.records.get(item) or {}).get("scores"))


def cell_items(
    cell: str, task: str, output: Path, suite: str | None, *, flipped_only: bool = False, most: int = 0
) -> CellItems:
    """Return the first `most` items of a task on a cell (0: all), with what base and references made of them.

    With `flipped_only` those whose metric crossed one half against the original of the cell's track, else base.

    Raises:
        UserError: no such task or cell, it is not measured on it yet, or `flipped_only` of a metric that has no largest
            value.
    """
    store = Store.open(output)
    plan = Plan.load(store, suite)
    if task not in plan.tasks:
        raise UserError(f"Unknown task {task!r}.{suggest(task, plan.tasks)}")
    planned = find_cell(plan, store, cell)
    own = _measured(plan, planned, task, store, planned.spec.label)
    if own is None:
        failure = store.entry("cells", planned.id).failure()
        why = f" ({failure.rstrip('.')})" if failure else ""
        raise UserError(f"{planned.spec.label} is not measured on {task} yet{why}; run `unlearn-bench evaluate` again.")
    beside = {other.name: other for other in _beside(plan, planned, task, store)}
    built, items = plan.tasks_of(planned)[task].build()
    rows = list(own.records.values())
    if flipped_only:
        if built.metric.largest is None:
            raise UserError(
                f"--flipped shows items whose score crossed 0.5; {built.metric.score} of {task} has no largest value."
            )
        before = beside.get("original") or beside.get(BASE) or own
        rows = [row for row, _ in flipped(rows, before.records, built.metric.score)]
    rows = rows[: most or None]
    asked = {item.id: item for item in items}
    table = [line for row in rows for line in _lines(built, asked[row["item"]], [*beside.values(), own])]
    return CellItems([_scored(row, asked, own, beside) for row in rows], built.metric.score, table)


def _scored(row: Any, asked: Mapping[str, Item], own: _Measured, beside: Mapping[str, _Measured]) -> ScoredItem:
    name = row["item"]
    base = own if own.name == BASE else beside.get(BASE)
    return ScoredItem(
        item=name,
        asked=dict(asked[name].doc),
        answer=own.answers[name],
        scores=row["scores"],
        base=base and base.given(name).scores,
        missing=row["missing"],
        marks=row["marks"],
        beside={} if set(beside) <= {BASE} else {key: other.given(name) for key, other in beside.items()},
    )


def _beside(plan: Plan, cell: PlannedCell, task: str, store: Store) -> Iterator[_Measured]:
    """Give base and the references of a cell's tracks, but for itself, as far as they are measured."""
    on = set(cell.serves or ((cell.spec.track,) if cell.spec.track else plan.tracks))
    named: dict[str, PlannedCell] = {}
    for other in plan.cells:
        if other.model == cell.model and other.spec.stress is None and other.spec.beside is None:
            if other.spec.transform == BASE:
                named.setdefault(BASE, other)
            elif other.role is not None and on & set(other.serves):
                named.setdefault(other.role, settle(plan, other, store))
    for name, other in named.items():
        if other.id != cell.id and (measured := _measured(plan, other, task, store, name)) is not None:
            yield measured
    for log in plan.logs:
        if log.role is not None and log.track in on and task in log.records:
            yield _Measured(log.role, {row["item"]: row for row in log.records[task]}, {})


def _measured(plan: Plan, cell: PlannedCell, task: str, store: Store, name: str) -> _Measured | None:
    outcome, record = entries(plan, cell, store).get(task, (None, None))
    if outcome is None or record is None or record.manifest() is None:
        return None
    records = {row["item"]: row for row in read_jsonl(record.file("records.jsonl"))}
    answers = {row.pop("item"): row for row in read_jsonl(outcome.file("outcomes.jsonl"))}
    return _Measured(name, records, answers)


def _lines(task: Task, item: Item, checkpoints: Sequence[_Measured]) -> Iterator[tuple[str, str, str, str]]:
    """Give what a person reads of an item: what was asked, the texts that are given, and a line a checkpoint."""
    shown, metric = task.preview(item), task.metric.score
    question = open_question({"item": item.id, "stratum": item.stratum}, shown, ())
    covered = task.needs == "generations" and shown.right is None
    yield item.id, "asked", "", _covered(shown.text, shown.toxicity) if covered else _line(shown.text)
    for name, (_, text) in zip(question.names, question.given, strict=True):
        yield "", name, "", _line(text)
    for each in checkpoints:
        record = each.records.get(item.id)
        if record is None or record["scores"] is None:
            yield "", each.name, "–", f"no score: {'not measured' if record is None else record['missing']}"
        else:
            yield "", each.name, digits(record["scores"].get(metric)), " / ".join(_said(task, shown, each, record))


def _said(task: Task, shown: Preview, checkpoint: _Measured, record: Mapping[str, Any]) -> list[str]:
    """Return what a checkpoint answered: its texts, the probabilities of given ones, or the choice that it took."""
    outcome = checkpoint.answers.get(record["item"])
    answer = checkpoint_answer(checkpoint.name, record, outcome, ())
    if answer.texts and shown.right is None:
        texts = sample(record, outcome, shown, task.worst_toxicity(Record(**record))).texts
        return [_covered(text.text, text.toxicity) if text.covered else _line(text.text) for text in texts]
    if answer.probabilities:
        names = open_question(record, shown, [answer]).names
        return [", ".join(f"{name} {digits(value)}" for name, value in zip(names, answer.probabilities, strict=False))]
    chosen = record["scores"].get(task.chosen or "")
    return [*map(_line, answer.texts)] if chosen is None else [_line(shown.choices[int(chosen)])]


def _line(text: str) -> str:
    return visible(" ".join(text.split()), kept="")


def _covered(text: str, toxicity: float | None) -> str:
    """Return a text, or in place of one that is toxic or was never scored that it is left out."""
    if toxicity is not None and toxicity < COVERED:
        return _line(text)
    return "(left out: not scored)" if toxicity is None else f"(left out: toxicity {toxicity:.2f})"
