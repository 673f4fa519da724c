"""ULD: unlearning from logit difference (Ji et al. 2024, arXiv 2406.08607), at decoding time.

    logit difference     l(y|x)  = l_base(y|x) - w * a(y|x)
    reversed objective   L       = L_F + beta * L_R       of the assistant alone
    remember             L_F     = mean over tokens of the forget text of -log p_a(next token)
    know nothing else    L_R     = mean over tokens of the retain text of KL(uniform || p_a)

The assistant p_a is the base's first `depth` decoder layers under its own norm and head, trained by LoRA. It learns
what is to be forgotten and nothing of what is to be kept, so that subtracting it takes away the one and leaves the
other. The base's weights never change.

Readings: w, beta, the filter, 8 of 32 layers and LoRA's 16 and 32 are those of the authors' code for TOFU. As there, a
token whose probability under the base is below `filter` times that of the likeliest keeps its logit (a = 0): where the
base sees no candidate, the assistant has no say. The code also lets at least |V| * `filter` tokens pass; here the
threshold alone decides. The code subtracts bare logits, whose zero means nothing once some of them are left out: here
a = log p_a + log |V|, zero where the assistant is uniform, which without a filter is the same distribution. The paper
adds paraphrases to the forget text and false answers to the retain text; here the track's text is all there is. Of a
question and its answer L_F is of the answer's tokens, L_R of the positions that predict them; of a document of all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from .base import Batch, Context, DecodingMethod, Depth, LoRA, MethodSettings, Range, Tokens, next_logprobs, register
from .likelihood import token_mean


class ULDSettings(MethodSettings):
    """Settings of ULD; defaults are the authors' for TOFU with Llama 2 7B."""

    depth: int = Field(8, ge=1, description="K, the base's first decoder layers that make the assistant")
    weight: float = Field(0.8, gt=0, description="w, weight of the assistant's logits")
    filter: float = Field(0.01, ge=0, le=1, description="least probability, relative to the likeliest token's")
    beta: float = Field(5.0, ge=0, description="weight of the retain loss")
    rank: int = Field(16, ge=0, description="rank of the assistant's LoRA; 0 trains its matrices themselves")
    lora_alpha: float = Field(32.0, gt=0, description="LoRA's alpha")


@register("uld")
class ULD(DecodingMethod):
    """Subtract an assistant that knows the forget text and nothing else."""

    Settings = ULDSettings
    version = 1
    citation = "Ji et al. 2024, Reversing the Forget-Retain Objectives (arXiv 2406.08607)"
    summary = "at decoding time, subtract the logits of a small assistant that learned the forget text"
    status = "reading"
    search: ClassVar[Mapping[str, Range | Depth]] = {
        "depth": Depth(0.1, 0.5),
        "weight": Range(0.3, 4.0),
        "beta": Range(0.3, 10.0),
    }
    settings: ULDSettings

    @property
    def depth(self) -> int:
        """The assistant's layers, K."""
        return self.settings.depth

    def trained(self, context: Context) -> list[str]:
        """Return the assistant's matrices."""
        return context.parameters(range(self.depth), matrices=True)

    def lora(self) -> LoRA | None:
        """Return the low rank in which they train."""
        return LoRA(self.settings.rank, self.settings.lora_alpha) if self.settings.rank else None

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return L_F and L_R."""
        remembered = next_logprobs(self.context.logits(batch.forget, self.depth), batch.forget)
        says = self.context.logits(batch.retain, self.depth).float().log_softmax(-1)
        from_uniform = -says.mean(-1) - math.log(says.shape[-1])
        return {
            "forget": -token_mean(remembered, batch.forget.counted),
            "retain": token_mean(from_uniform, predicting(batch.retain)),
        }

    def units(self, batch: Batch) -> Mapping[str, Tensor | int]:
        """Return the tokens that either loss is a mean over."""
        return {"forget": batch.forget.counted.sum(), "retain": predicting(batch.retain).sum()}

    def combine(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return L, the reversed objective."""
        return losses["forget"] + self.settings.beta * losses["retain"]

    def decode(self, base: Tensor, assistant: Tensor) -> Tensor:
        """Return the logit difference of the tokens that pass the filter, the base's logits of the others."""
        says = assistant.log_softmax(-1) + math.log(assistant.shape[-1])
        least = base.amax(-1, keepdim=True) + (math.log(self.settings.filter) if self.settings.filter else -math.inf)
        return base - self.settings.weight * torch.where(base >= least, says, 0.0)


def predicting(tokens: Tokens) -> Tensor:
    """Return 1 for the positions whose next token counts, (batch, length); of documents for all real positions."""
    return tokens.mask if tokens.targets is None else F.pad(tokens.counted, (0, 1))
