"""The runner: brings a store to what a plan wants. Failures are collected and told at the end; the rest goes on.

Of each model all cells are made first and measured then, so that one engine measures them one after the other; nobody
waits for that while a worker is free.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from itertools import compress
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from .errors import EntryLocked, JobError, UserError, WorkerLost, redacted
from .executors.base import Executor
from .jobs.job import EvalJob, Job
from .planning.nulls import text_of
from .planning.plan import Plan, PlannedCell, delta_of
from .planning.status import CellStatus, status_of
from .runtime import Event, RunConfig
from .store.entries import Store
from .transforms.base import BuildJob

MEND = "the same command makes it when that is mended"


@dataclass
class Runner:
    """Runs what a plan wants and the store lacks.

    Attributes:
        on_cell: called whenever a cell is finished or failed (with the cause).
    """

    plan: Plan
    store: Store
    executor: Executor
    config: RunConfig
    on_cell: Callable[[PlannedCell, str | None], None] = lambda cell, cause: None
    failures: dict[str, str] = field(default_factory=dict)
    _queue: list[tuple[PlannedCell, Job]] = field(default_factory=list)
    _running: dict[Future[None], tuple[PlannedCell, Job]] = field(default_factory=dict)
    _again: list[tuple[PlannedCell, Job]] = field(default_factory=list)
    _retried: set[str] = field(default_factory=set)

    def run(self) -> dict[str, str]:
        """Make and measure every cell; return the cause of failure by cell id."""
        waiting = list(self.plan.cells)
        while waiting or self._queue or self._running or self._again:
            ready = [all(map(self._settled, cell.spec.parents)) for cell in waiting]
            for cell in compress(waiting, ready):
                self._advance(self.plan.settle(cell, self.store))
            waiting = [cell for cell, now in zip(waiting, ready, strict=True) if not now]
            self._submit()
            if not any(ready):
                self._collect()
        return self.failures

    def _settled(self, planned: str) -> bool:
        """Return whether a planned checkpoint, and all that it is made from, is made or failed in this run."""
        cell = self.plan.by_id[planned]
        if not all(map(self._settled, cell.spec.parents)):
            return False
        cell = self.plan.settle(cell, self.store)
        return cell.id in self.failures or delta_of(self.store, cell.id, cell.spec.transform) is not None

    def _advance(self, cell: PlannedCell) -> None:
        """Queue the next job of a cell: make it, then measure it; report it when nothing remains."""
        if cell.spec.transform == "noise" and not cell.spec.parents:
            self._failed(cell, UserError(f"no method finished, so there is nothing to match noise to; {MEND}"))
            return
        if cell.spec.stress is not None and "parent" not in cell.spec.settings:
            self._failed(cell, UserError(f"{self._parent(cell)}, so there is nothing to {cell.spec.transform}; {MEND}"))
            return
        state = status_of(self.plan, cell, self.store)
        if state.finished:
            self.on_cell(cell, None)
            return
        job = self._measure(cell, state) if state.made else self._make(cell)
        self._queue.append((cell, job))

    def _submit(self) -> None:
        """Hand out as many jobs as there are workers; one that is tried again only where nothing else is left."""
        models = list(self.plan.models)
        self._queue.sort(key=lambda each: (models.index(each[0].model), isinstance(each[1], EvalJob)))
        while self._queue and len(self._running) < self.executor.slots:
            self._start(*self._queue.pop(0))
        if self._again and not self._running:
            self.executor.rest()
            self._start(*self._again.pop(0))

    def _start(self, cell: PlannedCell, job: Job) -> None:
        self._running[self.executor.submit(job)] = (cell, job)

    def _parent(self, cell: PlannedCell) -> str:
        """Return which parent of a derived cell failed, and why."""
        ident = cell.spec.parents[0]
        label = next(c.spec.label for c in self.plan.cells if self.plan.settle(c, self.store).id == ident)
        return f"{label} failed ({self.failures[ident].rstrip('.')})"

    def _make(self, cell: PlannedCell) -> BuildJob:
        track = self.plan.suite.tracks.get(cell.spec.track or "")
        folder = cell.folder or self.plan.data_folder
        return BuildJob(
            self.config,
            self.plan.models[cell.model],
            cell.spec,
            text_of(cell.spec, track.corpora) if track else None,
            Path(folder) if folder else None,
        )

    def _measure(self, cell: PlannedCell, state: CellStatus) -> EvalJob:
        asked = self.plan.tasks_of(cell)
        tasks = tuple(asked[name] for name in state.missing)
        model = self.plan.models[cell.model]
        folder = Path(cell.folder) if cell.folder else None
        return EvalJob(self.config, model, cell.spec, tasks, self.plan.engine, folder)

    def _collect(self) -> None:
        """Wait for jobs to end and start what follows them."""
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        for future in done:
            cell, job = self._running.pop(future)
            error = future.exception() or self._left_undone(cell, job)
            if isinstance(error, EntryLocked):
                self._queue.append((cell, replace(job, wait=True)))
            elif isinstance(error, WorkerLost) and error.passing and cell.id not in self._retried:
                self._retried.add(cell.id)
                self._again.append((cell, job))
            elif error is None:
                self._advance(cell)
            else:
                self._failed(cell, error)

    def _left_undone(self, cell: PlannedCell, job: Job) -> Exception | None:
        """Return an error where a job ended well and the store still lacks what it was for; it is not run again."""
        state = status_of(self.plan, cell, self.store)
        if state.finished or (isinstance(job, BuildJob) and state.made):
            return None
        lacking = "its checkpoint" if not state.made else f"records of {', '.join(state.missing)}"
        return RuntimeError(f"the job ended, but the store holds not {lacking}")

    def _failed(self, cell: PlannedCell, error: BaseException) -> None:
        told = isinstance(error, UserError | JobError)
        cause = redacted(str(error) if told else f"{type(error).__name__}: {error}")
        if isinstance(error, WorkerLost) and cell.id in self._retried:
            cause += " (it was tried twice, the second time alone)"
        trace = "".join(traceback.format_exception(error))
        self.failures[cell.id] = cause
        self.store.entry("cells", cell.id).fail(cause, trace)
        self.on_cell(cell, cause)


class Display:
    """A bar for the run and one for each stage that is running."""

    def __init__(self, cells: int, console: Console) -> None:
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.total = self.bars.add_task("cells", total=cells)
        self.stages: dict[str, tuple[str, TaskID]] = {}

    def __enter__(self) -> Display:
        self.bars.start()
        return self

    def __exit__(self, *rest: object) -> None:
        self.bars.stop()

    def event(self, event: Event) -> None:
        """Move the bar of a label's stage, replacing the stage before it."""
        stage, bar = self.stages.get(event.label, ("", None))
        if stage != event.stage:
            self._drop(event.label)
            bar = self.bars.add_task(f"  {event.label}: {event.stage}", total=event.total)
            self.stages[event.label] = (event.stage, bar)
        if bar is not None:
            self.bars.update(bar, completed=event.done, total=event.total)

    def cell(self, label: str) -> None:
        """Count a cell as finished."""
        self._drop(label)
        self.bars.advance(self.total)

    def _drop(self, label: str) -> None:
        if label in self.stages:
            self.bars.remove_task(self.stages.pop(label)[1])
