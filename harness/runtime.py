"""How jobs run: where, on what, and what is recorded beside a result."""

from __future__ import annotations

import platform
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


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


@dataclass(frozen=True)
class RunConfig:
    """Where and how jobs run; no say in any result but through what is recorded. A job may take `time_limit` seconds.

    `memory`: bytes of main memory that a worker takes, by the digest of its model; empty where nobody needs to know.
    """

    store: Path
    device: str
    threads: int
    batch_size: int
    engine_options: Mapping[str, Any] = field(default_factory=dict)
    checkpointing: bool = False
    time_limit: float | None = None
    memory: Mapping[str, int] = field(default_factory=dict)


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
