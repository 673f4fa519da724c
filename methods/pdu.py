"""PDU: flat logits, with the retain loss as a constraint (Entesari et al. 2025, arXiv 2506.05314).

    L_F    = mean over tokens of the forget text of (max_v z_t(v) - mean_v z_t(v))^2
    L      = L_F + lambda * (L_R - epsilon),   L_R = mean NLL of retain text
    lambda <- max(0, lambda + eta * (L_R - epsilon))   after a step, once the warm-up is over

lambda is the dual variable of "L_R at most epsilon": it grows as long as the retain text suffers. It is logged.
lambda = 100, eta = 5, epsilon = 0.3, a warm-up of half the training (5 of 10 epochs) are OpenUnlearning's for TOFU.

Readings: z_t are the logits that predict a token that counts. lambda moves once an optimiser step, by the mean L_R of
its batches. In OpenUnlearning's code it moves once a batch, whatever is accumulated, and L_F counts prompts and padding
too. epsilon has to be near the retain loss of the model itself: where it is out of reach, lambda grows without end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, field_validator
from torch import Tensor

from ..harness.records import LogRole
from .base import Batch, Context, Depth, Range, register
from .likelihood import RetainMethod, RetainSettings, token_mean


class PDUSettings(RetainSettings):
    """Settings of PDU; defaults are OpenUnlearning's for TOFU."""

    retain_weight: float = Field(100.0, ge=0, description="lambda, to begin with")
    epsilon: float = Field(0.3, ge=0, description="what the retain loss may be, nats a token")
    dual_rate: float = Field(5.0, ge=0, description="eta, how fast lambda moves")
    warmup: float = Field(0.5, ge=0, le=1, description="share of the training in which lambda stays")

    @field_validator("retain")
    @classmethod
    def _constrained(cls, retain: str) -> str:
        if retain == "none":
            raise ValueError("the retain loss is PDU's constraint: nll or kl")
        return retain


@register("pdu")
class PDU(RetainMethod):
    """Flatten the logits of the forget text as far as the retain loss stays below a limit."""

    Settings = PDUSettings
    version = 1
    citation = "Entesari et al. 2025, Constrained Entropic Unlearning (arXiv 2506.05314)"
    summary = "flat logits on forget text, retain loss as a constraint with a dual variable"
    status = "faithful"
    search: ClassVar[Mapping[str, Range | Depth]] = {
        "retain_weight": Range(1.0, 300.0),
        "epsilon": Range(0.05, 3.0),
        "dual_rate": Range(0.1, 10.0),
    }
    log_schema: ClassVar[Mapping[str, LogRole]] = {"lambda": "weight"}
    settings: PDUSettings

    def setup(self, context: Context) -> None:
        """Set the dual variable to its start; `excess` holds L_R - epsilon of a step's batches, by their number."""
        self.step, self.dual = 0, self.settings.retain_weight
        self.excess: dict[int, Tensor] = {}

    def forget_loss(self, batch: Batch) -> Tensor:
        """Return L_F."""
        logits = self.context.logits(batch.forget)[:, :-1].float()
        return token_mean((logits.amax(-1) - logits.mean(-1)).square(), batch.forget.counted)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return L_F and L_R."""
        losses = super().losses(batch)
        self.excess[batch.step] = losses["retain"].detach() - self.settings.epsilon
        return losses

    def combine(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return L."""
        return losses["forget"] + self.dual * (losses["retain"] - self.settings.epsilon)

    def after_step(self, batch: Batch, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """Move lambda; return the one that the step was taken with."""
        dual, excess = self.dual, sum(float(value) for value in self.excess.values()) / len(self.excess)
        self.step += 1
        self.excess.clear()
        if self.step > self.settings.warmup * self.context.steps:
            self.dual = max(0.0, dual + self.settings.dual_rate * excess)
        return {"lambda": dual}

    def state_dict(self) -> dict[str, Any]:
        """Return step and lambda."""
        return {"step": self.step, "dual": self.dual}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them back."""
        self.step, self.dual = state["step"], state["dual"]
