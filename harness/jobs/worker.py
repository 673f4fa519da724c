"""Runs a job in a worker: a checkpoint is made, or evaluated."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import TrainingError
from ..planning.classes import unpack
from ..runtime import OnEvent, recorded_facts
from ..store.entries import DELTA, Entry, Store
from ..store.files import atomic, file_sha256, write_jsonl
from ..transforms.base import BuildJob
from .job import EvalJob, Job

logger = logging.getLogger(__name__)


def run_job(job: Job, report: OnEvent) -> None:
    """Run a job in this process with the threads that its configuration asks for."""
    import torch

    tasks = [task.spec.task for task in job.tasks] if isinstance(job, EvalJob) else []
    unpack(job.config.classes, job.cell.settings.get("method"), tasks)
    torch.set_num_threads(job.config.threads)
    if job.config.device != "cpu":
        torch.cuda.reset_peak_memory_stats(job.config.device)
    if isinstance(job, BuildJob):
        build_checkpoint(job, report)
    else:
        from .evaluate import evaluate_checkpoint

        evaluate_checkpoint(job, report)


def build_checkpoint(job: BuildJob, report: OnEvent) -> None:
    """Make a checkpoint by its transform and commit it, where it is not finished: training log, delta, manifest.

    Raises:
        EntryLocked: another process is making it and the job does not wait.
    """
    entry = Store.open(job.config.store).entry("cells", job.cell.id)
    with entry.claim(wait=job.wait):
        if entry.manifest() is None:
            _build(job, entry, report)


def _build(job: BuildJob, entry: Entry, report: OnEvent) -> None:
    from ..models.content import check_model, digests_of
    from ..store.delta import not_finite, save_delta
    from ..transforms.base import transforms

    started = time.perf_counter()
    made = transforms.get(job.cell.transform)().make(job, report)
    facts: dict[str, Any] = {"cell": job.cell.model_dump(mode="json"), "summary": made.summary}
    files: dict[str, Callable[[Path], Any] | None] = {"training.jsonl": lambda path: write_jsonl(path, made.log)}
    if made.imported is None:
        broken = not_finite(made.delta, job.model.torch_dtype)
        if broken is not None:
            raise TrainingError(
                f"{job.cell.label} came out with values that are not finite in {job.model.dtype} ({broken}), so that"
                " nothing can be measured on it. Lower the learning rate or the method's weights, or look at what it is"
                " made from."
            )
        with atomic(entry.file(DELTA)) as staged:
            save_delta(staged, made.delta, job.model.torch_dtype, made.decoding)
        facts["delta"] = file_sha256(entry.file(DELTA))
        files[DELTA] = None
    else:
        facts |= {"delta": made.imported[0], "pointer": made.imported[1]}
    check_model(job.model, digests_of(job.config))
    logger.info("%s: made by %s in %.1f s", job.cell.label, job.cell.transform, time.perf_counter() - started)
    kernel = {} if made.attention is None else {"training_attention": made.attention}
    entry.commit(files, {**facts, "recorded": {**recorded_facts(job.config, started - made.before), **kernel}})
