"""WGA: weighted gradient ascent (Wang et al. 2025, arXiv 2502.19301).

    L_F = mean over tokens of the forget text of p_t^beta log p_t,   p_t^beta without gradient
    L   = L_F + lambda * L_R

As a token becomes unlikely its weight goes to 0, where ascent's gradient would grow. beta = 1, lambda = 1 and the NLL
of retain text are OpenUnlearning's; the authors' code takes beta = 5.

Reading: a mean over all tokens of a batch that count, as in both codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from .base import Depth, Range, Tokens, register
from .likelihood import RetainSettings
from .reweighting import ReweightingMethod


class WGASettings(RetainSettings):
    """Settings of WGA; beta is OpenUnlearning's."""

    beta: float = Field(1.0, ge=0, description="power of the weight; 0 is plain ascent")


@register("wga")
class WGA(ReweightingMethod):
    """Make the forget text less likely, its likely tokens first."""

    Settings = WGASettings
    version = 1
    citation = "Wang et al. 2025, Rethinking LLM Unlearning Objectives (arXiv 2502.19301)"
    summary = "gradient ascent, each token weighed by its own probability"
    status = "faithful"
    search: ClassVar[Mapping[str, Range | Depth]] = {**ReweightingMethod.search, "beta": Range(0.2, 5.0)}
    settings: WGASettings

    def weights(self, p: Tensor, tokens: Tokens) -> Tensor:
        """Return p_t^beta."""
        return p**self.settings.beta
