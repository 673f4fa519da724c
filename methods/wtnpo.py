"""WTNPO: TNPO, weighed once more by the token's probability (Wang et al. 2025, arXiv 2502.19301).

    L_F = mean over tokens of the forget text of w_t log p_t
    w_t = 2 p_t^(beta + alpha) / (p_t^beta + p_t,frozen^beta + 1e-5),   without gradient
    L   = L_F + lambda * L_R

alpha = 0 is TNPO. beta = 4, alpha = 1.5 and the 1e-5 are the authors' code's; readings as in TNPO.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from .base import Depth, Range, Tokens, register
from .reweighting import TokenPreference, TokenPreferenceSettings


class WTNPOSettings(TokenPreferenceSettings):
    """Settings of WTNPO; defaults are the authors' code's."""

    alpha: float = Field(1.5, ge=0, description="further power of the probability; 0 is TNPO")


@register("wtnpo")
class WTNPO(TokenPreference):
    """Make tokens of the forget text less likely than the frozen model finds them, likely ones first."""

    Settings = WTNPOSettings
    version = 1
    citation = "Wang et al. 2025, Rethinking LLM Unlearning Objectives (arXiv 2502.19301)"
    summary = "TNPO, each token weighed once more by its own probability"
    status = "faithful"
    search: ClassVar[Mapping[str, Range | Depth]] = {**TokenPreference.search, "alpha": Range(0.2, 3.0)}
    settings: WTNPOSettings

    def weights(self, p: Tensor, tokens: Tokens) -> Tensor:
        """Return w_t."""
        return self.ratio(p, tokens, self.settings.beta + self.settings.alpha)
