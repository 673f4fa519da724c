"""Relearning: a few optimiser steps of plain language modelling on forget text that no method saw.

Starts from the parent's weights and trains the same parameters whatever the parent, the base too: all of them, or a
low-rank change of the linear weights. The text is the track's `relearn` corpora: topics alternate step by step, texts
in the order that the parent's training seed gives. What was hidden and not removed comes back fast (Lynch et al.,
arXiv 2402.16835; Deeb and Roger, arXiv 2410.08827).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...methods.base import Batch, Context, LoRA, Method, next_logprobs
from ..data import TrainingText, load_rows, texts
from ..errors import UserError
from ..models.cache import base_model
from ..models.content import digests_of
from ..models.load import attention_of
from ..models.patch import apply_delta, put_tensors
from ..runtime import Event, OnEvent
from ..specs import Spec, identity
from ..suite import TemplateSpec, TrainingSpec
from ..training.batches import Corpora
from ..training.trainer import Trainer, matrix_products
from ._parent import changed, parent_delta
from .base import BuildJob, Stress, TransformResult, register


class RelearnSettings(Spec):
    """Settings of relearning."""

    rank: int | None = identity(
        None, ge=1, description="rank of a LoRA on the decoder layers' matrices (alpha twice that); None: train all"
    )
    training: dict[str, Any] = identity({"steps": 20}, description="what differs from the suite's training settings")


class LanguageModelling(Method):
    """The mean negative log-likelihood (nats a token) of the forget text."""

    version = 1
    citation = "Bengio et al. (2003), A Neural Probabilistic Language Model"
    summary = "language modelling"
    settings: RelearnSettings

    def trained(self, context: Context) -> list[str]:
        """Return all parameters, or all matrices of the decoder layers."""
        return context.parameters(matrices=self.settings.rank is not None)

    def lora(self) -> LoRA | None:
        """Return the low-rank change that the settings ask for."""
        rank = self.settings.rank
        return None if rank is None else LoRA(rank, 2.0 * rank)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss of the batch's forget text."""
        logprobs = next_logprobs(self.context.logits(batch.forget), batch.forget)
        return {"forget": -logprobs.sum() / batch.forget.counted.sum().clamp(min=1)}


@register("relearn")
class Relearn(Stress):
    """Fine-tune a checkpoint on forget text that no method saw."""

    summary = "a few steps of language modelling on forget text that no method saw"
    Settings = RelearnSettings
    version = 1
    needs_text = True

    def make(self, job: BuildJob, report: OnEvent) -> TransformResult:
        """Train and return all tensors that differ from the base's with the log, one row a step."""
        training = TrainingSpec.parse(job.cell.settings["training"], job.cell.label)
        method = LanguageModelling(RelearnSettings.parse(job.cell.settings["settings"], job.cell.label))
        text = relearn_text(job)
        passages = [passage for topic in text.values() for passage in topic]
        corpora = Corpora(text, passages, template=job.corpora.template if job.corpora else TemplateSpec())
        model, tokenizer = base_model(job.model, job.config.device, training.precision, digests=digests_of(job.config))
        base = dict(model.named_parameters())
        delta = parent_delta(job, base)
        originals = apply_delta(model, job.model.name, delta)
        try:
            with matrix_products(training.precision):
                trainer = Trainer(
                    model,
                    tokenizer,
                    method,
                    corpora,
                    training,
                    job.cell.seed or 0,
                    job.config.device,
                    checkpointing=job.config.checkpointing,
                )
                try:
                    trainer.run(lambda row: report(Event(job.cell.label, "relearn", row["step"] + 1, trainer.steps)))
                    delta |= trainer.delta()
                finally:
                    trainer.restore()
        finally:
            put_tensors(model.state_dict(), originals)
        return TransformResult(
            changed(delta, base),
            trainer.log,
            {"loss": trainer.log[-1]["forget"], "steps": trainer.steps, **trainer.cut},
            attention=attention_of(model),
        )


def relearn_text(job: BuildJob) -> dict[str, list[TrainingText]]:
    """Read the track's text for relearning, by topic; raise a `UserError` where it is not the cell's."""
    sources = job.corpora.relearn if job.corpora is not None else {}
    rows = {topic: load_rows(source, job.folder, source.text_row) for topic, source in sources.items()}
    if {topic: dataset.digest for topic, dataset in rows.items()} != job.cell.settings["data"]["relearn"]:
        raise UserError(f"The text for {job.cell.label} changed after the run was planned; run again.")
    return {topic: texts(dataset.rows, sources[topic]) for topic, dataset in rows.items()}
