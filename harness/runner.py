"""The runner: brings a store to what a plan wants. Failures are collected and told at the end; the rest goes on.

Of each model all cells are made first and measured then, so that one engine measures them one after the other; nobody
waits for that while a worker is free.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from datetime import timedelta
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
from .planning.plan import Plan, PlannedCell
from .planning.references import fine_tuned_on
from .planning.status import CellStatus, status_of
from .runtime import Event, RunConfig
from .store.entries import Store
from .store.identity import CellSpec
from .transforms.base import BuildJob

logger = logging.getLogger(__name__)

EVERY = 5.0
"""Seconds between two lines of progress off a terminal."""
SHOWN = 4
"""Cells that such a line names."""
MEND = "the same command makes it when that is mended"


@dataclass
class Runner:
    """Runs what a plan wants and the store lacks.

    Attributes:
        on_cell: called with the label of every cell that is finished or failed.
        failures: the cause of failure by planned cell id.
    """

    plan: Plan
    store: Store
    executor: Executor
    config: RunConfig
    on_cell: Callable[[str], None] = lambda label: None
    failures: dict[str, str] = field(default_factory=dict)
    _queue: list[tuple[PlannedCell, Job]] = field(default_factory=list)
    _running: dict[Future[None], tuple[PlannedCell, Job]] = field(default_factory=dict)
    _again: list[tuple[PlannedCell, Job]] = field(default_factory=list)
    _retried: set[str] = field(default_factory=set)
    _settled: set[str] = field(default_factory=set)
    """Planned cells whose checkpoint is made or failed: what is made from them can begin."""

    def run(self) -> dict[str, str]:
        """Make and evaluate every cell; return the cause of failure by planned cell id."""
        waiting = list(self.plan.cells)
        while waiting or self._queue or self._running or self._again:
            ready = [self._settled.issuperset(cell.spec.parents) for cell in waiting]
            for cell in compress(waiting, ready):
                self._advance(cell, status_of(self.plan, cell, self.store))
            waiting = [cell for cell, now in zip(waiting, ready, strict=True) if not now]
            self._submit()
            if not any(ready):
                self._collect()
        return self.failures

    def _advance(self, cell: PlannedCell, status: CellStatus) -> None:
        """Queue the next job of a cell: make it, then evaluate it; report it when nothing remains.

        Beside a checkpoint that failed nothing stands: that is no failure of its own.
        """
        spec = status.cell.spec
        if spec.beside is not None and not status.made and not self._made(spec.parents[0]):
            self._settled.add(cell.id)
            self.on_cell(spec.label)
        elif spec.start is not None and "parent" not in spec.settings:
            cause = f"{self._parent(cell)}, so there is nothing to {spec.transform}; {MEND}"
            self._fail(cell, spec, UserError(cause))
        elif not status.made:
            self._queue.append((cell, self._build_job(status.cell)))
        else:
            self._settled.add(cell.id)
            if status.finished:
                self.on_cell(spec.label)
            else:
                self._queue.append((cell, self._eval_job(status)))

    def _submit(self) -> None:
        """Hand out as many jobs as there are workers; one that is tried again only where nothing else is left."""
        models = list(self.plan.models)
        self._queue.sort(key=lambda item: (models.index(item[0].model), isinstance(item[1], EvalJob)))
        while self._queue and len(self._running) < self.executor.slots:
            self._start(*self._queue.pop(0))
        if self._again and not self._running:
            self.executor.rest()
            self._start(*self._again.pop(0))

    def _start(self, cell: PlannedCell, job: Job) -> None:
        what = "making" if isinstance(job, BuildJob) else f"measuring {', '.join(task.name for task in job.tasks)}"
        started = time.monotonic()

        def ended(future: Future[None]) -> None:
            how = "failed" if future.exception() else "ended"
            logger.info("%s: %s %s after %.1f s", cell.spec.label, what, how, time.monotonic() - started)

        logger.info("%s: %s begins", cell.spec.label, what)
        future = self.executor.submit(job)
        future.add_done_callback(ended)
        self._running[future] = (cell, job)

    def _made(self, parent: str) -> bool:
        return self.store.entry("cells", parent).manifest() is not None

    def _parent(self, cell: PlannedCell) -> str:
        """Return that the cell failed which a cell starts from, and why."""
        parent = self.plan.by_id[cell.spec.parents[-1]]
        return f"{parent.spec.label} failed ({self.failures[parent.id].rstrip('.')})"

    def _build_job(self, cell: PlannedCell) -> BuildJob:
        track = self.plan.suite.tracks.get(cell.spec.track or "")
        folder = cell.folder or self.plan.data_folder
        return BuildJob(
            self.config,
            self.plan.models[cell.model],
            cell.spec,
            text_of(cell.spec, track.corpora) if track else None,
            Path(folder) if folder else None,
            text=fine_tuned_on(self.plan.suite, cell),
        )

    def _eval_job(self, status: CellStatus) -> EvalJob:
        cell, planned = status.cell, self.plan.tasks_of(status.cell)
        tasks = tuple(planned[name] for name in status.missing)
        folder = Path(cell.folder) if cell.folder else None
        return EvalJob(self.config, self.plan.models[cell.model], cell.spec, tasks, self.plan.engine, folder)

    def _collect(self) -> None:
        """Wait for jobs to end and start what follows them."""
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        for future in done:
            cell, job = self._running.pop(future)
            error = future.exception()
            if error is None:
                status = status_of(self.plan, cell, self.store)
                error = _left_undone(job, status)
                if error is None:
                    self._advance(cell, status)
                    continue
            if isinstance(error, EntryLocked):
                self._queue.append((cell, replace(job, wait=True)))
            elif isinstance(error, WorkerLost) and error.passing and cell.id not in self._retried:
                self._retried.add(cell.id)
                self._again.append((cell, job))
            else:
                self._fail(cell, job.cell, error)

    def _fail(self, cell: PlannedCell, spec: CellSpec, error: BaseException) -> None:
        """Keep why a cell failed, in the store under the id that it has as far as its parents are known."""
        known = isinstance(error, UserError | JobError)
        cause = redacted(str(error) if known else f"{type(error).__name__}: {error}")
        if isinstance(error, WorkerLost) and cell.id in self._retried:
            cause += " (it was tried twice, the second time alone)"
        trace = "".join(traceback.format_exception(error))
        logger.info("%s failed: %s", spec.label, cause)
        self._settled.add(cell.id)
        self.failures[cell.id] = cause
        self.store.entry("cells", spec.id).fail(cause, trace)
        self.on_cell(spec.label)


def _left_undone(job: Job, status: CellStatus) -> Exception | None:
    """Return an error where a job ended well and the store still lacks what it was for; it is not run again."""
    if status.finished or (isinstance(job, BuildJob) and status.made):
        return None
    lacking = "its checkpoint" if not status.made else f"records of {', '.join(status.missing)}"
    return RuntimeError(f"the job ended, but the store holds not {lacking}")


class ProgressLines:
    """Says at most every `EVERY` seconds how many cells are done and left, what is running, and the time left.

    The time left takes trainings and answers to tasks to be as long as those of their kind so far, as many side by side
    as so far; before anything was answered it is that of the trainings alone.

    Args:
        cells: of the run.
        trainings: labels of the cells that are still to be trained when the run begins.
        answers: how many tasks of each label are still to be answered.
        clock: gives seconds.
    """

    def __init__(
        self,
        cells: int,
        trainings: Iterable[str],
        answers: Mapping[str, int],
        console: Console,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cells, self.console, self.clock = cells, console, clock
        self.done = 0
        self.running: dict[str, Event] = {}
        self.untrained, self.unanswered = set(trainings), Counter(answers)
        self._begun: dict[str, float] = {}
        self._stages: dict[bool, list[float]] = {True: [], False: []}
        self.began = self.said = clock()

    def event(self, event: Event) -> None:
        """Take in how far a cell is; between two of its stages nothing of it is running."""
        label = event.label
        if event.done < event.total:
            self.running[label] = event
            self._begun.setdefault(label, self.clock())
        else:
            self.running.pop(label, None)
            self._ended(label)
        self._say()

    def _ended(self, label: str) -> None:
        training = label in self.untrained
        self._stages[training].append(self.clock() - self._begun.pop(label, self.clock()))
        self.untrained.discard(label)
        self.unanswered[label] -= not training

    def cell(self, label: str) -> None:
        """Count a cell as finished."""
        self.running.pop(label, None)
        self._begun.pop(label, None)
        self.untrained.discard(label)
        del self.unanswered[label]
        self.done += 1
        self._say()

    def _left(self) -> float:
        """Return the seconds left, 0 where they cannot be told."""
        running = list(self.running.values())
        spent = sum(map(sum, self._stages.values())) + sum(self.clock() - self._begun[of.label] for of in running)
        seconds = 0.0
        for training, stages in self._stages.items():
            own = [of for of in running if (of.label in self.untrained) == training]
            count = len(self.untrained) if training else sum(max(0, n) for n in self.unanswered.values())
            left = count - sum(of.done / max(1, of.total) for of in own)
            seconds += max(0.0, left) * (sum(stages) / len(stages) if stages else 0.0)
        return seconds * (self.clock() - self.began) / spent if spent else 0.0

    def _say(self) -> None:
        now = self.clock()
        if now - self.said < EVERY:
            return
        self.said = now
        running = [f"{of.label}: {of.stage} {of.done}/{of.total}" for of in list(self.running.values())]
        least = "about" if self._stages[False] or not self.unanswered.total() else "at least"
        time_left = f", {least} {timedelta(seconds=round(left))} left" if (left := self._left()) else ""
        what = f" ({', '.join(running[:SHOWN])}{', …' if len(running) > SHOWN else ''})" if running else ""
        line = (
            f"{self.done} of {self.cells} cells done, {len(running)} running{what},"
            f" {self.cells - self.done} to go{time_left}"
        )
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


class Display:
    """In a terminal a bar for the run and one for each stage that is running, elsewhere a line every few seconds."""

    def __init__(self, cells: int, trainings: Iterable[str], answers: Mapping[str, int], console: Console) -> None:
        self.lines = None if console.is_terminal else ProgressLines(cells, trainings, answers, console)
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
        if self.lines is not None:
            self.lines.event(event)

    def cell(self, label: str) -> None:
        """Count a cell as finished."""
        self._drop(label)
        self.bars.advance(self.total)
        if self.lines is not None:
            self.lines.cell(label)

    def _drop(self, label: str) -> None:
        if label in self.stages:
            self.bars.remove_task(self.stages.pop(label)[1])
