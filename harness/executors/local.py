"""Workers on this machine: one process each, or with one worker this process itself."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

from ..jobs import Event, Job, Report, run_job
from .base import Executor, register

_queue: Any = None


def _start(queue: Any) -> None:
    """Prepare a worker: progress goes to the queue, and an interrupt is the parent's business."""
    global _queue
    _queue = queue
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(job: Job) -> None:
    run_job(job, _queue.put)


@register("local")
class LocalExecutor(Executor):
    """Jobs in spawned processes; progress comes back through a queue."""

    summary = "processes on this machine"

    def __init__(self, workers: int, report: Report) -> None:
        self.report = report
        self.pool: ProcessPoolExecutor | None = None
        if workers > 1:
            context = multiprocessing.get_context("spawn")
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
            self.queue: Any = context.Queue()
            self.pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(self.queue,))
            self.listener = threading.Thread(target=self._listen, daemon=True)
            self.listener.start()

    def _listen(self) -> None:
        while isinstance(event := self.queue.get(), Event):
            self.report(event)

    def submit(self, job: Job) -> Future[None]:
        """Queue the job, or with one worker run it now."""
        if self.pool is not None:
            return self.pool.submit(_work, job)
        future: Future[None] = Future()
        try:
            future.set_result(run_job(job, self.report))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self, *, now: bool = False) -> None:
        """End the workers; with `now` queued jobs are dropped and running ones terminated."""
        if self.pool is None:
            return
        workers = list((self.pool._processes or {}).values()) if now else []
        self.pool.shutdown(wait=not now, cancel_futures=True)
        for worker in workers:
            worker.terminate()
        self.queue.put(None)
