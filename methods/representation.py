"""Methods that steer hidden states: their base class, distances, control vectors, which layers and parameters.

`h` is always (batch, length, d), a mask (batch, length). All real tokens are read, of a question and its answer those
of both (OpenUnlearning's RMU reads the answer's alone): what a model represents is not only where it predicts.
Distances are computed in float32 whatever the model's dtype.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from .base import Batch, Context, Method, MethodSettings

Reduction = Literal["mean", "sum"]


class LayerSettings(MethodSettings):
    """Where a method steers and what it trains, shared by the RMU family.

    The paper gives no layer; 7 with updates of 5, 6 and 7 is the choice of RMU's authors for Zephyr-7B. Parameters go
    by name: an index means another matrix in each model family.
    """

    layer: int = Field(7, ge=0, description="decoder layer l (from 0) whose output is steered")
    offsets: tuple[Annotated[int, Field(le=0)], ...] = Field((-2, -1, 0), description="layers trained, relative to l")
    parameters: tuple[str, ...] = Field(("mlp.down_proj.weight",), description="names within a decoder layer")
    reduction: Reduction = Field("mean", description="mean over real tokens and hidden size, or the equations' sums")

    def trained(self, context: Context) -> list[str]:
        """Return the full names of the trained parameters."""
        layers = [self.layer + offset for offset in self.offsets]
        return [name for parameter in self.parameters for name in context.layer_parameters(layers, parameter)]


class SteeringMethod(Method):
    """A method that steers the hidden states of the forget text at a layer l to a target, and holds the retain text's.

        L_F = squared distance of h_l(t) to the target, over the tokens of the forget text
        L_R = squared distance of h_l(t) to h_l^frozen(t), over those of the retain text,   L = L_F + alpha * L_R

    Its settings derive from `LayerSettings` and have an `alpha`. A subclass gives the target.

    Attributes:
        u: control vector by forget topic, (d,).
    """

    family = "steering"
    u: dict[str, Tensor]

    @abstractmethod
    def target(self, batch: Batch) -> Tensor:
        """Return what the hidden states of the forget text are steered to: (d,), or (batch, length, d)."""

    def trained(self, context: Context) -> list[str]:
        """Return the parameters of layers l-2, l-1 and l, or what the settings say in their place."""
        return self.settings.trained(context)

    def setup(self, context: Context) -> None:
        """Draw the control vectors."""
        self.u = control_vectors(context)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return L_F and L_R."""
        layer, reduction = self.settings.layer, self.settings.reduction
        target = self.target(batch)
        h_f = self.context.hidden(batch.forget, [layer])[layer]
        h_r = self.context.hidden(batch.retain, [layer])[layer]
        frozen = self.context.frozen_hidden(batch.retain, [layer])[layer]
        return {
            "forget": squared_distance(h_f, target, batch.forget.mask, reduction),
            "retain": squared_distance(h_r, frozen, batch.retain.mask, reduction),
        }

    def units(self, batch: Batch) -> Mapping[str, Tensor | int]:
        """Return over what the losses are means."""
        reduction = self.settings.reduction
        return {"forget": units_of(batch.forget.mask, reduction), "retain": units_of(batch.retain.mask, reduction)}

    def combine(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return L."""
        return losses["forget"] + self.settings.alpha * losses["retain"]


def over_tokens(values: Tensor, mask: Tensor, reduction: Reduction) -> Tensor:
    """Reduce one value a token, (batch, length), to a scalar; padding never counts.

    `mean`: mean over all real tokens of the batch. `sum`: sum over a sequence's tokens, mean over sequences.
    """
    return (values * mask).sum() / units_of(mask, reduction)


def units_of(mask: Tensor, reduction: Reduction) -> Tensor | int:
    """Return over how many units `over_tokens` is a mean: real tokens, or sequences."""
    return mask.sum() if reduction == "mean" else len(mask)


def squared_distance(h: Tensor, target: Tensor, mask: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Return ||h - target||^2 over tokens; `mean` also averages over the hidden size, `sum` adds it up."""
    squares = (h.float() - target.float()).square()
    return over_tokens(squares.mean(-1) if reduction == "mean" else squares.sum(-1), mask, reduction)


def cosine_distance(h: Tensor, target: Tensor, mask: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Return 1 - cos(h, target) over tokens."""
    return over_tokens(1 - F.cosine_similarity(h.float(), target.float(), dim=-1), mask, reduction)


def control_vectors(context: Context) -> dict[str, Tensor]:
    """Draw one unit vector u a forget topic: coordinates uniform on [0, 1), so all positive, divided by the norm."""
    draws = {topic: context.rng.random(context.hidden_size) for topic in context.topics}
    return {
        topic: torch.tensor(draw / np.linalg.norm(draw), dtype=torch.float32, device=context.device)
        for topic, draw in draws.items()
    }


def permute_tokens(h: Tensor, mask: Tensor, rng: np.random.Generator) -> Tensor:
    """Give every real token of the batch the hidden state of another at random: a destroyed representation."""
    real = mask.bool()
    destroyed = h.clone()
    rows = h[real]
    destroyed[real] = rows[torch.as_tensor(rng.permutation(len(rows)), device=h.device)]
    return destroyed


def last_token(h: Tensor, last: Tensor) -> Tensor:
    """Return the hidden state of each sequence's last real token, (batch, d)."""
    return h[torch.arange(len(last), device=h.device), last]


def mean_token(h: Tensor, mask: Tensor) -> Tensor:
    """Return the mean hidden state over each sequence's real tokens, (batch, d)."""
    weights = mask.unsqueeze(-1).float()
    return (h.float() * weights).sum(1) / weights.sum(1)


def nine_layers(count: int) -> list[int]:
    """Return three early, three middle and three late layers of `count`: the middles of nine equal parts of the depth.

    32 layers give 1, 5, 8, 12, 16, 19, 23, 26, 30; a model of nine layers or fewer gives all of them.
    """
    return list(range(count)) if count <= 9 else [(2 * part + 1) * count // 18 for part in range(9)]
