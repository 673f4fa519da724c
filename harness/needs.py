"""What the cells of a plan need of a machine, by the estimates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .data import Rows, load_rows
from .estimate import Estimates, corpus_of, estimate_plan
from .plan import Plan
from .profiles import A100
from .suite import SourceSpec


def estimates(plan: Plan, batch_size: int, rows_of: Callable[[SourceSpec, Path | None], Rows] = load_rows) -> Estimates:
    """Return the cost of every cell of a plan from the architectures that the suite or a model's folder knows.

    `rows_of` reads a source below the folder of data.
    """
    folder = Path(plan.data_folder) if plan.data_folder else None
    corpora = {
        track: corpus_of(plan.suite.tracks[track].corpora, folder, plan.suite.training, rows_of)
        for track in plan.tracks
    }
    facts = {name: plan.suite.models[name].architecture for name in plan.models if name in plan.suite.models}
    return estimate_plan(plan, facts, corpora, A100, batch_size)


def memory(plan: Plan, batch_size: int) -> dict[str, int]:
    """Return the bytes that a worker needs to make and measure any cell of a model, by the model's digest."""
    most: dict[str, int] = {}
    for row in estimates(plan, batch_size).rows:
        if row.estimate is not None:
            digest = plan.models[row.cell.model].digest
            most[digest] = max(most.get(digest, 0), row.estimate.memory_bytes)
    return most
