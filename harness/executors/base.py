"""The contract of an executor."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ClassVar, TypeVar

from ..jobs.job import Job
from ..registry import Registry
from ..runtime import OnEvent

T = TypeVar("T")
executors: Registry[type[Executor]] = Registry("executor", "unlearn_bench.harness.executors", "unlearn_bench.executors")
register = executors.register


class Executor(ABC):
    """Runs jobs and reports their progress; used as a context manager.

    A job may fail, crash or be killed without harm to others. One that runs for more than `job.config.time_limit`
    seconds (None: no limit) is ended, and its future raises a `JobError` that says so.

    Attributes:
        slots: how many jobs it runs at once. The runner submits no more than that and keeps the rest in order; an
            executor that queues and places jobs by itself leaves it as it is.
        in_process: whether jobs run in this process, which has every class that is registered here.
    """

    summary: ClassVar[str]
    in_process: ClassVar[bool] = False
    slots: int = sys.maxsize

    @abstractmethod
    def __init__(self, workers: int, report: OnEvent) -> None:
        """Prepare `workers` workers; `report` is called in this process."""

    @classmethod  # noqa: B027
    def prepare(cls) -> None:
        """Begin in the background what takes time and needs no plan; called while a run is planned."""

    @classmethod
    def call(cls, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function of a module of this package where the libraries are loaded: here, or in another process."""
        return function(*arguments)

    @abstractmethod
    def submit(self, job: Job) -> Future[None]:
        """Start or queue a job; its future raises its error: `UserError`, `EntryLocked`, `WorkerLost`, another."""

    @classmethod
    def core_seconds(cls) -> float | None:
        """Return the processor time, in seconds, of this process and of the workers that it had; None: not known."""
        return None

    def rest(self) -> None:  # noqa: B027
        """Free the memory that idle workers hold, where that is known; called before a job that runs alone."""

    @abstractmethod
    def close(self, *, now: bool = False) -> None:
        """Wait for running jobs, or with `now` end them within seconds; nothing finished is lost.

        With `now` an interrupt in the meantime ends them at once. No process is left behind.
        """

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.close(now=kind is not None)


class ClusterExecutor(Executor):
    """Runs jobs on the machines of a cluster, by what they need: their `config` says what memory a model takes."""

    @abstractmethod
    def __init__(self, workers: int, report: OnEvent, address: str = "auto") -> None:
        """Connect to the cluster at an address and run at most so many jobs at once, fewer where it holds fewer."""

    @abstractmethod
    def device(self, asked: str) -> str:
        """Return what device the machines of the cluster have for a run that asks for one, or `auto`.

        Raises:
            UserError: none of them has it.
        """
