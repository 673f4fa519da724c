"""The runner: brings a store to what a plan wants. Failures are collected and told at the end; the rest goes on."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path

from .errors import UserError
from .executors.base import Executor
from .jobs import Job, MakeJob, MeasureJob, Place
from .plan import Plan, PlannedCell
from .state import CellState, state_of
from .store import Store


@dataclass
class Runner:
    """Runs what a plan wants and the store lacks.

    Attributes:
        on_cell: called whenever a cell is finished or failed (with the cause).
    """

    plan: Plan
    store: Store
    executor: Executor
    place: Place
    on_cell: Callable[[PlannedCell, str | None], None] = lambda cell, cause: None
    failures: dict[str, str] = field(default_factory=dict)
    _running: dict[Future[None], tuple[PlannedCell, Job]] = field(default_factory=dict)

    def run(self) -> dict[str, str]:
        """Make and measure every cell; return the cause of failure by cell id."""
        noise = [cell for cell in self.plan.cells if cell.spec.transform == "noise"]
        for cell in self.plan.cells:
            if cell.spec.transform != "noise":
                self._advance(cell)
        while noise or self._running:
            for cell in list(noise):
                if not self._running or all(map(self._settled, cell.spec.parents)):
                    noise.remove(cell)
                    self._advance(self.plan.settle(cell, self.store))
            self._collect()
        return self.failures

    def _settled(self, parent: str) -> bool:
        """Return whether a checkpoint is made, or failed in this run."""
        return parent in self.failures or self.store.entry("cells", parent).manifest() is not None

    def _advance(self, cell: PlannedCell) -> None:
        """Start the next job of a cell: make it, then measure it; report it when nothing remains."""
        if cell.spec.transform == "noise" and not cell.spec.parents:
            self._failed(cell, UserError("no method finished, so there is nothing to match noise to"))
            return
        state = state_of(self.plan, cell, self.store)
        if state.finished:
            self.on_cell(cell, None)
            return
        job = self._measure(cell, state) if state.made else self._make(cell)
        self._running[self.executor.submit(job)] = (cell, job)

    def _make(self, cell: PlannedCell) -> MakeJob:
        track = self.plan.suite.tracks.get(cell.spec.track or "")
        folder = cell.folder or self.plan.data_folder
        return MakeJob(
            self.place,
            self.plan.models[cell.model],
            cell.spec,
            track.corpora if track else None,
            Path(folder) if folder else None,
        )

    def _measure(self, cell: PlannedCell, state: CellState) -> MeasureJob:
        tasks = tuple(self.plan.tasks[name] for name in state.missing)
        model = self.plan.models[cell.model]
        return MeasureJob(self.place, model, cell.spec, tasks, self.plan.engine)

    def _collect(self) -> None:
        """Wait for jobs to end and start what follows them."""
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        for future in done:
            cell, job = self._running.pop(future)
            error = future.exception() or self._left_undone(cell, job)
            if error is None:
                self._advance(cell)
            else:
                self._failed(cell, error)

    def _left_undone(self, cell: PlannedCell, job: Job) -> Exception | None:
        """Return an error where a job ended well and the store still lacks what it was for; it is not run again."""
        state = state_of(self.plan, cell, self.store)
        if state.finished or (isinstance(job, MakeJob) and state.made):
            return None
        lacking = "its checkpoint" if not state.made else f"records of {', '.join(state.missing)}"
        return RuntimeError(f"the job ended, but the store holds not {lacking}")

    def _failed(self, cell: PlannedCell, error: BaseException) -> None:
        cause = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        trace = "".join(traceback.format_exception(error))
        self.failures[cell.id] = cause
        self.store.entry("cells", cell.id).fail(cause, trace)
        self.on_cell(cell, cause)
