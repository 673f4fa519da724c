"""The contract of an executor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Future
from typing import ClassVar

from ..jobs import Job, Report
from ..registry import Registry

executors: Registry[type[Executor]] = Registry("executor", "unlearn_bench.harness.executors", "unlearn_bench.executors")
register = executors.register


class Executor(ABC):
    """Runs jobs and reports their progress; used as a context manager."""

    summary: ClassVar[str]

    @abstractmethod
    def __init__(self, workers: int, report: Report) -> None:
        """Prepare `workers` workers; `report` is called in this process."""

    @abstractmethod
    def submit(self, job: Job) -> Future[None]:
        """Start or queue a job; its future raises what the job raised."""

    @abstractmethod
    def close(self, *, now: bool = False) -> None:
        """Wait for running jobs, or with `now` end them; nothing finished is lost."""

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.close(now=kind is not None)
