"""What of a plan the store holds: every entry recognised by id and manifest."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UserError
from ..store.entries import Entry, Store
from .plan import Plan, PlannedCell, delta_of


@dataclass(frozen=True)
class CellStatus:
    """What of a cell is finished: the checkpoint, and its records by task.

    Attributes:
        outcomes: by task the entry that holds its answers or will; none before the checkpoint is made.
        records: by task the entry of its scores, where it and the answers it is of are finished.
    """

    cell: PlannedCell
    made: bool
    outcomes: dict[str, Entry]
    records: dict[str, Entry]
    missing: tuple[str, ...]
    failure: str | None

    @property
    def finished(self) -> bool:
        """Whether nothing remains to be done."""
        return self.made and not self.missing


def status_of(plan: Plan, cell: PlannedCell, store: Store) -> CellStatus:
    """Look a cell up in the store; a cell that is not finished has failed where a failure is kept."""
    cell = plan.settle(cell, store)
    ident = cell.id
    delta = delta_of(store, ident, cell.spec.transform)
    wanted = _entries(plan, cell, delta, store)
    outcomes = {name: outcome for name, (outcome, _) in wanted.items()}
    records = {
        name: record
        for name, (outcome, record) in wanted.items()
        if record.manifest() is not None and outcome.manifest() is not None
    }
    missing = tuple(name for name in plan.tasks_of(cell) if name not in records)
    failure = store.entry("cells", ident).failure() if missing else None
    return CellStatus(cell, delta is not None, outcomes, records, missing, failure)


def statuses(plan: Plan, store: Store) -> list[CellStatus]:
    """Return what of each cell of a plan is finished."""
    return [status_of(plan, cell, store) for cell in plan.cells]


def entries(plan: Plan, cell: PlannedCell, store: Store) -> dict[str, tuple[Entry, Entry]]:
    """Return the outcome and record entries that a settled cell should have, by task; none before it is made."""
    return _entries(plan, cell, delta_of(store, cell.id, cell.spec.transform), store)


def _entries(plan: Plan, cell: PlannedCell, delta: str | None, store: Store) -> dict[str, tuple[Entry, Entry]]:
    if delta is None:
        return {}
    found = {}
    for name, task in plan.tasks_of(cell).items():
        record = task.record(task.outcome(plan.models[cell.model], delta, plan.engine))
        found[name] = (store.entry("outcomes", record.outcome), store.entry("records", record.id))
    return found


def find_cell(plan: Plan, store: Store, name: str) -> PlannedCell:
    """Return the plan's cell with this id (or the start of it), label or variant; a `UserError` where it is not one."""
    cells = [plan.settle(cell, store) for cell in plan.cells]
    found = [cell for cell in cells if name in (cell.id, cell.spec.label, cell.spec.label.split("#")[0])]
    found = found or [cell for cell in cells if cell.id.startswith(name) or cell.spec.variant == name]
    if len(found) != 1:
        labels = ", ".join(f"{cell.id} ({cell.model}: {cell.spec.label})" for cell in found or cells)
        raise UserError(f"{name!r} names {len(found)} cells of this run; name one of {labels}.")
    return found[0]
