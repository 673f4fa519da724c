"""Workers on this machine: processes that keep models between jobs and can be lost one at a time."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import timedelta
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import send_handle
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from ..errors import JobError, WorkerLost
from ..jobs.job import Job
from ..runtime import Event, OnEvent
from . import _worker
from .base import Executor, T, register

logger = logging.getLogger(__name__)

HARNESS = __name__.rsplit(".", 2)[0]
NEEDED = (f"{HARNESS}.jobs.evaluate", f"{HARNESS}.transforms.train", f"{HARNESS}.engines.transformers")
"""What every worker imports: once, in the process that workers are forked from."""
GRACE = 2.0
"""Seconds that a worker has to end when it is told to."""
REST = 30.0
"""Seconds that an idle worker has to close its engines when a run is over."""
LINES, WIDTH = 60, 300
"""How much is kept of what a failed job's process printed: last lines, characters of each."""

os.register_at_fork(after_in_child=lambda: setattr(forkserver._forkserver, "_forkserver_pid", None))
"""A fork of this process has no such process yet; multiprocessing would take that of its parent for its own."""


class LocalWorker:
    """A process and the job that it is at."""

    def __init__(self) -> None:
        context = get_context("forkserver")
        self.log, self.start, self.deadline = TemporaryFile(), 0, float("inf")  # noqa: SIM115
        self.job: Job | None = None
        self.future: Future[None] | None = None
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_worker.serve, args=(theirs, dict(os.environ)))
        with _only_a_script():
            self.process.start()
        send_handle(self.pipe, self.log.fileno(), self.process.pid)
        theirs.close()

    def give(self, job: Job, future: Future[None]) -> None:
        """Let it begin a job."""
        self.job, self.future = job, future
        self.start = self._size()
        self.deadline = time.monotonic() + (job.config.time_limit or float("inf"))
        with suppress(OSError):
            self.pipe.send(job)

    def settle(self, error: Exception | None) -> None:
        """Tell the job's end to who waits for it, with what the process printed since the job began."""
        future, self.job, self.future, self.deadline = self.future, None, None, float("inf")
        if future is None:
            return
        if error is None:
            future.set_result(None)
            return
        if printed := self._printed():
            error.add_note(f"Its process printed last:\n{printed}")
        future.set_exception(error)

    def _size(self) -> int:
        return os.fstat(self.log.fileno()).st_size

    def _printed(self) -> str:
        """Return the end of what was printed since the job began; the place where the process writes stays."""
        most = LINES * WIDTH
        raw = os.pread(self.log.fileno(), most, max(self.start, self._size() - most))
        return "\n".join(line[:WIDTH] for line in raw.decode(errors="replace").splitlines()[-LINES:])

    def signal(self, number: int) -> None:
        """Send a signal to the process and to all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid or 0, number)
        if self.process.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.process.pid or 0, number)

    def kill(self) -> None:
        """End it at once, and what it started."""
        self.signal(signal.SIGKILL)
        self.process.join()
        self.pipe.close()

    def where(self) -> None:
        """Let it print where it stands."""
        with suppress(ProcessLookupError):
            os.kill(self.process.pid or 0, _worker.WHERE)
        self.process.join(0.3)


@contextmanager
def _only_a_script() -> Iterator[None]:
    """Let a new process import what started this one only where that is a file, as a program on standard input is not.

    What it needs of such a program comes with its jobs.
    """
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file is None or os.path.exists(file):
        yield
        return
    del main.__file__
    try:
        yield
    finally:
        main.__file__ = file


@register("local")
class LocalExecutor(Executor):
    """Jobs in processes forked from one that has imported everything; a thread hands them out and hears of their end.

    A worker that dies, runs out of time or raises what nobody foresaw is replaced; it costs its own job only.
    """

    summary = "processes on this machine"

    def __init__(self, workers: int, report: OnEvent) -> None:
        self.slots, self.report = workers, report
        self.waiting: deque[tuple[Job, Future[None]]] = deque()
        self.workers: list[LocalWorker] = []
        self.stopped = self.resting = False
        self.rung, self.bell = get_context().Pipe(duplex=False)
        self.dispatcher = threading.Thread(target=self._dispatch, daemon=True)
        self.dispatcher.start()
        atexit.register(self._kill)

    @classmethod
    def prepare(cls) -> None:
        """Start the process that workers are forked from; no interrupt hits it."""
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        forkserver.set_forkserver_preload(list(NEEDED))
        path, signals = os.environ.get("PYTHONPATH"), signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)
            os.environ.pop("PYTHONPATH")
            if path is not None:
                os.environ["PYTHONPATH"] = path

    @classmethod
    def call(cls, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function here where transformers is loaded, else in a process forked from that which loads it."""
        if "transformers" in sys.modules:
            return function(*arguments)
        cls.prepare()
        with _only_a_script(), futures.ProcessPoolExecutor(1, get_context("forkserver")) as pool:
            return pool.submit(function, *arguments).result()

    @classmethod
    def core_seconds(cls) -> float | None:
        """Return the processor time of this process, of that which workers are forked from and of those that ended."""
        server = forkserver._forkserver._forkserver_pid  # pyright: ignore[reportAttributeAccessIssue]
        own = time.process_time()
        if server is None:
            return own
        try:
            fields = Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return own + sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def submit(self, job: Job) -> Future[None]:
        """Queue the job."""
        future: Future[None] = Future()
        self.waiting.append((job, future))
        self.bell.send_bytes(b".")
        return future

    def rest(self) -> None:
        """Have idle workers ended before the next job begins; new ones take their place when they are needed."""
        self.resting = True

    def close(self, *, now: bool = False) -> None:
        """End the workers; with `now` running jobs are ended too, an interrupt in the meantime kills them."""
        try:
            if not now:
                queued = [future for _, future in list(self.waiting)]
                futures.wait([*queued, *(begun for worker in list(self.workers) if (begun := worker.future))])
            self.stopped = True
            self.bell.send_bytes(b".")
            self.dispatcher.join(GRACE)
            for worker in self.workers:
                if now:
                    worker.signal(signal.SIGTERM)
                else:
                    with suppress(OSError):
                        worker.pipe.send(None)
            self._join(GRACE if now else REST)
        finally:
            self._kill()
            atexit.unregister(self._kill)

    def _join(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        for worker in self.workers:
            worker.process.join(max(0.0, ends - time.monotonic()))

    def _kill(self) -> None:
        self.stopped = True
        while self.workers:
            self.workers.pop().kill()

    def _dispatch(self) -> None:
        while not self.stopped:
            self._hand_out()
            soon = min((worker.deadline for worker in self.workers), default=float("inf"))
            timeout = None if soon == float("inf") else max(0.0, soon - time.monotonic())
            ends = [end for worker in self.workers for end in (worker.pipe, worker.process.sentinel)]
            wait([self.rung, *ends], timeout)
            while self.rung.poll():
                self.rung.recv_bytes()
            for worker in list(self.workers) if not self.stopped else ():
                self._look_at(worker)

    def _hand_out(self) -> None:
        """Give waiting jobs to idle workers, and to new ones where there may be more."""
        if self.resting:
            self.resting = False
            for idle in [worker for worker in self.workers if worker.job is None]:
                self.workers.remove(idle)
                idle.kill()
        while self.waiting and not self.stopped:
            worker = next((worker for worker in self.workers if worker.job is None), None)
            if worker is None and len(self.workers) >= self.slots:
                return
            job, future = self.waiting.popleft()
            try:
                worker = worker or self._new_worker()
            except (OSError, EOFError) as error:
                future.set_exception(JobError(f"no process can be started for it ({error or 'out of memory?'})"))
            else:
                worker.give(job, future)

    def _new_worker(self) -> LocalWorker:
        self.prepare()
        worker = LocalWorker()
        logger.debug("worker %s starts", worker.process.pid)
        self.workers.append(worker)
        if self.stopped:
            self._kill()
        return worker

    def _look_at(self, worker: LocalWorker) -> None:
        """Hear what a worker says; replace it where it died, ran out of time or raised what nobody foresaw."""
        limit = None
        ended = not worker.process.is_alive()
        try:
            for message in _messages(worker.pipe):
                if isinstance(message, Event | logging.LogRecord):
                    _worker.relay(message, self.report)
                else:
                    worker.settle(message)
                    ended = ended or isinstance(message, JobError)
        except (EOFError, OSError):
            worker.process.join(GRACE)
            ended = True
        if not ended and worker.job is not None and time.monotonic() >= worker.deadline:
            limit, ended = worker.job.config.time_limit, True
            worker.where()
        if ended:
            logger.debug("worker %s ends", worker.process.pid)
            self.workers.remove(worker)
            worker.kill()
            worker.settle(_cause(worker.process.exitcode or 0) if limit is None else _late(limit))


def _messages(pipe: Connection) -> Iterator[Event | logging.LogRecord | Exception | None]:
    while pipe.poll():
        yield pipe.recv()


def _late(limit: float) -> JobError:
    return JobError(
        f"it was ended at its time limit, {timedelta(seconds=limit)} (hours:minutes:seconds); give it more with"
        " --time-limit, or look up in failure.json of the cell's folder where it stood"
    )


def _cause(status: int) -> WorkerLost:
    """Return why a process ended before its job did, by its exit status, negative for a signal."""
    if status == -signal.SIGKILL:
        return WorkerLost(
            "its process was killed (signal 9); the machine may have run out of memory: use fewer --workers or a"
            " smaller --batch-size",
            passing=True,
        )
    where = "what it printed is in failure.json of the cell's folder"
    if status < 0:
        name = signal.Signals(-status).name
        return WorkerLost(f"its process crashed in native code or was ended (signal {-status}, {name}); {where}")
    return WorkerLost(f"its process ended with status {status}, which is for the method or a library to mend; {where}")
