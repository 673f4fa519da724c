"""Distillation methods: the forget text's tokens are predicted as a target says that was made from logits."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from .likelihood import RetainMethod, RetainSettings


class DistillationSettings(RetainSettings):
    """The retain text is not held by default, as in the sources: the target itself says what stays."""

    retain: Literal["none", "nll", "kl"] = Field(
        "none", description="mean NLL of retain text, mean KL(frozen || trained) of its next tokens, or no such term"
    )


class DistillationMethod(RetainMethod):
    """One that imitates a target of its own making; settings: `DistillationSettings`."""

    family = "distillation"


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy to softmax(target) of each position, nats; both (batch, length, vocabulary), float32."""
    return F.cross_entropy(logits.transpose(1, 2), target.softmax(-1).transpose(1, 2), reduction="none")
