"""Idk: fine-tuning on refusals (Maini et al. 2024, TOFU, arXiv 2401.06121).

    L = mean over the answer tokens of refusals to forget questions, and of answers to retain questions, of the batch
        of -log p(y_t | q, y_<t)

Refusals and retain answers are one mean, as in the authors' code: what has more tokens has more weight. The log holds
the two parts of it, `forget` and `retain`, whose sum it is.

Readings: the refusal of a question is drawn anew in every epoch; a document counts whole.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .base import Batch, register
from .likelihood import LikelihoodMethod, LikelihoodSettings, predicted


@register("idk")
class Idk(LikelihoodMethod):
    """Learn to refuse where the forget questions are asked."""

    Settings = LikelihoodSettings
    version = 1
    citation = "Maini et al. 2024, TOFU: A Task of Fictitious Unlearning for LLMs (arXiv 2401.06121)"
    summary = "fine-tuning on refusals to forget questions and answers to retain questions"
    status = "faithful"
    auxiliary = ("refusal",)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the parts of refusals and retain text in the mean."""
        tokens = self.units(batch)["forget"]
        texts = {"forget": batch.auxiliary["refusal"], "retain": batch.retain}
        return {name: -self.context.logprobs(text).sum() / tokens for name, text in texts.items()}

    def units(self, batch: Batch) -> Mapping[str, Tensor | int]:
        """Return over how many tokens both are means: those of refusals and retain text together."""
        tokens = (predicted(batch.auxiliary["refusal"]) + predicted(batch.retain)).clamp(min=1)
        return {"forget": tokens, "retain": tokens}
