"""What `evaluate --dry-run` says: every cell with what remains of it, and what the remaining ones would cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..store.entries import Store
from .build import make_plan
from .devices import A100
from .plan import Plan, PlannedCell
from .request import Request
from .sources import SourceReader
from .status import CellStatus, statuses

if TYPE_CHECKING:
    from .cost import CostEstimate
    from .estimate import PlanEstimate


def dry_run(request: Request, output: Path, batch_size: int) -> dict[str, Any]:
    """Return what a request would do, as plain JSON types; nothing is trained, measured or written.

    `cells`: a row each with id (None where its model or text cannot be reached), state, what remains, and its estimate;
    `unreached`: what could not be reached and what to do; `assumptions` and `total`: of the estimates of what remains,
    None for an embedded suite.
    """
    reader = SourceReader(lenient=True)
    plan = make_plan(request, None, reader)
    store = Store.open(output) if (output / "store.json").is_file() else Store(output)
    found = statuses(plan, store)
    costs = None if plan.suite.embedded else _estimates(plan, batch_size, reader)
    by_cell = {id(row.cell): row.estimate for row in costs.rows} if costs else {}
    return {
        "suite": plan.suite.name,
        "cells": [
            _row(plan, cell, state, by_cell.get(id(cell))) for cell, state in zip(plan.cells, found, strict=True)
        ],
        "total": _cost(costs.total) if costs else None,
        "assumptions": costs.assumptions if costs else None,
        "unreached": list(plan.unreached),
    }


def _estimates(plan: Plan, batch_size: int, reader: SourceReader) -> PlanEstimate:
    from .estimate import estimates

    return estimates(plan, batch_size, reader.rows)


def _row(plan: Plan, cell: PlannedCell, state: CellStatus, estimate: CostEstimate | None) -> dict[str, Any]:
    return {
        "cell": state.cell.id if _known(plan, cell, state) else None,
        "model": cell.model,
        "name": cell.spec.label,
        "state": "finished" if state.finished else "failed before" if state.failure else "to do",
        "remains": [*([] if state.made else ["make"]), *(f"measure {name}" for name in state.missing)],
        **(_cost(estimate) if estimate else {}),
    }


def _known(plan: Plan, cell: PlannedCell, state: CellStatus) -> bool:
    """Return whether all that a cell's id stands for was reached; that of a derived cell once its parent is made."""
    if cell.spec.stress is not None and "parent" not in state.cell.spec.settings:
        return False
    return _reached(plan, cell)


def _reached(plan: Plan, cell: PlannedCell) -> bool:
    data = cell.spec.settings.get("data", {})
    topics = {**data.get("forget", {}), **data.get("relearn", {})}
    digests = [plan.models[cell.model].digest, *topics.values(), data.get("retain"), data.get("probe")]
    return "" not in digests and all(_reached(plan, plan.by_id[parent]) for parent in cell.spec.parents)


def _cost(estimate: CostEstimate) -> dict[str, Any]:
    return {
        "gpu_gib": round(estimate.memory_bytes / 2**30, 1),
        "hours": round(estimate.seconds / 3600, 2),
        "disk_gib": round(estimate.disk_bytes / 2**30, 2),
    }


def _remains(jobs: Sequence[str]) -> str:
    tasks = sum(job != "make" for job in jobs)
    parts = [*(["make"] if "make" in jobs else []), *([f"measure {tasks} task{'s' * (tasks > 1)}"] if tasks else [])]
    return ", ".join(parts) or "nothing"


def render(said: Mapping[str, Any]) -> str:
    """Return a dry run as a table and what follows from it."""
    from tabulate import tabulate

    rows = [{**row, "cell": row["cell"] or "–", "remains": _remains(row["remains"])} for row in said["cells"]]
    lines = [tabulate(rows, headers="keys", tablefmt="simple", disable_numparse=True), ""]
    finished = sum(row["state"] == "finished" for row in rows)
    lines.append(f"{len(rows)} cells on suite {said['suite']}: {finished} finished, {len(rows) - finished} remain.")
    total = said["total"]
    if total is not None:
        lines.append(
            f"All cells: at most {total['gpu_gib']} GiB of GPU memory, {total['hours']} GPU hours,"
            f" {total['disk_gib']} GiB of disk. {said['assumptions']}"
        )
        large = [row["name"] for row in rows if row.get("gpu_gib", 0) > A100.memory / 2**30]
        lines += [f"Too large for {A100.name}: {', '.join(dict.fromkeys(large))}."] if large else []
    lines += ["", *(f"Not reached: {text}" for text in said["unreached"])] if said["unreached"] else []
    return "\n".join(lines)
