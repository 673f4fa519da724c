"""UNDIAL: self-distillation from adjusted logits (Dong et al. 2024, arXiv 2402.10052).

    L_F = mean over tokens of the forget text of CE(softmax(z_t,frozen - beta onehot(x_t)), softmax(z_t))
    L   = L_F (+ lambda * L_R)

The frozen model, less sure of the text's own token by beta, is imitated: the target never moves and the loss is bounded
below, so that training is stable. beta = 10 and no retain term are OpenUnlearning's.

Readings: a mean over the tokens that count; in OpenUnlearning's code prompts and padding count too, and there a label
of -100 takes beta from a token at the vocabulary's end. All parameters train, as there; the paper trains a LoRA
(`parameters=lora`, rank 8, alpha 16).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from .base import Batch, Depth, Range, register
from .distillation import DistillationMethod, soft_cross_entropy
from .likelihood import UnheldSettings, token_mean


class UndialSettings(UnheldSettings):
    """Settings of UNDIAL; beta is OpenUnlearning's."""

    beta: float = Field(10.0, gt=0, description="what the logit of the text's own token loses")


@register("undial")
class Undial(DistillationMethod):
    """Imitate the frozen model as it would be, were it less sure of the forget text."""

    Settings = UndialSettings
    version = 1
    citation = "Dong et al. 2024, UNDIAL: Self-Distillation with Adjusted Logits (arXiv 2402.10052)"
    summary = "imitate the frozen model with the logits of the forget text's tokens lowered"
    status = "faithful"
    search: ClassVar[Mapping[str, Range | Depth]] = {"beta": Range(1.0, 30.0)}
    settings: UndialSettings

    def forget_loss(self, batch: Batch) -> Tensor:
        """Return L_F."""
        tokens = batch.forget
        logits, frozen = (of(tokens)[:, :-1].float() for of in (self.context.logits, self.context.frozen_logits))
        own = tokens.ids[:, 1:, None]
        lowered = torch.full_like(own, -self.settings.beta, dtype=frozen.dtype)
        return token_mean(soft_cross_entropy(logits, frozen.scatter_add(-1, own, lowered)), tokens.counted)
