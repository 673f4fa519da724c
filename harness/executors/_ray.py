"""What the Ray executor has on the cluster: the connection, and the actors that run jobs."""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any, TypeVar

from ..errors import JobError, UserError, first_line, redacted
from ..jobs.job import Job
from ..runtime import Event, printing_to
from ..store.entries import Store
from ._worker import outcome

LOGS = "logs"
"""The store's folder of what jobs printed, a file a cell."""
TAIL = 4000
"""Characters of it that are kept with a failure."""
PATIENCE = 10.0
"""Seconds until an address that does not answer is given up; Ray itself waits for minutes."""
TICK = 0.1
"""Seconds between two reports of a job, and until a new job is looked at."""

Told = TypeVar("Told", bound=BaseException)


def connect(address: str) -> tuple[Any, bool]:
    """Return Ray's module, and whether this call connected it: to a cluster that runs, or with `local` to a new one.

    Raises:
        UserError: Ray is not installed, or no cluster answers.
    """
    try:
        import ray
        import ray.exceptions
        import ray.util.queue
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise UserError(
            f"Executor ray needs Ray ({first_line(error)}): `pip install 'unlearn-bench[ray]'` on every machine."
        ) from error
    if ray.is_initialized():
        return ray, False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_COLOR_PREFIX", "0")
    own = {"include_dashboard": False, "object_store_memory": 2**27} if address == "local" else {}
    try:
        if re.fullmatch(r"[^/]+:\d+", address):
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), PATIENCE).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:
        if address == "local":
            raise UserError(
                f"Ray cannot start on this machine: {first_line(error)} Where it is busy, try again or use --executor"
                " local."
            ) from error
        raise UserError(
            f"No Ray cluster answers at {address!r}: {first_line(error)} Start one with `ray start --head` and run this"
            " command on a machine of it, or pass --address local to use this machine alone."
        ) from error
    return ray, True


def needs(job: Job) -> dict[str, float]:
    """Return what a worker for a job takes of Ray's resources: processors; GPUs, or main memory in bytes."""
    config = job.config
    taken: dict[str, float] = {"CPU": config.threads}
    if config.device != "cpu":
        shared = ("tensor_parallel_size", "pipeline_parallel_size")
        taken["GPU"] = prod(int(config.engine_options.get(name, 1)) for name in shared)
    elif job.model.digest in config.memory:
        taken["memory"] = config.memory[job.model.digest]
    return taken


def amounts(taken: Mapping[str, float]) -> str:
    """Return amounts of Ray's resources in words."""
    words = [f"{taken[name]:g} {name}{'s' * (taken[name] != 1)}" for name in ("CPU", "GPU") if name in taken]
    return ", ".join([*words, *(f"{much / 2**30:.1f} GiB of memory" for much in [taken.get("memory")] if much)])


def ended(error: BaseException, address: str) -> str:
    """Return why the process of a worker ended, as far as Ray says."""
    match = re.search(r"Worker exit detail: (.+?)(?: Some common causes| \([0-9]\)|\n|$)", str(error))
    detail = (match[1] if match else str(error).strip().splitlines()[-1]).rstrip(". ")
    return f"the process of its worker on {address or 'the cluster'} ended: {detail}"


def unstarted(error: BaseException) -> JobError:
    """Return what to say where a worker raised an error while it started."""
    text = (str(error).strip() or type(error).__name__).splitlines()[-1].rstrip(".")
    fault = JobError(f"a worker could not start ({text}): is unlearn-bench installed on every machine of the cluster?")
    fault.__cause__ = error
    return fault


def log_of(job: Job) -> Path:
    """Return the file that a cell's jobs print to."""
    return job.config.store / LOGS / f"{job.cell.id}.log"


def noted(error: Told, job: Job) -> Told:
    """Add where a job's log is, and its end, to an error."""
    path = log_of(job)
    if text := _clean(path):
        error.add_note(f"Its process printed, as {path} keeps it:\n{text[-TAIL:]}")
    return error


def _clean(path: Path) -> str:
    """Return a log's text; take secrets out of the file, and the file away where nothing was printed."""
    with suppress(OSError):
        text = path.read_text(encoding="utf-8", errors="replace")
        if not text:
            path.unlink()
        elif (safe := redacted(text)) != text:
            path.write_text(safe, encoding="utf-8")
        return redacted(text)
    return ""


class RayWorker:
    """An actor: one process on a machine of the cluster, which keeps a model's engine between its jobs."""

    def __init__(self, events: Any) -> None:
        self._events, self._told, self._stage = events, 0.0, ("", "")

    def start(self, store: Path, folder: str, expected: str) -> tuple[str, str]:
        """Go to the folder that relative paths start from, where it is there; return the node's id and address.

        Raises:
            UserError: the store is not seen from here, or another version of unlearn-bench is installed.
        """
        import ray
        import ray.util

        address, release = ray.util.get_node_ip_address(), version("unlearn-bench")
        if release != expected:
            raise UserError(
                f"Machine {address} of the Ray cluster has unlearn-bench {release}, the driver {expected}: install the"
                " same on every machine."
            )
        with suppress(OSError):
            os.chdir(folder)
        try:
            Store.open(store)
        except UserError as error:
            raise UserError(
                f"Machine {address} of the Ray cluster does not see the store {store}: pass an --output that every"
                " machine reaches by the same path."
            ) from error
        return ray.get_runtime_context().get_node_id(), address

    def run(self, job: Job) -> Exception | None:
        """Run a job, what it prints goes to the cell's log; return what it raised."""
        path = log_of(job)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as log, printing_to(log):
            error = outcome(job, self._report)
        _clean(path)
        return error

    def ping(self) -> None:
        """Answer, once no job is running."""

    def _report(self, event: Event | logging.LogRecord) -> None:
        if isinstance(event, logging.LogRecord):
            self._events.actor.put.remote(event)
            return
        stage, now = (event.label, event.stage), time.monotonic()
        if stage != self._stage or event.done >= event.total or now - self._told >= TICK:
            self._events.actor.put.remote(event)
            self._stage, self._told = stage, now
