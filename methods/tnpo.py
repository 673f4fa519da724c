"""TNPO: NPO's weight token by token (Wang et al. 2025, arXiv 2502.19301).

    L_F = mean over tokens of the forget text of w_t log p_t
    w_t = 2 p_t^beta / (p_t^beta + p_t,frozen^beta + 1e-5),   without gradient
    L   = L_F + lambda * L_R

The gradient is that of NPO with a token in place of a text. beta = 4 and the 1e-5 are the authors' code's.

Readings: the loss is the weighted log-likelihood, as in that code, not a log-sigmoid (only its value differs). With
beta = 4 the 1e-5 is no mere guard: tokens less likely than about 0.06 are left alone. A mean over all tokens of a batch
that count; lambda = 1 and the NLL of retain text are ours.
"""

from __future__ import annotations

from torch import Tensor

from .base import Tokens, register
from .reweighting import TokenPreference, TokenPreferenceSettings


@register("tnpo")
class TNPO(TokenPreference):
    """Make tokens of the forget text less likely than the frozen model finds them, ever more gently."""

    Settings = TokenPreferenceSettings
    version = 1
    citation = "Wang et al. 2025, Rethinking LLM Unlearning Objectives (arXiv 2502.19301)"
    summary = "NPO token by token: ascent weighed against the frozen model's probability"
    status = "faithful"
    settings: TokenPreferenceSettings

    def weights(self, p: Tensor, tokens: Tokens) -> Tensor:
        """Return w_t."""
        return self.ratio(p, tokens, self.settings.beta)
