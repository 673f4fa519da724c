"""Jobs: what a worker does. A job is plain data; everything it makes goes to the store."""

from __future__ import annotations

import platform
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .cells import CellSpec
from .files import atomic, file_sha256, write_jsonl
from .models import ModelSpec
from .plan import PlannedTask
from .store import DELTA, Entry, Store
from .suite import CorporaSpec


@dataclass(frozen=True)
class Event:
    """Progress of a job: `done` of `total` steps or items of a stage."""

    label: str
    stage: str
    done: int
    total: int


Report = Callable[[Event], None]

COSTS = ("seconds", "peak_memory_mib", "peak_gpu_memory_mib")
"""What is recorded of a job's time and memory; the last is absent where no GPU was used."""


@dataclass(frozen=True)
class Place:
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


@dataclass(frozen=True)
class MakeJob:
    """Make one checkpoint from its cell; with `wait`, after another process that is at it."""

    place: Place
    model: ModelSpec
    cell: CellSpec
    corpora: CorporaSpec | None = None
    folder: Path | None = None
    wait: bool = False


@dataclass(frozen=True)
class MeasureJob:
    """Run tasks on one finished checkpoint (an import in its `folder`) and score the answers; `wait` as above."""

    place: Place
    model: ModelSpec
    cell: CellSpec
    tasks: tuple[PlannedTask, ...]
    engine: str
    folder: Path | None = None
    wait: bool = False


Job = MakeJob | MeasureJob


def run_job(job: Job, report: Report) -> None:
    """Run a job in this process with the threads that its place asks for."""
    import torch

    torch.set_num_threads(job.place.threads)
    if job.place.device != "cpu":
        torch.cuda.reset_peak_memory_stats(job.place.device)
    if isinstance(job, MakeJob):
        make(job, report)
    else:
        from .measure import measure

        measure(job, report)


def make(job: MakeJob, report: Report) -> None:
    """Make a checkpoint by its transform and commit it, where it is not finished: training log, delta, manifest.

    Raises:
        Busy: another process is making it and the job does not wait.
    """
    entry = Store.open(job.place.store).entry("cells", job.cell.id)
    with entry.claim(wait=job.wait):
        if entry.manifest() is None:
            _make(job, entry, report)


def _make(job: MakeJob, entry: Entry, report: Report) -> None:
    from .deltas import save_delta
    from .transforms.base import transforms

    started = time.perf_counter()
    made = transforms.get(job.cell.transform)().make(job, report)
    facts: dict[str, Any] = {"cell": job.cell.model_dump(mode="json"), "summary": made.summary}
    files: dict[str, Callable[[Path], Any] | None] = {"training.jsonl": lambda path: write_jsonl(path, made.log)}
    if made.imported is None:
        with atomic(entry.file(DELTA)) as staged:
            save_delta(staged, made.delta, job.model.torch_dtype, made.decoding)
        facts["delta"] = file_sha256(entry.file(DELTA))
        files[DELTA] = None
    else:
        facts |= {"delta": made.imported[0], "pointer": made.imported[1]}
    entry.commit(files, {**facts, "recorded": recorded(job.place, started - made.before)})


def maker(place: Place) -> dict[str, Any]:
    """Return what makes results here: threads, versions, machine."""
    import torch
    import transformers

    return {
        "threads": torch.get_num_threads(),
        "device": "cpu" if place.device == "cpu" else torch.cuda.get_device_name(place.device),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": platform.machine(),
    }


def recorded(place: Place, started: float) -> dict[str, Any]:
    """Return what is kept beside a result: what made it, time and memory."""
    import torch

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    on_gpu = place.device != "cpu"
    allocated = {"peak_gpu_memory_mib": round(torch.cuda.max_memory_allocated(place.device) / 2**20)} if on_gpu else {}
    return {
        **maker(place),
        "seconds": round(time.perf_counter() - started, 3),
        "peak_memory_mib": round(peak),
        **allocated,
    }
