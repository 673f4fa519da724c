"""The Python face of the harness: `evaluate` and `load_records`."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ..leaderboards.spec import LOG
from .engines.base import engines
from .errors import UserError
from .executors.base import ClusterExecutor, Executor, executors
from .models.load import find_device
from .planning.build import make_plan
from .planning.classes import pack
from .planning.plan import Plan
from .planning.replaced import replaced_rows
from .planning.request import Request
from .planning.status import CellStatus, statuses
from .planning.trainings import check_trainings
from .results.board import written_board
from .results.composites import check_composites, check_logs
from .runner import Display, Runner
from .runtime import RunConfig, RunOptions
from .store.entries import Store
from .store.files import read_jsonl

if TYPE_CHECKING:
    import pandas as pd

    from ..leaderboards.board import Board

logger = logging.getLogger(__name__)

DEFAULT_OUTPUT = Path("unlearn-bench-results")


@dataclass(frozen=True)
class Result:
    """What a run came to: the plan, its store, the board, and the cause of failure by cell label.

    A cell without any score of a task has failed too. With several models the label stands after the model's name.
    `cells`: what the store holds of each. `stored`: how many were finished before the run. `replaced`: what an earlier
    run's board showed that this one does not; None: nothing.
    """

    plan: Plan
    store: Store
    board: Board
    failures: Mapping[str, str]
    cells: Sequence[CellStatus] = ()
    replaced: str | None = None
    stored: int = 0


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
    verify_inputs: bool = False,
    console: Console | None = None,
) -> Result:
    """Run a request: train what is not trained, measure what is not measured, write the board.

    `checkpointing` trains with less memory and the same results, from the start instead of where memory ends. A cell's
    training, or its measurement, that takes more than `time_limit` seconds is ended and has failed. `address` is that
    of the cluster whose machines run the cells (executor `ray`). `verify_inputs` takes no digest of a file from memory.

    Raises:
        UserError: the request cannot be planned or the output folder not written; nothing has run then.
    """
    options = RunOptions(
        executor=executor,
        address=address,
        workers=workers,
        device=device,
        batch_size=batch_size,
        checkpointing=checkpointing,
        time_limit=time_limit,
        verify_inputs=verify_inputs,
    )
    console = console or _console()
    result = run(request or Request(), Path(output), options, console)
    if result.replaced:
        console.print(result.replaced, markup=False, highlight=False, soft_wrap=True)
    return result


def run(request: Request, output: Path, options: RunOptions, console: Console | None = None) -> Result:
    """Plan a request, run what its store lacks, and write the board of what the store then holds; see `evaluate`."""
    store = Store.create(output, verify_inputs=options.verify_inputs)
    with store.used():
        kind = _executor(options)
        if not store.plans():
            kind.prepare()
        plan = make_plan(request, store)
        check_composites(plan.suite)
        check_logs(plan)
        states = statuses(plan, store)
        check_trainings(plan, states, kind.call)
        classes = {} if kind.in_process else pack(plan)
        replaced = replaced_rows(plan, store)
        plan.save(store)
        console = console or _console()
        failures = _run_jobs(plan, store, kind, options, request.engine_options, classes, console, states)
        cells = statuses(plan, store)
        failures = _by_name(plan, failures, cells)
        board = written_board(plan, store, cells)
    return Result(plan, store, board, failures, cells, replaced, sum(status.finished for status in states))


def _console() -> Console:
    return Console(stderr=True, quiet=logger.getEffectiveLevel() > logging.WARNING)


def _executor(options: RunOptions) -> type[Executor]:
    kind = executors.get(options.executor)
    if options.address is not None and not issubclass(kind, ClusterExecutor):
        raise UserError(f"Executor {options.executor} takes no --address; leave it out, or pass --executor ray.")
    return kind


def _run_jobs(
    plan: Plan,
    store: Store,
    kind: type[Executor],
    options: RunOptions,
    engine_options: Mapping[str, Any],
    classes: Mapping[str, bytes],
    console: Console,
    states: Sequence[CellStatus],
) -> dict[str, str]:
    """Make and evaluate what is not finished; return the cause of failure by planned cell id."""
    jobs, answers = max(1, sum(not status.finished for status in states)), Counter[str]()
    for status in states:
        answers[status.cell.spec.label] += len(status.missing)
    undone = (status.cell.spec for status in states if not status.made)
    trainings = [spec.label for spec in undone if "training" in spec.settings]
    with (
        Display(len(plan.cells), trainings, answers, console) as display,
        _started(kind, plan, options, jobs, display) as executor,
    ):
        on_cluster = isinstance(executor, ClusterExecutor)
        config = RunConfig(
            **{
                **vars(options),
                "device": executor.device(options.device) if on_cluster else find_device(options.device),
            },
            store=store.root,
            threads=plan.suite.threads,
            engine_options=engine_options,
            memory=_memory(plan, options.batch_size) if on_cluster else {},
            classes=classes,
            log_level=logger.getEffectiveLevel(),
        )
        return Runner(plan, store, executor, config, display.cell).run()


def _by_name(plan: Plan, failures: Mapping[str, str], cells: Sequence[CellStatus]) -> dict[str, str]:
    """Return why cells failed, or have no value where they were measured, by their names."""
    several, causes = len(plan.models) > 1, {}
    for cell, status in zip(plan.cells, cells, strict=True):
        cause = "; ".join(filter(None, (failures.get(cell.id), status.without_value)))
        if cause:
            causes[f"{cell.model} {cell.spec.label}" if several else cell.spec.label] = cause
    return causes


def _started(kind: type[Executor], plan: Plan, options: RunOptions, jobs: int, display: Display) -> Executor:
    """Return an executor with as many workers as are asked for and have something to do."""
    if issubclass(kind, ClusterExecutor):
        return kind(min(options.workers or jobs, jobs), display.event, options.address or "auto")
    return kind(min(options.workers or default_workers(plan, find_device(options.device)), jobs), display.event)


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
    as `mark_NAME`. References and rows that are stored values stand last, as on boards: once a model, method `log`,
    `cell` the digest of their files.
    """
    import pandas as pd

    store = Store.open(Path(output))
    plan = Plan.load(store, suite)
    rows = []
    for status in statuses(plan, store):
        spec = status.cell.spec
        head = {
            "model": status.cell.model,
            "track": spec.track,
            "method": spec.method,
            "variant": spec.variant,
            "seed": spec.seed,
            "cell": status.cell.id,
        }
        for task, entry in status.records.items():
            rows += [{**head, "task": task, **_flat(row)} for row in read_jsonl(entry.file("records.jsonl"))]
    for log in plan.logs:
        head = {"track": log.track, "method": LOG, "variant": log.name, "seed": None, "cell": log.digest}
        for model, (task, records) in product(plan.models, log.records.items()):
            rows += [{"model": model, **head, "task": task, **_flat(row)} for row in records]
    return pd.DataFrame(rows)


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record on one level: what it is of, its scores, its marks."""
    marks = {f"mark_{name}": value for name, value in record["marks"].items()}
    ids = {key: record[key] for key in ("item", "cluster", "stratum", "missing")}
    return {**ids, **(record["scores"] or {}), **marks}
