"""What of a plan the store holds, and what remains (resume): every entry is recognised by id and manifest."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UserError
from ..records import why_missing
from ..store.entries import Entry, Store
from ..store.files import read_jsonl
from ..store.identity import CONSTANT, UNMADE, CellSpec
from .plan import Plan, PlannedCell


@dataclass(frozen=True)
class CellStatus:
    """What of a cell is finished: the checkpoint, and its records by task.

    Attributes:
        cell: the cell, settled.
        delta: sha256 of its changed tensors (`base` for the base model); None: it is not made.
        outcomes: by task the entry that holds its answers or will; none before the checkpoint is made.
        records: by task the entry of its scores, where it and the answers it is of are finished.
        missing: tasks without records.
        failure: why it failed; None: it did not, or is finished.
    """

    cell: PlannedCell
    delta: str | None
    outcomes: dict[str, Entry]
    records: dict[str, Entry]
    missing: tuple[str, ...]
    failure: str | None

    @property
    def made(self) -> bool:
        """Whether the checkpoint is made."""
        return self.delta is not None

    @property
    def unscored(self) -> dict[str, str]:
        """Why measured tasks have no value, by task: none of their items has a score.

        Of the null `constant` that is no failure: a text whose probability is asked for has none.
        """
        if self.cell.spec.transform == CONSTANT:
            return {}
        causes = {task: _why_unscored(entry) for task, entry in self.records.items()}
        return {task: cause for task, cause in causes.items() if cause is not None}

    @property
    def without_value(self) -> str | None:
        """Why not all that is measured has a value, in one line; None: it has."""
        tasks: dict[str, list[str]] = {}
        for task, cause in self.unscored.items():
            tasks.setdefault(cause, []).append(task)
        return "; ".join(f"no score of {', '.join(names)}: {cause}" for cause, names in tasks.items()) or None

    @property
    def finished(self) -> bool:
        """Whether nothing remains to be done."""
        return self.made and not self.missing


def _why_unscored(entry: Entry) -> str | None:
    """Return why no record of an entry has a score, None where one has; older entries are asked for their records."""
    manifest = entry.manifest() or {}
    if "scored" not in manifest:
        rows = read_jsonl(entry.file("records.jsonl"))
        scored = any(row["scores"] for row in rows)
        return None if scored else why_missing(row["missing"] for row in rows)
    return manifest.get("unscored")


def statuses(plan: Plan, store: Store) -> list[CellStatus]:
    """Return what of each cell of a plan is finished."""
    return [status_of(plan, cell, store) for cell in plan.cells]


def status_of(plan: Plan, cell: PlannedCell, store: Store) -> CellStatus:
    """Look a cell up in the store; a cell that is not finished has failed where a failure is kept."""
    planned, cell = cell, settle(plan, cell, store)
    delta = delta_of(cell.spec, store)
    wanted = _entries(plan, cell, delta, store)
    outcomes = {name: outcome for name, (outcome, _) in wanted.items()}
    records = {
        name: record
        for name, (outcome, record) in wanted.items()
        if record.manifest() is not None and outcome.manifest() is not None
    }
    missing = tuple(name for name in plan.tasks_of(cell) if name not in records)
    failure = _failure(plan, planned, cell, store) if missing else None
    return CellStatus(cell, delta, outcomes, records, missing, failure)


def _failure(plan: Plan, planned: PlannedCell, settled: PlannedCell, store: Store) -> str | None:
    """Return why a cell failed: its own cause, or that the checkpoint failed which it would stand beside."""
    own = store.entry("cells", settled.id).failure()
    if own is not None or planned.spec.beside is None or delta_of(settled.spec, store) is not None:
        return own
    parent = settle(plan, plan.by_id[planned.spec.parents[0]], store)
    failed = delta_of(parent.spec, store) is None and store.entry("cells", parent.id).failure() is not None
    return f"{parent.spec.label} failed" if failed else None


def settle(plan: Plan, cell: PlannedCell, store: Store) -> PlannedCell:
    """Return a cell as far as what it is made from is known; one that is settled already, as it is.

    What starts from another cell names the delta of that one, once it is made. The noise of older runs was matched to
    those of its planned parents that did not fail.
    """
    spec = cell.spec
    if spec.transform == "noise" and spec.beside is None and spec.stress is None:
        return _settle_shared_noise(cell, store)
    planned = [plan.by_id[parent] for parent in spec.parents if parent in plan.by_id]
    if not planned or len(planned) < len(spec.parents):
        return cell
    parents = [settle(plan, parent, store) for parent in planned]
    if spec.start is None and all(now is before for now, before in zip(parents, planned, strict=True)):
        return cell
    delta = None if spec.start is None else delta_of(parents[-1].spec, store)
    known = {} if delta is None else {"parent": delta}
    changed = {"parents": tuple(parent.id for parent in parents), "settings": {**spec.settings, **known}}
    return cell.model_copy(update={"spec": spec.model_copy(update=changed)})


def _settle_shared_noise(cell: PlannedCell, store: Store) -> PlannedCell:
    entries = {parent: store.entry("cells", parent) for parent in cell.spec.parents}
    parents = tuple(name for name, entry in entries.items() if entry.failure() is None or entry.manifest() is not None)
    return cell.model_copy(update={"spec": cell.spec.model_copy(update={"parents": parents})})


def delta_of(cell: CellSpec, store: Store) -> str | None:
    """Return the sha256 of a cell's delta (`base` for the base model), or None where the cell is not finished."""
    if cell.transform in UNMADE:
        return UNMADE[cell.transform]
    manifest = store.entry("cells", cell.id).manifest()
    return None if manifest is None else str(manifest["delta"])


def entries(plan: Plan, cell: PlannedCell, store: Store) -> dict[str, tuple[Entry, Entry]]:
    """Return the outcome and record entries that a settled cell should have, by task; none before it is made."""
    return _entries(plan, cell, delta_of(cell.spec, store), store)


def _entries(plan: Plan, cell: PlannedCell, delta: str | None, store: Store) -> dict[str, tuple[Entry, Entry]]:
    if delta is None:
        return {}
    pairs = {}
    for name, task in plan.tasks_of(cell).items():
        record = task.record(task.outcome(plan.models[cell.model], delta, plan.engine))
        pairs[name] = (store.entry("outcomes", record.outcome), store.entry("records", record.id))
    return pairs


def find_cell(plan: Plan, store: Store, name: str) -> PlannedCell:
    """Return the plan's cell with this id (or the start of it), label or variant; a `UserError` where it is not one."""
    cells = [settle(plan, cell, store) for cell in plan.cells]
    matches = [cell for cell in cells if name in (cell.id, cell.spec.label, cell.spec.label.split("#")[0])]
    matches = matches or [cell for cell in cells if cell.id.startswith(name) or cell.spec.variant == name]
    if len(matches) != 1:
        labels = ", ".join(f"{cell.id} ({cell.model}: {cell.spec.label})" for cell in matches or cells)
        raise UserError(f"{name!r} names {len(matches)} cells of this run; name one of {labels}.")
    return matches[0]
