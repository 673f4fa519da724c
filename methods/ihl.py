"""Inverted hinge loss of LoKU (Cha et al. 2024, arXiv 2408.06621).

    L_F = mean over tokens of the forget text of 1 + p(x_t | x_<t) - max over v != x_t of p(v | x_<t)
    L   = L_F + lambda * L_R,   L_R = mean NLL of retain text

Bounded between 0 and 2: the token gives way to the next likeliest one, not to all others. LoKU trains a LoRA on every
matrix of the decoder layers, hence `parameters: lora` by default; the rank is the harness's.

Readings: LoKU's second part, FILA (adapters initialised by Fisher information), is left out: the loss is compared with
others at equal training. A mean over all tokens of a batch that count, of answers as in the paper; lambda = 1.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from .base import Batch, register
from .likelihood import RetainMethod, RetainSettings, token_mean


class IHLSettings(RetainSettings):
    """Settings of the inverted hinge loss."""

    parameters: Literal["all", "lora"] = Field("lora", description="all parameters, or low-rank changes of matrices")


@register("ihl")
class IHL(RetainMethod):
    """Make each token of the forget text less likely than the next likeliest."""

    Settings = IHLSettings
    version = 1
    citation = "Cha et al. 2024, Towards Robust and Parameter-Efficient Knowledge Unlearning (arXiv 2408.06621)"
    summary = "inverted hinge loss: each token gives way to the next likeliest (LoRA)"
    status = "faithful"

    def forget_loss(self, batch: Batch) -> Tensor:
        """Return L_F."""
        tokens = batch.forget
        p = self.context.logits(tokens)[:, :-1].float().softmax(-1)
        target = tokens.ids[:, 1:, None]
        others = p.scatter(-1, target, -1.0).amax(-1)
        return token_mean(1 + p.gather(-1, target).squeeze(-1) - others, tokens.counted)
