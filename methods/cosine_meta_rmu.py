"""Cosine-meta RMU: cosine distances, alpha learned on the way (eq. 4 and 5 of arXiv 2605.26454).

    eq. 4   L_F = mean over tokens of the forget text of 1 - cos(h_l(t), c u)      (c cancels)
    eq. 5   L_R = mean over tokens of the retain text of 1 - cos(h_l(t), h_l^frozen(t))
            L   = L_F + alpha * L_R, alpha by REINFORCE with learning rate 1e-2: see `reinforce.py`

Readings: u, layers, parameters and means over real tokens as in RMU. The paper's two ablations are settings:
`distance: l2` puts RMU's distances (with its c) in place of the cosine ones, `alpha_mode: fixed` keeps alpha_0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from .base import Batch, Context, Depth, Range, register
from .reinforce import AlphaMethod, AlphaSettings
from .representation import LayerSettings, SteeringMethod, cosine_distance, squared_distance


class CosineMetaRMUSettings(LayerSettings, AlphaSettings):
    """Settings of cosine-meta RMU."""

    distance: Literal["cosine", "l2"] = Field("cosine", description="eq. 4 and 5, or RMU's (the paper's ablation)")
    steering_coefficient: float = Field(6.5, gt=0, description="c of the l2 ablation; cancels in the cosine")


@register("cosine_meta_rmu")
class CosineMetaRMU(AlphaMethod, SteeringMethod):
    """Turn the hidden states of the forget text towards u, hold the direction of those of the retain text."""

    Settings = CosineMetaRMUSettings
    version = 1
    citation = "Atil, Gupta, Passonneau 2026 (arXiv 2605.26454), eq. 4 and 5"
    summary = "RMU with cosine distances and a learned retain weight alpha"
    status = "reading"
    search: ClassVar[Mapping[str, Range | Depth]] = {"layer": Depth(), "alpha_0": Range(0.1, 100.0)}
    settings: CosineMetaRMUSettings

    def watched(self, context: Context) -> list[int]:
        """Return layer l."""
        return [self.settings.layer]

    def setup(self, context: Context) -> None:
        """Draw the control vectors and start the policy of alpha."""
        super().setup(context)
        self.start_alpha(context)

    def target(self, batch: Batch) -> Tensor:
        """Return c u."""
        return self.settings.steering_coefficient * self.u[batch.topic]

    def forget_loss(self, h: Mapping[int, Tensor], batch: Batch) -> Tensor:
        """Return L_F (eq. 4)."""
        h_l = h[self.settings.layer]
        return self._distance(h_l, self.target(batch).expand_as(h_l), batch.forget.mask)

    def retain_loss(self, h: Mapping[int, Tensor], frozen: Mapping[int, Tensor], mask: Tensor) -> Tensor:
        """Return L_R (eq. 5)."""
        layer = self.settings.layer
        return self._distance(h[layer], frozen[layer], mask)

    def _distance(self, h: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        distance = cosine_distance if self.settings.distance == "cosine" else squared_distance
        return distance(h, target, mask, self.settings.reduction)
