"""How jobs run: where, on what, and what is recorded beside a result."""

from __future__ import annotations

import logging
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

PROJECT = __name__.partition(".")[0]
"""The logger above all of the project's."""
BOARD_SEED = 0
"""With what boards' methods are trained, unless other seeds are asked for."""
TUNING_SEED = 1000
"""With what a study's trials are trained: no board has it unless asked, so settings are not fitted to its draws."""


@dataclass(frozen=True)
class Event:
    """Progress of a job: `done` of `total` steps or items of a stage."""

    label: str
    stage: str
    done: int
    total: int


OnEvent = Callable[[Event], None]
COSTS = ("seconds", "peak_memory_mib", "peak_gpu_memory_mib")
"""What is recorded of a job's time and memory; the last is absent where no GPU was used."""
PEAK, UNIFORM = "peak_nats", "uniform_nats"
"""In the summary of a training by ascent: the largest loss of the forget text, nats a token, and ln |V|."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a user wants a run to go; no say in any result but through what is recorded.

    Attributes:
        executor: what runs the jobs, by its registered name.
        address: of the cluster whose machines run them (executor `ray`).
        workers: jobs at once; None: as many as fit.
        device: `cpu`, `cuda` or `auto`.
        batch_size: sequences that are evaluated together; in half precision answers follow it.
        checkpointing: train with less memory and the same results, from the start instead of where memory ends.
        time_limit: seconds that a job may take, after which it is ended and has failed; None: no limit.
    """

    executor: str = "local"
    address: str | None = None
    workers: int | None = None
    device: str = "auto"
    batch_size: int = 64
    checkpointing: bool = False
    time_limit: float | None = None


@dataclass(frozen=True, kw_only=True)
class RunConfig(RunOptions):
    """The options of a run as its jobs get them: `device` is one that is there.

    Attributes:
        store: folder of the store.
        threads: of each worker.
        engine_options: what the engine is started with.
        memory: bytes of main memory that a worker takes, by the digest of its model; empty where nobody needs to know.
        classes: methods and tasks that a worker cannot know, of `planning.classes.pack`.
        log_level: the least that a worker sends on of what it logs.
    """

    store: Path
    threads: int
    engine_options: Mapping[str, Any] = field(default_factory=dict)
    memory: Mapping[str, int] = field(default_factory=dict)
    classes: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    log_level: int = logging.WARNING


def environment_facts(config: RunConfig) -> dict[str, Any]:
    """Return what makes results here: threads, versions, machine."""
    import torch
    import transformers

    return {
        "threads": torch.get_num_threads(),
        "device": "cpu" if config.device == "cpu" else torch.cuda.get_device_name(config.device),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": platform.machine(),
    }


def recorded_facts(config: RunConfig, started: float) -> dict[str, Any]:
    """Return what is kept beside a result: what made it, time and memory."""
    import torch

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    on_gpu = config.device != "cpu"
    allocated = {"peak_gpu_memory_mib": round(torch.cuda.max_memory_allocated(config.device) / 2**20)} if on_gpu else {}
    return {
        **environment_facts(config),
        "seconds": round(time.perf_counter() - started, 3),
        "peak_memory_mib": round(peak),
        **allocated,
    }


@contextmanager
def printing_to(log: IO[bytes]) -> Iterator[None]:
    """Send what this process prints, native code included, to a file; what it starts meanwhile prints there as well."""
    streams = {number: os.dup(number) for number in (1, 2)}
    for number in streams:
        os.dup2(log.fileno(), number)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, before in streams.items():
            os.dup2(before, number)
            os.close(before)
