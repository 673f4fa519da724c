"""The items behind a number: what was asked, what was answered, how it was scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import UserError, suggest
from ..planning.plan import Plan
from ..planning.status import entries, find_cell
from ..store.entries import Store
from ..store.files import read_jsonl


def cell_items(cell: str, task: str, output: Path, suite: str | None, *, flipped: bool = False) -> list[dict[str, Any]]:
    """Return the items of a task on a cell: what was asked, the raw outcome, the record, and the base's scores."""
    store = Store.open(output)
    plan = Plan.load(store, suite)
    if task not in plan.tasks:
        raise UserError(f"Unknown task {task!r}.{suggest(task, plan.tasks)}")
    found = find_cell(plan, store, cell)
    outcome, record = entries(plan, found, store).get(task, (None, None))
    if outcome is None or record is None or record.manifest() is None:
        raise UserError(f"{found.spec.label} is not measured on {task} yet; run `unlearn-bench evaluate` again.")
    asked = {item.id: dict(item.doc) for item in plan.tasks_of(found)[task].build()[1]}
    base = next(c for c in plan.cells if c.model == found.model and c.spec.transform == "base")
    base_record = entries(plan, base, store)[task][1]
    before = (
        {row["item"]: row["scores"] for row in read_jsonl(base_record.file("records.jsonl"))}
        if base_record.manifest()
        else {}
    )
    answers = {row["item"]: row for row in read_jsonl(outcome.file("outcomes.jsonl"))}
    rows = []
    for row in read_jsonl(record.file("records.jsonl")):
        was = before.get(row["item"])
        if flipped and was == row["scores"]:
            continue
        rows.append(
            {
                "item": row["item"],
                "asked": asked.get(row["item"]),
                "answer": {key: value for key, value in answers[row["item"]].items() if key != "item"},
                "scores": row["scores"],
                "base": was,
                "missing": row["missing"],
                "marks": row["marks"],
            }
        )
    return rows
