"""No worker at all: for debugging, and for what is registered in this process only (a notebook, a test)."""

from __future__ import annotations

import time
from concurrent.futures import Future

from ..errors import UserError
from ..jobs.job import Job
from ..jobs.worker import run_job
from ..runtime import OnEvent
from .base import Executor, register


@register("inline")
class InlineExecutor(Executor):
    """Jobs in this process, one after the other: a debugger works, and a crash ends the run."""

    summary = "this process itself, one cell after the other: for debugging, without isolation or limits"
    in_process = True
    slots = 1

    def __init__(self, workers: int, report: OnEvent) -> None:
        self.report = report

    def submit(self, job: Job) -> Future[None]:
        """Run the job now.

        Raises:
            UserError: the job has a time limit.
        """
        if job.config.time_limit is not None:
            raise UserError("A time limit needs a process that can be ended; leave out --executor inline.")
        future: Future[None] = Future()
        try:
            future.set_result(run_job(job, self.report))
        except Exception as error:
            future.set_exception(error)
        return future

    @classmethod
    def core_seconds(cls) -> float:
        """Return the processor time of this process."""
        return time.process_time()

    def close(self, *, now: bool = False) -> None:
        """Do nothing: no job is running."""
