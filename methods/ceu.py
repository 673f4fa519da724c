"""CE-U: cross-entropy to the model's own distribution without the true token (Yang 2025, arXiv 2503.01224).

    q_t = softmax(z_t with z_t(x_t) = -infinity),   without gradient
    L_F = mean over tokens of the forget text of CE(q_t, softmax(z_t))
    L   = L_F (+ lambda * L_R)

The target moves with the model and the loss never is 0; its gradient fades with p(x_t). A text's first token that
counts is left out, and the retain text is not held, as in OpenUnlearning's code.

Reading: a mean over all tokens of a batch that count; of a document, whose first token is predicted by nothing, the
second is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from .base import Batch, Depth, Range, Tokens, register
from .distillation import DistillationMethod, soft_cross_entropy
from .likelihood import UnheldSettings, token_mean


class CEUSettings(UnheldSettings):
    """Settings of CE-U."""

    skipped: int = Field(1, ge=0, description="tokens of each text, the first that count, that are left out")


@register("ceu")
class CEU(DistillationMethod):
    """Imitate oneself without the forget text's tokens."""

    Settings = CEUSettings
    version = 1
    citation = "Yang 2025, CE-U: Cross Entropy Unlearning (arXiv 2503.01224)"
    summary = "imitate one's own distribution without the forget text's token"
    status = "faithful"
    search: ClassVar[Mapping[str, Range | Depth]] = {"skipped": Range(0, 3, log=False)}
    settings: CEUSettings

    def forget_loss(self, batch: Batch) -> Tensor:
        """Return L_F."""
        logits = self.context.logits(batch.forget)[:, :-1].float()
        others = logits.detach().scatter(-1, batch.forget.ids[:, 1:, None], -math.inf)
        return token_mean(soft_cross_entropy(logits, others), self._counted(batch.forget))

    def units(self, batch: Batch) -> Mapping[str, Tensor | int]:
        """Return over what the losses are means: L_F over the tokens that are not left out."""
        return {**super().units(batch), "forget": self._counted(batch.forget).sum()}

    def _counted(self, tokens: Tokens) -> Tensor:
        return tokens.counted * (tokens.counted.cumsum(1) > self.settings.skipped)
