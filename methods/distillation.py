"""Distillation methods: the forget text's tokens are predicted as a target says that was made from logits."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .likelihood import RetainMethod


class DistillationMethod(RetainMethod):
    """One that imitates a target of its own making; settings: `UnheldSettings`."""

    family = "distillation"


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy to softmax(target) of each position, nats; both (batch, length, vocabulary), float32."""
    return F.cross_entropy(logits.transpose(1, 2), target.softmax(-1).transpose(1, 2), reduction="none")
