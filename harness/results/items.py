"""The items behind a number: what was asked, what was answered, how it was scored."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError, suggest
from ..planning.plan import Plan
from ..planning.status import entries, find_cell
from ..records import Printable
from ..store.entries import Store
from ..store.files import read_jsonl


@dataclass(frozen=True)
class ScoredItem:
    """An item of a task on a cell.

    Attributes:
        asked: its row of the data.
        base: the base model's scores, None where it has none.
    """

    item: str
    asked: dict[str, Any] | None
    answer: dict[str, Any]
    scores: dict[str, float] | None
    base: dict[str, float] | None
    missing: str | None
    marks: dict[str, float]


@dataclass(frozen=True)
class CellItems(Printable):
    """The items behind a number."""

    ascii = False
    items: list[ScoredItem]

    def facts(self) -> list[dict[str, Any]]:
        """Return the items as plain JSON types."""
        return [asdict(item) for item in self.items]

    def to_text(self) -> str:
        """Return the items as JSON, a line each."""
        return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in self.facts())


def cell_items(
    cell: str, task: str, output: Path, suite: str | None, *, flipped: bool = False, most: int = 0
) -> CellItems:
    """Return the first `most` items of a task on a cell (0: all), with `flipped` those that the base scores otherwise.

    Raises:
        UserError: no such task or cell, or the cell is not measured on it yet.
    """
    store = Store.open(output)
    plan = Plan.load(store, suite)
    if task not in plan.tasks:
        raise UserError(f"Unknown task {task!r}.{suggest(task, plan.tasks)}")
    planned = find_cell(plan, store, cell)
    outcome, record = entries(plan, planned, store).get(task, (None, None))
    if outcome is None or record is None or record.manifest() is None:
        failure = store.entry("cells", planned.id).failure()
        why = f" ({failure.rstrip('.')})" if failure else ""
        raise UserError(f"{planned.spec.label} is not measured on {task} yet{why}; run `unlearn-bench evaluate` again.")
    docs = {item.id: dict(item.doc) for item in plan.tasks_of(planned)[task].build()[1]}
    base_cell = next(c for c in plan.cells if c.model == planned.model and c.spec.transform == "base")
    base_record = entries(plan, base_cell, store)[task][1]
    base = (
        {row["item"]: row["scores"] for row in read_jsonl(base_record.file("records.jsonl"))}
        if base_record.manifest()
        else {}
    )
    answers = {row.pop("item"): row for row in read_jsonl(outcome.file("outcomes.jsonl"))}
    items = [
        ScoredItem(
            item=row["item"],
            asked=docs.get(row["item"]),
            answer=answers[row["item"]],
            scores=row["scores"],
            base=base.get(row["item"]),
            missing=row["missing"],
            marks=row["marks"],
        )
        for row in read_jsonl(record.file("records.jsonl"))
        if not flipped or row["scores"] != base.get(row["item"])
    ]
    return CellItems(items[: most or None])
