"""The Python face of the harness: `evaluate` and `load_records`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from .engines.base import engines
from .errors import UserError
from .executors.base import ClusterExecutor, Executor, executors
from .models.load import find_device
from .planning.build import make_plan
from .planning.plan import Plan, PlannedCell
from .planning.request import Request
from .planning.status import status_of, statuses
from .results.board import board_of, write_board
from .runner import Display, Runner
from .runtime import OnEvent, RunConfig
from .store.entries import Store
from .store.files import read_jsonl

if TYPE_CHECKING:
    import pandas as pd

    from ..leaderboards import Board

DEFAULT_OUTPUT = Path("unlearn-bench-results")


@dataclass(frozen=True)
class Result:
    """What a run came to: the plan, its store, the board, and the cause of failure by cell label.

    With several models the label stands after the model's name.
    """

    plan: Plan
    store: Store
    board: Board
    failures: Mapping[str, str]


def evaluate(
    request: Request | None = None,
    *,
    output: Path | str = DEFAULT_OUTPUT,
    executor: str = "local",
    address: str | None = None,
    workers: int | None = None,
    device: str = "auto",
    batch_size: int = 64,
    checkpointing: bool = False,
    time_limit: float | None = None,
    console: Console | None = None,
) -> Result:
    """Run a request: train what is not trained, measure what is not measured, write the board.

    `checkpointing` trains with less memory and the same results, from the start instead of where memory ends. A cell's
    training, or its measurement, that takes more than `time_limit` seconds is ended and has failed. `address` is that
    of the cluster whose machines run the cells (executor `ray`).

    Raises:
        UserError: the request cannot be planned or the output folder not written; nothing has run then.
    """
    console = console or Console(stderr=True)
    request = request or Request()
    store = Store.create(Path(output))
    with store.used():
        how = (workers, device, batch_size, checkpointing, time_limit)
        return _evaluate(request, store, executor, address, *how, console)


def _evaluate(
    request: Request,
    store: Store,
    executor: str,
    address: str | None,
    workers: int | None,
    device: str,
    batch_size: int,
    checkpointing: bool,
    time_limit: float | None,
    console: Console,
) -> Result:
    kind = executors.get(executor)
    if address is not None and not issubclass(kind, ClusterExecutor):
        raise UserError(f"Executor {executor} takes no --address; leave it out, or pass --executor ray.")
    if not any((store.root / "plans").iterdir()):
        kind.prepare()
    plan = make_plan(request, store)
    plan.save(store)

    def name_of(cell: PlannedCell) -> str:
        return cell.spec.label if len(plan.models) == 1 else f"{cell.model} {cell.spec.label}"

    causes: dict[str, str] = {}
    with Display(len(plan.cells), console) as display:

        def on_cell(cell: PlannedCell, cause: str | None) -> None:
            display.cell(cell.spec.label)
            if cause is not None:
                causes[name_of(cell)] = cause

        open_cells = max(1, sum(not state.finished for state in statuses(plan, store)))
        with _start(kind, address, workers, plan, device, open_cells, display.event) as running:
            config = RunConfig(
                store=store.root,
                device=_device(running, device),
                threads=plan.suite.threads,
                batch_size=batch_size,
                engine_options=request.engine_options,
                checkpointing=checkpointing,
                time_limit=time_limit,
                memory=_memory(plan, batch_size) if isinstance(running, ClusterExecutor) else {},
            )
            Runner(plan, store, running, config, on_cell).run()
    board = board_of(plan, store)
    write_board(board, store)
    failures = {name: causes[name] for name in map(name_of, plan.cells) if name in causes}
    return Result(plan, store, board, failures)


def _start(
    kind: type[Executor],
    address: str | None,
    workers: int | None,
    plan: Plan,
    device: str,
    open_cells: int,
    report: OnEvent,
) -> Executor:
    """Start an executor with as many workers as are asked for and have something to do."""
    if issubclass(kind, ClusterExecutor):
        return kind(min(workers or open_cells, open_cells), report, address or "auto")
    return kind(min(workers or default_workers(plan, find_device(device)), open_cells), report)


def _device(running: Executor, asked: str) -> str:
    return running.device(asked) if isinstance(running, ClusterExecutor) else find_device(asked)


def _memory(plan: Plan, batch_size: int) -> dict[str, int]:
    from .planning.estimate import memory

    return memory(plan, batch_size)


def default_workers(plan: Plan, device: str) -> int:
    """Return one worker on a GPU or with an engine of its own processes, else as many as the suite's threads leave."""
    if device != "cpu" or engines.get(plan.engine).alone:
        return 1
    return max(1, len(os.sched_getaffinity(0)) // plan.suite.threads)


def load_records(output: Path | str = DEFAULT_OUTPUT, suite: str | None = None) -> pd.DataFrame:
    """Return every record of a suite's plan: one row an item of a task on a checkpoint, one column a score or mark.

    Columns: model, track, method, variant, seed, cell, task, item, cluster, stratum, missing, then scores, then marks
    as `mark_NAME`.
    """
    import pandas as pd

    store = Store.open(Path(output))
    plan = Plan.load(store, suite)
    rows = []
    for cell in plan.cells:
        state = status_of(plan, cell, store)
        spec = state.cell.spec
        head = {
            "model": cell.model,
            "track": spec.track,
            "method": spec.method,
            "variant": spec.variant,
            "seed": spec.seed,
            "cell": state.cell.id,
        }
        for task, entry in state.records.items():
            for row in read_jsonl(entry.file("records.jsonl")):
                scores = row["scores"] or {}
                marks = {f"mark_{name}": value for name, value in row["marks"].items()}
                ids = {key: row[key] for key in ("item", "cluster", "stratum", "missing")}
                rows.append({**head, "task": task, **ids, **scores, **marks})
    return pd.DataFrame(rows)
