"""What `evaluate --dry-run` says: every cell with what remains of it, and what the remaining ones would cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tabulate import tabulate

from ..records import Printable
from ..store.entries import Store
from .build import make_plan
from .devices import A100, GIB
from .plan import Plan, PlannedCell
from .request import Request
from .sources import SourceReader
from .status import CellStatus, statuses
from .trainings import check_trainings

if TYPE_CHECKING:
    from .cost import CostEstimate


@dataclass(frozen=True)
class RoundedCost:
    """An estimate as it is shown: GPU memory and disk in GiB, GPU hours."""

    gpu_gib: float
    hours: float
    disk_gib: float

    @classmethod
    def of(cls, estimate: CostEstimate | None) -> RoundedCost | None:
        """Round an estimate, where there is one."""
        if estimate is None:
            return None
        gpu, disk = estimate.memory_bytes / GIB, estimate.disk_bytes / GIB
        return cls(round(gpu, 1), round(estimate.seconds / 3600, 2), round(disk, 2))


@dataclass(frozen=True)
class CellOutlook:
    """What a cell is and what remains of it.

    Attributes:
        cell: its id, None where its model or text cannot be reached.
        name: its label.
        remains: `make` and `measure TASK`, as far as they are not done.
        cost: of all that is done on it; None in an embedded suite, and where nobody knows the model's architecture.
        notes: in what an imported checkpoint differs from its base; why it failed before, or has no value.
    """

    cell: str | None
    model: str
    name: str
    state: Literal["finished", "failed before", "to do"]
    remains: list[str]
    cost: RoundedCost | None
    notes: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """Return the cell as plain JSON types, its cost among the rest."""
        facts = asdict(self)
        return facts | (facts.pop("cost") or {})

    def remains_in_words(self) -> str:
        """Return what remains, tasks as a number."""
        tasks = sum(job != "make" for job in self.remains)
        measured = f"measure {tasks} task{'s' * (tasks > 1)}" if tasks else ""
        return ", ".join(filter(None, ("make" if "make" in self.remains else "", measured))) or "nothing"


@dataclass(frozen=True)
class DryRun(Printable):
    """What a request would do.

    Attributes:
        cells: in the plan's order.
        total, assumptions: of the estimates; None for an embedded suite.
        left_out: optional task to why it is not measured.
        unreached: what could not be reached and what to do.
        stored: references that are stored values, of which nothing is made or measured.
        notes: what the board will say, as which methods are left out and why.
    """

    suite: str
    cells: list[CellOutlook]
    total: RoundedCost | None
    assumptions: str | None
    left_out: dict[str, str]
    unreached: list[str]
    stored: list[str]
    notes: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return {**asdict(self), "cells": [cell.facts() for cell in self.cells]}

    def to_text(self) -> str:
        """Return it as a table and what follows from it."""
        rows = [{**cell.facts(), "cell": cell.cell or "–", "remains": cell.remains_in_words()} for cell in self.cells]
        for row in rows:
            del row["notes"]
        lines = [tabulate(rows, headers="keys", tablefmt="simple", disable_numparse=True), ""]
        finished = sum(cell.state == "finished" for cell in self.cells)
        lines.append(f"{len(rows)} cells on suite {self.suite}: {finished} finished, {len(rows) - finished} remain.")
        if self.total is not None:
            lines.append(
                f"All cells: at most {self.total.gpu_gib} GiB of GPU memory, {self.total.hours} GPU hours,"
                f" {self.total.disk_gib} GiB of disk. {self.assumptions}"
            )
        large = [cell.name for cell in self.cells if cell.cost and cell.cost.gpu_gib > A100.memory / GIB]
        lines += [f"Too large for {A100.name}: {', '.join(dict.fromkeys(large))}."] if large else []
        lines += [f"Left out: {task}, which is optional. {cause}" for task, cause in self.left_out.items()]
        noted = [cell for cell in self.cells if cell.notes]
        lines += ["", *(f"{cell.name}: {'; '.join(cell.notes)}." for cell in noted)] if noted else []
        lines += [f"Nothing to make: {log}." for log in self.stored]
        lines += ["", *(f"Note: {note}." for note in self.notes)] if self.notes else []
        lines += ["", *(f"Not reached: {cause}" for cause in self.unreached)] if self.unreached else []
        return "\n".join(lines) + "\n"


def dry_run(request: Request, output: Path, batch_size: int) -> DryRun:
    """Return what a request would do; nothing is trained, measured or written."""
    reader = SourceReader(lenient=True)
    plan = make_plan(request, None, reader)
    store = Store.open(output) if (output / "store.json").is_file() else Store(output)
    costs = None
    if not plan.suite.embedded:
        from .estimate import estimates

        costs = estimates(plan, batch_size, reader.rows)
    by_cell = {id(row.cell): row.estimate for row in costs.rows} if costs else {}
    states = statuses(plan, store)
    if not plan.unreached:
        check_trainings(plan, states)
    cells = zip(plan.cells, states, strict=True)
    return DryRun(
        suite=plan.suite.name,
        cells=[_outlook(plan, cell, status, by_cell.get(id(cell))) for cell, status in cells],
        total=RoundedCost.of(costs.total) if costs else None,
        assumptions=costs.assumptions if costs else None,
        left_out=plan.left_out,
        unreached=list(plan.unreached),
        stored=[log.words for log in plan.logs],
        notes=list(plan.notes),
    )


def _outlook(plan: Plan, cell: PlannedCell, status: CellStatus, estimate: CostEstimate | None) -> CellOutlook:
    return CellOutlook(
        cell=status.cell.id if _known(plan, cell, status) else None,
        model=cell.model,
        name=cell.spec.label,
        state="finished" if status.finished else "failed before" if status.failure else "to do",
        remains=[*([] if status.made else ["make"]), *(f"measure {task}" for task in status.missing)],
        cost=RoundedCost.of(estimate),
        notes=(*cell.notes, *filter(None, (status.failure, status.without_value))),
    )


def _known(plan: Plan, cell: PlannedCell, status: CellStatus) -> bool:
    """Return whether all that a cell's id stands for was reached; that of what starts from a cell once that is made."""
    if cell.spec.start is not None and "parent" not in status.cell.spec.settings:
        return False
    return _reached(plan, cell)


def _reached(plan: Plan, cell: PlannedCell) -> bool:
    data = cell.spec.settings.get("data", {})
    topics = {**data.get("forget", {}), **data.get("relearn", {})}
    texts = {**topics, **data.get("pools", {})}
    own = [*data.get("text", ()), cell.spec.settings.get("digest")]
    digests = [plan.models[cell.model].digest, *texts.values(), data.get("retain"), data.get("probe"), *own]
    return "" not in digests and all(_reached(plan, plan.by_id[parent]) for parent in cell.spec.parents)
