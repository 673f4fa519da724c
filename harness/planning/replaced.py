"""What a run changes on the board that an earlier run of the same suite left in its store."""

from __future__ import annotations

from collections.abc import Collection

from ..errors import UserError
from ..store.entries import Store
from .plan import Plan

MOST = 8
"""Names that are listed."""


def replaced_rows(now: Plan, store: Store) -> str | None:
    """Say which rows of the board that the store holds a new plan keeps and which it drops; None where it drops none.

    To be asked before the plan is saved.
    """
    try:
        before = Plan.load(store, now.suite.name)
    except UserError:
        return None
    old, new = _rows(before), _rows(now)
    asked = [
        name
        for name, task in before.tasks.items()
        if name not in now.tasks or now.tasks[name].identity() != task.identity()
    ]
    gone = [row for row in old if row not in new]
    other = [row for row in old if row in new and not old[row] <= new[row]]
    if not (gone or other or asked):
        return None
    said = {
        "gone": gone,
        "another checkpoint or seed under the same name": other,
        "tasks that are gone or asked otherwise": asked,
        "new": [row for row in new if row not in old],
        "as before": [row for row in old if row not in gone and row not in other],
    }
    return (
        f"The board of {now.suite.name} in {store.root} now shows this run instead of the one before."
        f" {'; '.join(f'{what}: {_listed(names)}' for what, names in said.items() if names)}."
        " Results are kept: a run that asks for all of them shows all."
    )


def _rows(plan: Plan) -> dict[str, set[str]]:
    """Return the ids of a plan's cells by the name of their row; a stress stands for all its cells.

    What stands beside a checkpoint has no row of its own.
    """
    rows: dict[str, set[str]] = {}
    for cell in (cell for cell in plan.cells if cell.spec.beside is None):
        spec = cell.spec
        name = f"stress {spec.stress}" if spec.stress else spec.label.partition("#")[0]
        if len(plan.models) > 1:
            name = f"{cell.model} {name}"
        rows.setdefault(name, set()).add(f"{cell.model} {cell.id}")
    for log in plan.logs:
        rows.setdefault(log.name, set()).add(log.digest)
    return rows


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:MOST])
    return shown if len(names) <= MOST else f"{shown} and {len(names) - MOST} more"
