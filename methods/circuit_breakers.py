"""Circuit breakers by representation rerouting, RR (Zou et al. 2024, arXiv 2406.04313).

    L_F = mean over tokens of the forget text and layers l of relu(cos(h_l(t), h_l^frozen(t)))
    L_R = mean over tokens of the retain text and all layers up to the last such l of || h_l(t) - h_l^frozen(t) ||
    L   = alpha * ((1 - s) * L_F + s * L_R),   s = (step + 1) / (ramp * steps)

First the forget text is turned away, then ever more the rest is held. A LoRA (rank 16, alpha 16) trains on all matrices
up to the last l. alpha = 10, layers 10 and 20 of 32 (9 and 19, counted from 0) and s over 300 where 150 steps are
trained (ramp = 2, so that s ends at 1/2) are those of public copies of the authors' code, the code itself being out of
reach.

Readings: l are the layers at the same shares of other models' depth. Padding does not count; in the copies it is
zeroed but counted in L_R, as is the embedding, which no LoRA moves. They train and hold one layer more, behind the last
l; their LoRA has a dropout of 0.05. s follows optimiser steps, there batches. The norm is sqrt(||.||^2 + 1e-8): at the
first step both sides are the same but for rounding, and the bare norm's gradient would be rounding's direction.
The cosine is at its maximum there, without a gradient: with too small a learning rate nothing leaves the start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ..harness.records import LogRole
from .base import Batch, Context, Depth, LoRA, Method, MethodSettings, Range, Tokens, register
from .representation import over_tokens


class CircuitBreakersSettings(MethodSettings):
    """Settings of RR; defaults are those of copies of the authors' code."""

    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None,
        min_length=1,
        description="decoder layers (from 0) that are rerouted; None: 10/32 and 20/32 of the depth",
    )
    alpha: float = Field(10.0, gt=0, description="scale of the loss")
    ramp: float = Field(2.0, ge=1, description="lengths of the training after which s would be 1")
    lora_rank: int = Field(16, ge=1, description="rank of LoRA")
    lora_alpha: float = Field(16.0, gt=0, description="LoRA's alpha; the change is scaled by alpha / rank")


@register("circuit_breakers")
class CircuitBreakers(Method):
    """Turn the hidden states of the forget text away from where they were, hold those of the retain text."""

    Settings = CircuitBreakersSettings
    version = 1
    citation = "Zou et al. 2024, Improving Alignment and Robustness with Circuit Breakers (arXiv 2406.04313)"
    summary = "representation rerouting: forget activations away from the frozen ones (LoRA)"
    family = "steering"
    status = "reading"
    search: ClassVar[Mapping[str, Range | Depth]] = {"alpha": Range(1.0, 30.0), "ramp": Range(1.0, 4.0)}
    log_schema: ClassVar[Mapping[str, LogRole]] = {"rerouted": "other"}
    settings: CircuitBreakersSettings

    def rerouted(self, context: Context) -> list[int]:
        """Return the layers l."""
        depth, layers = context.layers, self.settings.layers
        return sorted({max(round(depth * share / 32) - 1, 0) for share in (10, 20)} if layers is None else set(layers))

    def trained(self, context: Context) -> list[str]:
        """Return the matrices of all layers up to the last l."""
        return context.parameters(range(self.rerouted(context)[-1] + 1), matrices=True)

    def lora(self) -> LoRA:
        """Return the low rank in which they train."""
        return LoRA(self.settings.lora_rank, self.settings.lora_alpha)

    def setup(self, context: Context) -> None:
        """Count steps from the first."""
        self.step = 0

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return L_F and L_R."""
        layers = self.rerouted(self.context)
        aligned = [
            over_tokens(F.cosine_similarity(h, frozen, dim=-1).relu(), batch.forget.mask, "mean")
            for h, frozen in self._states(batch.forget, layers)
        ]
        moved = [
            over_tokens(((h - frozen).square().sum(-1) + 1e-8).sqrt(), batch.retain.mask, "mean")
            for h, frozen in self._states(batch.retain, range(layers[-1] + 1))
        ]
        return {"forget": torch.stack(aligned).mean(), "retain": torch.stack(moved).mean()}

    def units(self, batch: Batch) -> Mapping[str, Tensor | int]:
        """Return the real tokens that the losses are means over."""
        return {"forget": batch.forget.mask.sum(), "retain": batch.retain.mask.sum()}

    def combine(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return L."""
        s = self._progress()
        return self.settings.alpha * ((1 - s) * losses["forget"] + s * losses["retain"])

    def after_step(self, batch: Batch, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """Count the step; return the s that it was taken with."""
        s = self._progress()
        self.step += 1
        return {"rerouted": s}

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps."""
        return {"step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        self.step = state["step"]

    def _progress(self) -> float:
        return (self.step + 1) / (self.settings.ramp * self.context.steps)

    def _states(self, tokens: Tokens, layers: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Return h_l and h_l^frozen of each layer, float32."""
        now, before = self.context.hidden(tokens, layers), self.context.frozen_hidden(tokens, layers)
        return [(now[layer].float(), before[layer].float()) for layer in layers]
