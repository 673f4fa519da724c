"""What runs in a worker process: job after job, as they come through a pipe; it ends with its parent."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from logging.handlers import QueueHandler
from multiprocessing import parent_process, set_start_method
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import recv_handle
from typing import Any

from ..errors import EntryLocked, JobError, UserError, redacted
from ..jobs.job import Job
from ..jobs.worker import run_job
from ..runtime import PROJECT, Event, OnEvent

WHERE = signal.SIGUSR1
"""Makes a worker print where each of its threads stands."""


def serve(pipe: Connection, environment: Mapping[str, str]) -> None:
    """Run jobs until None comes: events go back as they are, then what the job raised, or None.

    The process leads a group of its own, so that interrupts are its parent's business and what it starts ends with it.
    Libraries that start processes find the usual way to do so, not that in which this one was started.

    Args:
        pipe: to the parent; first comes the file that gets all that the process prints, what native code says of a
            crash included. It has no name, so that it goes with the last process that holds it, however that ends.
        environment: of the parent; that of the process that forked this one may be older.
    """
    os.setpgid(0, 0)
    os.environ.clear()
    os.environ.update(environment)
    set_start_method("fork", force=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    printed = recv_handle(pipe)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    faulthandler.enable()
    faulthandler.register(WHERE)
    threading.Thread(target=_follow_parent, daemon=True).start()
    while (job := pipe.recv()) is not None:
        pipe.send(outcome(job, pipe.send))


def _follow_parent() -> None:
    """End this process and what it started as soon as the parent is gone, however it went."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.killpg(0, signal.SIGKILL)


class Forwarder(QueueHandler):
    """Sends log records to the process that the job is of."""

    def __init__(self, send: Callable[[Any], None]) -> None:
        logging.Handler.__init__(self)
        self.send = send

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send a record, without secrets."""
        record.msg = redacted(record.msg)
        self.send(record)


@contextmanager
def _forwarded(level: int, report: Callable[[Any], None]) -> Iterator[None]:
    """Send log records of a level that shows more than warnings, which stay where this process prints."""
    if level >= logging.WARNING:
        yield
        return
    logger, handler = logging.getLogger(PROJECT), Forwarder(report)
    logger.setLevel(level)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def relay(message: Event | logging.LogRecord, report: OnEvent) -> None:
    """Hand on what a worker sends while it works: a log record to its logger, an event to `report`."""
    if isinstance(message, logging.LogRecord):
        logging.getLogger(message.name).handle(message)
    else:
        report(message)


def outcome(job: Job, report: Callable[[Any], None]) -> Exception | None:
    """Run a job; return what it raised, in a form that another process can read, with its traceback as a note."""
    try:
        with _forwarded(job.config.log_level, report):
            run_job(job, report)
    except BaseException as error:
        if isinstance(error, EntryLocked):
            return EntryLocked(str(error))
        if isinstance(error, UserError):
            failure = UserError(str(error), status=error.status)
        else:
            failure = JobError(str(error) if isinstance(error, JobError) else f"{type(error).__name__}: {error}")
        failure.add_note(f"In its worker:\n{traceback.format_exc().rstrip()}")
        return failure
    return None
