"""Jobs on the machines of a Ray cluster: workers placed by what they need, replaced where a machine is lost."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from ..errors import JobError, UserError, WorkerLost, first_line
from ..jobs.job import Job
from ..runtime import OnEvent
from ..transforms.base import BuildJob
from ._ray import TICK, RayWorker, amounts, connect, ended, needs, noted, unstarted
from ._worker import relay
from .base import ClusterExecutor, register

STARTS = 3
"""Workers of a model that may end while they start, one after the other, before its jobs fail."""

GRACE = 10.0
"""Seconds that Ray has to end what was started, where a run is interrupted."""

LOGS_OF_RAY = "Ray's own logs on that machine say more (session_latest/logs in its temporary folder)"


@dataclass
class RayTask:
    """A job on its way, with what it takes of Ray's resources."""

    job: Job
    future: Future[None]
    needs: Mapping[str, float]

    @property
    def model(self) -> str:
        """Digest of its model."""
        return self.job.model.digest


@dataclass
class Slot:
    """A worker and what it is at.

    Attributes:
        model: digest of the model whose jobs it takes.
        ref: what is waited for; None where it is idle.
        node: id and address of its machine, once it started.
        kind: of its last job; one that trains goes on training as long as there is something to train.
        ends: when its job has run for too long.
    """

    actor: Any
    model: str
    ref: Any
    node: tuple[str, str] | None = None
    task: RayTask | None = None
    kind: type[Job] = BuildJob
    ends: float | None = None
    in_doubt: bool = False


