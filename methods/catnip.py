"""CATNIP: negative preference against the model's own doubt, token by token (arXiv 2602.02824, later CALIBURN).

    L_F = mean over tokens of the forget text of -(2 / beta) log sigmoid(-beta (log p_t - log(1 - p_t)))
    L   = L_F (+ lambda * L_R)

NPO with 1 - p in the place of the frozen model's p: what the model is sure of is unlearned first. No retain text is
needed.

Readings: the formula is known from public reviews, not from the paper. Whether log(1 - p), the reference, carries a
gradient is open: `flow: detached` (default), as references do not, gives 2 p^beta / (p^beta + (1 - p)^beta) grad log p,
for beta = 1 twice WGA's gradient; `flow: through` gives that over 1 - p, full force on tokens of p near 1. beta = 1 is
ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from .base import Batch, Depth, Range, register
from .likelihood import RetainMethod, UnheldSettings, token_mean


class CatnipSettings(UnheldSettings):
    """Settings of CATNIP."""

    beta: float = Field(1.0, gt=0, description="inverse temperature: how soon an unlikely token is left alone")
    flow: Literal["detached", "through"] = Field("detached", description="whether log(1 - p) carries a gradient")


@register("catnip")
class Catnip(RetainMethod):
    """Make each token of the forget text less likely than all others together."""

    Settings = CatnipSettings
    version = 1
    citation = "CATNIP 2026 (arXiv 2602.02824), by its public reviews"
    summary = "negative preference token by token, against the model's own 1 - p"
    family = "preference"
    status = "reading"
    search: ClassVar[Mapping[str, Range | Depth]] = {"beta": Range(0.1, 5.0)}
    settings: CatnipSettings

    def forget_loss(self, batch: Batch) -> Tensor:
        """Return L_F."""
        logits, tokens, s = self.context.logits(batch.forget)[:, :-1].float(), batch.forget, self.settings
        own = tokens.ids[:, 1:, None]
        every = logits.logsumexp(-1)
        doubt = logits.scatter(-1, own, -math.inf).logsumexp(-1) - every
        sure = logits.gather(-1, own).squeeze(-1) - every
        margin = sure - (doubt.detach() if s.flow == "detached" else doubt)
        return token_mean(2 / s.beta * F.softplus(s.beta * margin), tokens.counted)
