"""Gradient difference: ascent on the forget text, descent on the retain text.

    L_F = mean over tokens of the forget text of log p(x_t | x_<t)
    L_R = mean over tokens of the retain text of -log p(x_t | x_<t)
    L   = L_F + lambda * L_R

Liu, Liu, Stone 2022 (arXiv 2203.12817); lambda = 1 and the form for language models are TOFU's (arXiv 2401.06121),
whose KL baseline is `retain: kl`. Readings: means over the tokens that count; KL(frozen || trained), a mean over them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from ..harness.records import LogRole
from .base import Batch, register
from .likelihood import RetainMethod, RetainSettings, nll


@register("grad_diff")
class GradDiff(RetainMethod):
    """Raise the loss of the forget text, lower that of the retain text."""

    Settings = RetainSettings
    version = 1
    citation = "Liu, Liu, Stone 2022, Continual Learning and Private Unlearning (arXiv 2203.12817); arXiv 2401.06121"
    summary = "gradient ascent on forget text, descent (or KL to the frozen model) on retain text"
    status = "faithful"
    log_schema: ClassVar[Mapping[str, LogRole]] = {"forget": "log_likelihood"}

    def forget_loss(self, batch: Batch) -> Tensor:
        """Return the negative of the mean NLL."""
        return -nll(self.context, batch.forget)