@register("ray")
class RayExecutor(ClusterExecutor):
    """One actor a worker, of one model each, so that an engine is placed once and serves all that its worker measures.

    A worker trains all that waits for training before it measures. Ray places it where there are free processors (the
    suite's threads), a free GPU (as many as the engine shares a model among) and, without GPUs, the main memory that
    the plan's estimate says. One thread owns all state and talks to Ray, whose messages go to standard error. A job
    whose machine is lost is run again elsewhere; an error of its own, or a crash of its process, is the cell's.
    """

    summary = "the machines of a Ray cluster (--address)"

    def __init__(self, workers: int, report: OnEvent, address: str = "auto") -> None:
        self.workers, self.report = workers, report
        self._ray, self._connected = connect(address)
        self._stdout = redirect_stdout(sys.stderr)
        self._stdout.__enter__()
        here = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            self._ray.get_runtime_context().get_node_id(), soft=False
        )
        self._events = self._ray.util.queue.Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        self._next_event = self._events.actor.get.remote()
        self._worker, self._version = self._ray.remote(RayWorker), version("unlearn-bench")
        self._inbox: deque[RayTask] = deque()
        self._queue: list[RayTask] = []
        self._slots: list[Slot] = []
        self._ended_early: Counter[str] = Counter()
        self._closing = self._now = False
        self._over = threading.Event()
        self._gone: Exception | None = None
        threading.Thread(target=self._serve, daemon=True).start()

    def device(self, asked: str) -> str:
        """Return the device of the workers: `auto` is the GPU where a machine of the cluster has one."""
        kind = asked.partition(":")[0]
        gpus = any(resources.get("GPU") for resources in self._machines().values())
        if kind == "cuda" and not gpus:
            raise UserError("No machine of the Ray cluster has a GPU; use --device cpu or auto.")
        return ("cuda" if gpus else "cpu") if kind == "auto" else kind

    def submit(self, job: Job) -> Future[None]:
        """Queue a job; it runs as soon as Ray places a worker for it."""
        job = replace(job, config=replace(job.config, store=job.config.store.resolve()))
        future: Future[None] = Future()
        self._inbox.append(RayTask(job, future, needs(job)))
        if self._gone is not None:
            with suppress(InvalidStateError):
                future.set_exception(self._gone)
        return future

    def close(self, *, now: bool = False) -> None:
        """Wait for the jobs, or end their processes at once; a cluster that runs stays, one of this run alone ends.

        That takes up to `GRACE` seconds, and no interrupt makes it shorter: Ray would leave processes behind. Where the
        head does not answer in that time, Ray would hang when this process exits; it exits without Ray.
        """
        self._closing, self._now = True, now
        try:
            if not now:
                self._over.wait()
        except KeyboardInterrupt:
            self._now = True
            raise
        finally:
            ends = time.monotonic() + GRACE
            while not self._over.is_set() and time.monotonic() < ends:
                with suppress(KeyboardInterrupt):
                    self._over.wait(TICK)
            if not self._over.is_set():
                atexit.register(os._exit, 130)
            self._stdout.__exit__(None, None, None)

    def _serve(self) -> None:
        """Place jobs and take what comes, until all is done or the end is asked for."""
        try:
            while not self._now and not (self._closing and not self._tasks()):
                while self._inbox:
                    self._queue.append(self._inbox.popleft())
                self._place()
                waited = [slot.ref for slot in self._slots if slot.ref is not None]
                done, _ = self._ray.wait([*waited, self._next_event], timeout=TICK)
                for ref in done:
                    self._attend(ref)
                self._end_overdue()
        except Exception as error:
            self._gone = WorkerLost(f"the Ray cluster is gone: {first_line(error)}")
            self._gone.__cause__ = error
        finally:
            tasks = self._tasks()
            for slot in list(self._slots):
                with suppress(Exception):
                    self._end(slot)
            for task in tasks:
                task.future.set_exception(self._gone or CancelledError())
            if self._connected:
                self._ray.shutdown()
            self._over.set()

    def _tasks(self) -> list[RayTask]:
        """Return all jobs that are not done."""
        return [*self._inbox, *self._queue, *(slot.task for slot in self._slots if slot.task is not None)]

    def _place(self) -> None:
        """Give jobs to idle workers, and ask Ray for more where jobs are left; end those that have nothing to do."""
        for slot in self._slots:
            if slot.ref is None and slot.node is not None:
                self._give(slot)
        waiting = Counter(task.model for task in self._queue)
        for slot in list(self._slots):
            starting = sum(other.model == slot.model and other.node is None for other in self._slots)
            idle = slot.ref is None and slot.model not in waiting and bool(waiting)
            if idle or (slot.node is None and starting > waiting[slot.model]):
                self._end(slot)
        while len(self._slots) < self.workers:
            slots = Counter(slot.model for slot in self._slots)
            starting = Counter(slot.model for slot in self._slots if slot.node is None)
            wanted = [task for task in self._queue if starting[task.model] < waiting[task.model]]
            if not wanted:
                return
            task = min(wanted, key=lambda task: slots[task.model])
            lacking = self._lacking(task)
            if lacking is None:
                self._start(task)
            else:
                self._fail(task.model, UserError(lacking))
                waiting = Counter(task.model for task in self._queue)

    def _give(self, slot: Slot) -> None:
        own = [task for task in self._queue if task.model == slot.model]
        if own:
            task = next((task for task in own if isinstance(task.job, slot.kind)), own[0])
            self._queue.remove(task)
            slot.task, slot.kind = task, type(task.job)
            limit = task.job.config.time_limit
            slot.ends = None if limit is None else time.monotonic() + limit
            slot.ref = slot.actor.run.remote(task.job)

    def _start(self, task: RayTask) -> None:
        actor_class = self._worker.options(
            num_cpus=task.needs["CPU"],
            num_gpus=task.needs.get("GPU", 0),
            memory=task.needs.get("memory"),
            max_restarts=0,
            max_task_retries=0,
        )
        actor = actor_class.remote(self._events)
        started = actor.start.remote(task.job.config.store, os.getcwd(), self._version)
        self._slots.append(Slot(actor, task.model, started))

    def _machines(self) -> dict[str, dict[str, float]]:
        """Return the resources of each machine that is there, by its id."""
        return {node["NodeID"]: node["Resources"] for node in self._ray.nodes() if node["Alive"]}

    def _lacking(self, task: RayTask) -> str | None:
        """Return what to say where no machine will ever have what a job needs."""
        machines = self._machines().values()
        if any(all(has.get(name, 0) >= much for name, much in task.needs.items()) for has in machines):
            return None
        largest = {name: max((has.get(name, 0) for has in machines), default=0) for name in task.needs}
        return (
            f"Jobs of {task.job.model.name} need {amounts(task.needs)} on one machine, and none of the"
            f" {len(machines)} of the Ray cluster has that (the most of each: {amounts(largest)}). Add one that has, or"
            " ask for less: "
            f"{'a smaller tensor_parallel_size' if 'GPU' in task.needs else 'a smaller --batch-size, --checkpointing'}."
        )

    def _attend(self, ref: Any) -> None:
        """Take what came: reports, or that a worker started, finished, failed or is lost."""
        errors = self._ray.exceptions
        if ref == self._next_event:
            for event in [self._ray.get(ref), *self._events.get_nowait_batch(self._events.qsize())]:
                relay(event, self.report)
            self._next_event = self._events.actor.get.remote()
            return
        slot = next(slot for slot in self._slots if slot.ref == ref)
        slot.ref = None
        try:
            answer = self._ray.get(ref)
        except errors.RayTaskError as error:
            self._end(slot)
            self._fail(slot.model, error.cause if isinstance(error.cause, UserError) else unstarted(error))
        except errors.ActorUnavailableError:
            slot.ref, slot.in_doubt = slot.actor.ping.remote(), True
        except errors.RayError as error:
            self._lost(slot, error)
        else:
            self._answered(slot, answer)

    def _answered(self, slot: Slot, found: Any) -> None:
        """Go on after an answer: of a start, of a job, or of a worker that could not be reached for a while."""
        if slot.in_doubt and slot.task is not None:
            slot.in_doubt, slot.ref = False, slot.actor.run.remote(slot.task.job)
        elif slot.in_doubt:
            self._end(slot)
        elif slot.task is None:
            slot.node = found
            self._ended_early[slot.model] = 0
        else:
            task, slot.task = slot.task, None
            if isinstance(found, JobError):
                self._end(slot)
            if found is None:
                task.future.set_result(None)
            else:
                task.future.set_exception(noted(found, task.job))

    def _lost(self, slot: Slot, error: Exception) -> None:
        """Put the job of a lost machine back in front; where the process alone ended, the job failed."""
        self._end(slot)
        ident, address = slot.node or ("", "")
        if slot.task is None:
            self._ended_early[slot.model] += slot.node is None
            if self._ended_early[slot.model] >= STARTS:
                self._ended_early[slot.model] = 0
                self._fail(
                    slot.model,
                    WorkerLost(f"{STARTS} workers ended while they started: {ended(error, address)}; {LOGS_OF_RAY}"),
                )
        elif ident not in self._machines():
            logging.getLogger(__name__).warning("%s is lost; %s runs again.", address, slot.task.job.cell.label)
            self._queue.insert(0, slot.task)
        else:
            lost = WorkerLost(ended(error, address), passing="low on memory" in str(error))
            slot.task.future.set_exception(noted(lost, slot.task.job))

    def _end_overdue(self) -> None:
        for slot in list(self._slots):
            if slot.task is not None and slot.ends is not None and time.monotonic() > slot.ends:
                task, limit = slot.task, slot.task.job.config.time_limit
                self._end(slot)
                error = JobError(f"it was ended after {limit:g} s, its time limit; give it more with --time-limit")
                task.future.set_exception(noted(error, task.job))

    def _end(self, slot: Slot) -> None:
        self._slots.remove(slot)
        self._ray.kill(slot.actor)

    def _fail(self, model: str, error: Exception) -> None:
        """Fail the jobs of a model that wait."""
        failed = [task for task in self._queue if task.model == model]
        self._queue = [task for task in self._queue if task.model != model]
        for task in failed:
            task.future.set_exception(error)
