"""Relearning: a few optimiser steps of plain language modelling on forget text that no method saw.

Starts from the parent's weights and trains the same parameters whatever the parent, the base too: all of them, or a
low-rank change of the linear weights. The text is the track's `relearn` corpora: topics alternate step by step, texts
in the order that the parent's training seed gives. What was hidden and not removed comes back fast (Lynch et al.,
arXiv 2402.16835; Deeb and Roger, arXiv 2410.08827).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...methods.likelihood import LanguageModelling
from ..corpora import TemplateSpec
from ..data import TrainingText, load_rows, texts
from ..errors import UserError
from ..runtime import OnEvent
from ..specs import Spec, identity
from ..training.batches import Corpora
from .base import BuildJob, Stress, TransformResult, register
from .train import plainly_trained


class RelearnSettings(Spec):
    """Settings of relearning."""

    rank: int | None = identity(
        None, ge=1, description="rank of a LoRA on the decoder layers' matrices (alpha twice that); None: train all"
    )
    training: dict[str, Any] = identity({"steps": 20}, description="what differs from the suite's training settings")


def relearning(settings: Mapping[str, Any]) -> LanguageModelling:
    """Return what relearning with these settings trains by."""
    rank = RelearnSettings.parse(settings, "relearn").rank
    lora = {} if rank is None else {"parameters": "lora", "lora_rank": rank, "lora_alpha": 2.0 * rank}
    return LanguageModelling(LanguageModelling.Settings.parse(lora, "relearn"))


@register("relearn")
class Relearn(Stress):
    """Fine-tune a checkpoint on forget text that no method saw."""

    summary = "a few steps of language modelling on forget text that no method saw"
    Settings = RelearnSettings
    version = 1
    needs_text = True

    def make(self, job: BuildJob, report: OnEvent) -> TransformResult:
        """Train and return all tensors that differ from the base's with the log, one row a step."""
        text = relearn_text(job)
        passages = [passage for topic in text.values() for passage in topic]
        corpora = Corpora(text, passages, template=job.corpora.template if job.corpora else TemplateSpec())
        return plainly_trained(job, report, relearning(job.cell.settings["settings"]), corpora)


def relearn_text(job: BuildJob) -> dict[str, list[TrainingText]]:
    """Read the track's text for relearning, by topic; raise a `UserError` where it is not the cell's."""
    sources = job.corpora.relearn if job.corpora is not None else {}
    rows = {topic: load_rows(source, job.folder, source.text_row) for topic, source in sources.items()}
    if {topic: dataset.digest for topic, dataset in rows.items()} != job.cell.settings["data"]["relearn"]:
        raise UserError(f"The text for {job.cell.label} changed after the run was planned; run again.")
    return {topic: texts(dataset.rows, sources[topic]) for topic, dataset in rows.items()}
