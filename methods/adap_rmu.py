"""AdapRMU: RMU whose target grows with the hidden state (section 3.2 of arXiv 2605.26454; arXiv 2408.06223).

    L_F = mean over tokens of the forget text of || h_l(t) - beta ||h_l^frozen(t)|| u ||^2
    L_R = mean over tokens of the retain text of || h_l(t) - h_l^frozen(t) ||^2,   L = L_F + alpha * L_R

Readings: the paper's equation takes the norm token by token (`norm: token`, the default: the benchmark implements the
equation, and a first token of huge norm then scales no other token's target). The reference code takes one scalar a
topic, the mean token norm of its first batch, and keeps it (`norm: first_batch`; padding does not count here). beta = 5
and alpha = 1200 are the reference code's. Everything else is read as in RMU: u, layers, parameters, means over tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from .base import Batch, Context, Depth, Range, register
from .representation import LayerSettings, SteeringMethod, over_tokens


class AdapRMUSettings(LayerSettings):
    """Settings of AdapRMU; scale and alpha are its reference code's."""

    scale: float = Field(5.0, gt=0, description="beta, the target's norm over the frozen hidden state's")
    norm: Literal["token", "first_batch"] = Field("token", description="the equation's norm, or the reference code's")
    alpha: float = Field(1200.0, ge=0, description="weight of the retain loss")


@register("adap_rmu")
class AdapRMU(SteeringMethod):
    """Steer the hidden states of the forget text to a multiple of their own norm along u."""

    Settings = AdapRMUSettings
    version = 1
    citation = "Dang et al. 2024, On Effects of Steering Latent Representation (arXiv 2408.06223); arXiv 2605.26454"
    summary = "RMU with a target that scales with the frozen activation's norm"
    status = "faithful"
    search: ClassVar[Mapping[str, Range | Depth]] = {
        "layer": Depth(),
        "scale": Range(1.0, 10.0),
        "alpha": Range(0.3, 300.0),
    }
    settings: AdapRMUSettings

    def setup(self, context: Context) -> None:
        """Draw the control vectors and, for `first_batch`, take each topic's mean token norm."""
        super().setup(context)
        self.first_norm: dict[str, Tensor] = {}
        if self.settings.norm == "first_batch":
            for step, topic in enumerate(context.topics):
                batch = context.batch(step)
                self.first_norm[topic] = over_tokens(self._norms(batch), batch.forget.mask, "mean")

    def target(self, batch: Batch) -> Tensor:
        """Return beta ||h_l^frozen|| u."""
        s = self.settings
        norm = self.first_norm[batch.topic] if s.norm == "first_batch" else self._norms(batch).unsqueeze(-1)
        return s.scale * norm * self.u[batch.topic]

    def log_setup(self) -> dict[str, float]:
        """Return each topic's norm where one is kept."""
        return {f"norm_{topic}": norm.item() for topic, norm in self.first_norm.items()}

    def _norms(self, batch: Batch) -> Tensor:
        """Return ||h_l^frozen(t)|| of the forget text, (batch, length)."""
        layer = self.settings.layer
        return torch.linalg.vector_norm(self.context.frozen_hidden(batch.forget, [layer])[layer].float(), dim=-1)
