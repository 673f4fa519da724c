"""RMU: representation misdirection for unlearning (eq. 1-3 of arXiv 2605.26454; Li et al. 2024, arXiv 2403.03218).

    eq. 1   L   = L_F + alpha * L_R
    eq. 2   L_F = mean over tokens of the forget text of || h_l(t) - c u ||^2
    eq. 3   L_R = mean over tokens of the retain text of || h_l(t) - h_l^frozen(t) ||^2

Readings: one fixed u a forget topic, uniform on [0, 1)^d over its norm, topics alternating batch by batch, as in the
authors' code. The equations sum over tokens; as in that code the default is the mean over tokens and hidden size
(`reduction: sum` sums), but padding does not count, and text is shuffled by seed. The paper names no settings: layer
7, updates of `mlp.down_proj` in layers 5-7, c = 6.5 and alpha = 1200 are the authors' for Zephyr-7B.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from .base import Batch, Depth, Range, register
from .representation import LayerSettings, SteeringMethod


class RMUSettings(LayerSettings):
    """Settings of RMU; defaults are its authors' for Zephyr-7B."""

    steering_coefficient: float = Field(6.5, gt=0, description="c, the norm of the target")
    alpha: float = Field(1200.0, ge=0, description="weight of the retain loss")


@register("rmu")
class RMU(SteeringMethod):
    """Steer the hidden states of the forget text to c u, hold those of the retain text."""

    Settings = RMUSettings
    version = 1
    citation = "Li et al. 2024, The WMDP Benchmark (arXiv 2403.03218); eq. 1-3 of arXiv 2605.26454"
    summary = "steer forget activations to a random vector, hold retain activations (L2)"
    status = "faithful"
    search: ClassVar[Mapping[str, Range | Depth]] = {
        "layer": Depth(),
        "steering_coefficient": Range(1.0, 30.0),
        "alpha": Range(0.3, 300.0),
    }
    settings: RMUSettings

    def target(self, batch: Batch) -> Tensor:
        """Return c u (eq. 2)."""
        return self.settings.steering_coefficient * self.u[batch.topic]
