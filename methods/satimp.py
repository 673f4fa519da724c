"""SatImp: ascent weighed by saturation and importance (Yang et al. 2025, arXiv 2505.11953).

    L_F = mean over tokens of the forget text of p_t^beta1 (1 - p_t)^beta2 log p_t,   weights without gradient
    L   = L_F + lambda * L_R

The first factor leaves alone what is forgotten, the second what is certain. beta1 = 5 and beta2 = 1 are
OpenUnlearning's.

Readings: its configuration weighs L_F by 0.1 and L_R by 1, its class and its notes the other way round. The default
lambda = 10 is the configuration's, with L_F's weight 1; the search covers both. A mean over all tokens that count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from .base import Depth, Range, Tokens, register
from .likelihood import RetainSettings
from .reweighting import ReweightingMethod


class SatImpSettings(RetainSettings):
    """Settings of SatImp; defaults are OpenUnlearning's."""

    beta1: float = Field(5.0, ge=0, description="power of p, the weight of saturation")
    beta2: float = Field(1.0, ge=0, description="power of 1 - p, the weight of importance")
    retain_weight: float = Field(10.0, ge=0, description="lambda, weight of the retain loss")


@register("satimp")
class SatImp(ReweightingMethod):
    """Make the forget text less likely where it is neither forgotten nor certain."""

    Settings = SatImpSettings
    version = 1
    citation = "Yang et al. 2025, Exploring Criteria of Loss Reweighting (arXiv 2505.11953)"
    summary = "gradient ascent, each token weighed by saturation and importance"
    status = "faithful"
    search: ClassVar[Mapping[str, Range | Depth]] = {
        **ReweightingMethod.search,
        "beta1": Range(0.5, 8.0),
        "beta2": Range(0.1, 2.0),
    }
    settings: SatImpSettings

    def weights(self, p: Tensor, tokens: Tokens) -> Tensor:
        """Return p_t^beta1 (1 - p_t)^beta2."""
        return p**self.settings.beta1 * (1 - p) ** self.settings.beta2
