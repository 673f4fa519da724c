"""KTO: Kahneman-Tversky optimisation, a refusal as the point of reference (Ethayarajh et al. 2024, arXiv 2402.01306).

    sigmoid   L_F = 1 - (2 / beta) mean over forget questions q of sigmoid(z_0 - beta d(answer))
    log       L_F = -(2 / beta) mean over them of log sigmoid(z_0 - beta d(answer))
              z_0 = mean over the batch of d(refusal), without gradient
              L   = L_F + lambda * L_R,        d(y) = log(pi(y | q) / pi_frozen(y | q))

The true answers are undesirable, and nothing is trained on refusals: they say only how far the model went elsewhere.
Both forms are those of NPO's authors for TOFU (Zhang et al. 2024, arXiv 2404.05868), with or without retain text, as is
beta = 0.1. There beta does not multiply z_0, which is not clamped at 0 as in KTO's paper, and L_F is not bounded by 0:
only its gradient counts.

Readings: log pi is the sum over an answer's tokens; z_0 takes the refusals that are drawn for the questions of the
batch itself, so that the loss depends on how texts are batched. lambda = 1.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from .base import Batch, register
from .preference import PreferenceMethod, PreferenceSettings, log_ratio


class KTOSettings(PreferenceSettings):
    """Settings of KTO; beta is NPO's authors'."""

    form: Literal["sigmoid", "log"] = Field("sigmoid", description="KTO's value, or its log-sigmoid")


@register("kto")
class KTO(PreferenceMethod):
    """Make the answers less likely than the frozen model finds them, by how far refusals have moved."""

    Settings = KTOSettings
    version = 1
    citation = "Ethayarajh et al. 2024, KTO (arXiv 2402.01306), as in Zhang et al. 2024 (arXiv 2404.05868)"
    summary = "Kahneman-Tversky optimisation: answers are undesirable, refusals the point of reference"
    status = "faithful"
    auxiliary = ("refusal",)
    settings: KTOSettings

    def forget_loss(self, batch: Batch) -> Tensor:
        """Return L_F."""
        s = self.settings
        with torch.no_grad():
            reference = log_ratio(self.context, batch.auxiliary["refusal"]).mean()
        value = reference - s.beta * log_ratio(self.context, batch.forget)
        if s.form == "log":
            return -2 / s.beta * F.logsigmoid(value).mean()
        return 1 - 2 / s.beta * value.sigmoid().mean()
