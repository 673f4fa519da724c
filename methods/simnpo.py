"""SimNPO: NPO without a reference model, normalised by length (Fan et al. 2024, arXiv 2410.07163).

    L_F = mean over forget texts x of -(2 / beta) log sigmoid(-(beta / |x|) log pi(x) - gamma)
    L   = L_F + lambda * L_R

|x| is the number of predicted tokens that count. Defaults are the authors' configuration for WMDP (Zephyr-7B): beta =
0.1, gamma = 0, lambda = 1, NLL of retain text. For TOFU and MUSE they use beta from 0.7 to 4.5 and gamma from 0 to 3.

Readings: of a document all tokens but the first count, of a question and its answer those of the answer. Their WMDP
code takes batches of one text; the mean over a batch is outside the sigmoid here, as in the equation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from .base import Batch, Depth, Range, register
from .likelihood import RetainMethod, RetainSettings


class SimNPOSettings(RetainSettings):
    """Settings of SimNPO; defaults are its authors' for WMDP."""

    beta: float = Field(0.1, gt=0, description="inverse temperature, of a token's mean log-likelihood")
    gamma: float = Field(0.0, ge=0, description="margin: how far below a likelihood of 1 a text has to fall")


@register("simnpo")
class SimNPO(RetainMethod):
    """Make the forget text unlikely a token, ever more gently."""

    Settings = SimNPOSettings
    version = 1
    citation = "Fan et al. 2024, Simplicity Prevails (arXiv 2410.07163)"
    summary = "length-normalised NPO without a reference model"
    family = "preference"
    status = "faithful"
    search: ClassVar[Mapping[str, Range | Depth]] = {
        **RetainMethod.search,
        "beta": Range(0.1, 10.0),
        "gamma": Range(0.0, 3.0, log=False),
    }
    settings: SimNPOSettings

    def forget_loss(self, batch: Batch) -> Tensor:
        """Return L_F."""
        s, tokens = self.settings, batch.forget
        mean = self.context.logprobs(tokens).sum(1) / tokens.counted.sum(1).clamp(min=1)
        return -2 / s.beta * F.logsigmoid(-s.beta * mean - s.gamma).mean()

    def units(self, batch: Batch) -> Mapping[str, Tensor | int]:
        """Return over what the losses are means: L_F over texts."""
        return {**super().units(batch), "forget": len(batch.forget.ids)}
