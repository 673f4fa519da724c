"""WHP at decoding time: what a model reinforced on the forget text likes better is held back (arXiv 2310.02238).

    z   = z_base - alpha * relu(z_reinforced - z_base)
    L_F = mean over tokens of the forget text of -log p_reinforced(x_t | x_<t),   minimised

"Who's Harry Potter" (Eldan and Russinovich 2023) fine-tunes on labels that these logits give, with the names in the
text replaced; here the two models answer together, as in MUSE (Shi et al. 2024, arXiv 2407.06460), whose code this
follows. alpha = 1 is that code's default.

Readings: none of the paper's replaced names, hence a variant of WHP. Logits are bare, as in the code. All parameters
train, or a LoRA; the checkpoint keeps the reinforced model's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from .base import Batch, Context, DecodingMethod, Depth, LoRA, MethodSettings, Range, register
from .likelihood import nll, predicted


class WHPSettings(MethodSettings):
    """Settings of WHP at decoding time."""

    alpha: float = Field(1.0, gt=0, description="how strongly what the reinforced model likes better is held back")
    lora_rank: int = Field(0, ge=0, description="rank of a LoRA on all matrices; 0 trains all parameters themselves")
    lora_alpha: float = Field(64.0, gt=0, description="LoRA's alpha; the change is scaled by alpha / rank")


@register("whp")
class WHP(DecodingMethod):
    """Hold back what a model that learned the forget text once more likes better."""

    Settings = WHPSettings
    version = 1
    citation = "Eldan and Russinovich 2023, Who's Harry Potter? (arXiv 2310.02238); MUSE (arXiv 2407.06460)"
    summary = "at decoding time, hold back the tokens that a model reinforced on the forget text likes better"
    status = "variant"
    search: ClassVar[Mapping[str, Range | Depth]] = {"alpha": Range(0.3, 10.0)}
    settings: WHPSettings

    @property
    def depth(self) -> None:
        """All layers: the reinforced model is a whole one."""

    def trained(self, context: Context) -> list[str]:
        """Return the reinforced model's parameters."""
        return context.parameters(matrices=self.settings.lora_rank > 0)

    def lora(self) -> LoRA | None:
        """Return the low rank in which they train."""
        s = self.settings
        return LoRA(s.lora_rank, s.lora_alpha) if s.lora_rank else None

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return L_F."""
        return {"forget": nll(self.context, batch.forget)}

    def units(self, batch: Batch) -> Mapping[str, Tensor | int]:
        """Return the tokens that the loss is a mean over."""
        return {"forget": predicted(batch.forget)}

    def decode(self, base: Tensor, assistant: Tensor) -> Tensor:
        """Return z."""
        return base - self.settings.alpha * (assistant - base).relu()
