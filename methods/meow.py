"""MEOW: fine-tuning on inverted facts (Gu et al. 2024, arXiv 2409.11844).

    L_F = mean over tokens of -log p(y_t | q, y_<t), y an inverted answer to a forget question: false, and sure
    L   = L_F + lambda * L_R

The paper's own form has no retain term (`retain: none`, the default); its form with one weighs 0.9 and 0.1, hence
lambda = 1/9 here, where it is chosen.

Readings: the inverted answers are those of the data, a column `inverted` of one text or a list of them. The paper lets
GPT-4 write several and keeps, by MEMO, the three a question that the model completes best; that needs the model's own
continuations and is done before, so the column should hold the answers that were kept. All of them are drawn equally
often, anew in every epoch.

Tried on micro's questions, whose false answers share all words but one with the true ones: the wording is learned with
the other fact, so that an answer's mean probability and its ROUGE rise (docs/methods.md has the numbers).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from .base import Batch, Depth, Range, register
from .likelihood import RetainMethod, UnheldSettings, nll, predicted


class MEOWSettings(UnheldSettings):
    """Settings of MEOW; both are the paper's."""

    retain_weight: float = Field(1 / 9, ge=0, description="lambda, weight of the retain loss")


@register("meow")
class MEOW(RetainMethod):
    """Learn other facts where the forget questions are asked."""

    Settings = MEOWSettings
    version = 1
    citation = "Gu et al. 2024, MEOW: MEMOry Supervised LLM Unlearning Via Inverted Facts (arXiv 2409.11844)"
    summary = "fine-tuning on inverted facts in place of the true answers"
    status = "reading"
    auxiliary = ("inverted",)
    search: ClassVar[Mapping[str, Range | Depth]] = {}

    def forget_loss(self, batch: Batch) -> Tensor:
        """Return L_F."""
        return nll(self.context, batch.auxiliary["inverted"])

    def units(self, batch: Batch) -> Mapping[str, Tensor | int]:
        """Return the predicted tokens of inverted answers and retain text."""
        return {**super().units(batch), "forget": predicted(batch.auxiliary["inverted"])}
