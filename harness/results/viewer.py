"""The items of a run that a report shows: which of them, and what each checkpoint made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...reports.data import CheckpointAnswer, Items
from ...reports.items import cap, checkpoint_answer, flipped, open_question, question, sample, spread
from ...tasks.base import Task
from ..errors import UserError, first_line
from ..planning.plan import Plan, PlannedTask
from ..planning.status import CellStatus
from ..records import Item, Preview, Record
from ..store.files import read_jsonl
from ..store.identity import BASE, SHUFFLED
from .composites import board_scores


@dataclass(frozen=True)
class Asked:
    """A task with its items by id; `note`: why there are none."""

    task: Task
    items: Mapping[str, Item]
    note: str = ""

    @property
    def answered(self) -> bool:
        """Whether its items have right answers."""
        return any(self.task.preview(item).right is not None for item in self.items.values())

    def preview(self, item: str) -> Preview | None:
        """Return what is shown of an item, None: its data cannot be read."""
        return self.task.preview(self.items[item]) if item in self.items else None


def items_of(plan: Plan, states: Sequence[CellStatus]) -> list[Items]:
    """Return the items of every task that a measured cell of a row has, in the order of cells, tasks within.

    Of a task with right answers that are given or written freely one list of each model stands where its first cell
    does. A metric of choices without a largest value (perplexity) has no right answers that could flip.
    """
    items: dict[tuple[int, int], Items] = {}
    scores = board_scores(plan)
    most = cap(sum(state.cell.spec.beside is None for state in states))
    for place, task in enumerate(plan.tasks.values()):
        measured = {
            number: state
            for number, state in enumerate(states)
            if task.name in state.records and state.cell.spec.beside is None
        }
        kind = task.without_data()
        needs = kind.needs
        if not measured or (needs != "traces" and kind.metric.largest is None):
            continue
        asked = _asked(task)
        if needs == "traces" or (needs == "generations" and asked.answered):
            for model in plan.models:
                own = [number for number, state in measured.items() if state.cell.model == model]
                if own:
                    answers = _Answers(task, [measured[number] for number in own], plan, scores[task.name])
                    items[own[0], place] = answers.items(asked, most)
        elif needs == "choices":
            compared = _Compared(list(measured.values()), task)
            for number, state in measured.items():
                if state.cell.spec.transform not in (BASE, SHUFFLED):
                    items[number, place] = _questions(state, task, asked, compared, most)
        else:
            for number, state in measured.items():
                items[number, place] = _samples(state, task, asked, most)
    return [items[key] for key in sorted(items)]


class _Answers:
    """What all checkpoints of a model make of the questions of a task, those that are stored values too."""

    def __init__(self, task: PlannedTask, states: Sequence[CellStatus], plan: Plan, scores: Sequence[str]) -> None:
        self.task, self.states, self.scores = task, states, scores
        self.records = {state.cell.spec.label: _records(state, task) for state in states}
        self.records |= {
            f"{log.track}/{log.name}": {row["item"]: row for row in log.records[task.name]}
            for log in plan.logs
            if task.name in log.records
        }

    def items(self, asked: Asked, most: int) -> Items:
        """Return the same questions of all checkpoints: in turn from the strata, whatever was answered."""
        rows = list(next(iter(self.records.values())).values())
        chosen = spread(rows, most, lambda row: row["stratum"])
        outcomes = self._outcomes({row["item"] for row in chosen})
        shown = [
            open_question(row, asked.preview(row["item"]), list(self._answers(row["item"], outcomes))) for row in chosen
        ]
        model, count, cells = self.states[0].cell.model, len(rows), len(self.records)
        label = f"{cells} checkpoint{'s' * (cells > 1)}"
        return Items(model, label, None, self.task.name, "answers", count, count, 0, shown, asked.note)

    def _outcomes(self, items: set[str]) -> dict[str, dict[str, Any]]:
        """Return the raw answers to some items, by label and item."""
        return {
            state.cell.spec.label: {row["item"]: row for row in _outcomes(state, self.task) if row["item"] in items}
            for state in self.states
        }

    def _answers(self, item: str, outcomes: Mapping[str, Mapping[str, Any]]) -> Iterator[CheckpointAnswer]:
        for label, records in self.records.items():
            yield checkpoint_answer(label, records.get(item), outcomes.get(label, {}).get(item), self.scores)


class _Compared:
    """The records that answers flip against: those of the original of a cell's track, else those of base."""

    def __init__(self, states: Sequence[CellStatus], task: PlannedTask) -> None:
        self.records: dict[tuple[str, str | None], tuple[str, dict[str, Any]]] = {}
        for state in states:
            model, spec = state.cell.model, state.cell.spec
            if spec.transform == BASE:
                self.records[model, None] = ("base", _records(state, task))
            elif state.cell.role == "original" and spec.stress is None:
                self.records |= {(model, track): ("original", _records(state, task)) for track in state.cell.serves}

    def of(self, state: CellStatus) -> tuple[str, dict[str, Any]]:
        """Return what a cell's answers are compared with, and its records."""
        model, cell = state.cell.model, state.cell
        track = None if cell.role == "original" else cell.spec.track or next(iter(cell.serves), None)
        return self.records.get((model, track)) or self.records.get((model, None), ("base", {}))


def _questions(state: CellStatus, task: PlannedTask, asked: Asked, compared: _Compared, most: int) -> Items:
    """Return the questions whose answer flipped."""
    records = _records(state, task)
    name, before = compared.of(state)
    rows = flipped(list(records.values()), before, task.without_data().metric.score)
    shown = [
        question(row, gained, before[row["item"]], asked.preview(row["item"]), asked.task.chosen)
        for row, gained in spread(rows, most, lambda pair: (pair[1], pair[0]["stratum"]))
    ]
    lost = sum(not gained for _, gained in rows)
    model, spec = state.cell.model, state.cell.spec
    return Items(
        model, spec.label, spec.track, task.name, "questions", len(records), len(rows), lost, shown, asked.note, name
    )


def _samples(state: CellStatus, task: PlannedTask, asked: Asked, most: int) -> Items:
    """Return prompts with their continuations and scores."""
    records = list(_records(state, task).values())
    answers = {row["item"]: row for row in _outcomes(state, task)}
    shown = [
        sample(row, answers.get(row["item"]), asked.preview(row["item"]), asked.task.worst_toxicity(Record(**row)))
        for row in spread(records, most, lambda row: row["stratum"])
    ]
    model, spec = state.cell.model, state.cell.spec
    return Items(model, spec.label, spec.track, task.name, "samples", len(records), len(records), 0, shown, asked.note)


def _asked(task: PlannedTask) -> Asked:
    try:
        built, items = task.build()
    except UserError as error:
        note = f"The data of {task.name} cannot be read, so its items stand by id only: {first_line(error)}"
        return Asked(task.without_data(), {}, note)
    return Asked(built, {item.id: item for item in items})


def _records(state: CellStatus, task: PlannedTask) -> dict[str, Any]:
    return {row["item"]: row for row in read_jsonl(state.records[task.name].file("records.jsonl"))}


def _outcomes(state: CellStatus, task: PlannedTask) -> list[dict[str, Any]]:
    return read_jsonl(state.outcomes[task.name].file("outcomes.jsonl"))
