"""The contract of an unlearning method: an objective with settings. The loop that trains it belongs to the harness.

A method says which parameters it trains (by name), prepares itself on the frozen model (`setup`), turns a batch into
named losses (`losses`) and says how they combine (`combine`). It knows neither the store nor the command line.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..harness.registry import Registry
from ..harness.specs import Kind, Spec

methods: Registry[type[Method]] = Registry("method", "unlearn_bench.methods", "unlearn_bench.methods")
register = methods.register


@dataclass(frozen=True)
class Range:
    """Where `unlearn-bench tune` looks for a setting: from `low` to `high`, both included.

    Whole numbers where both ends are; `log` spreads trials evenly over orders of magnitude.
    """

    low: float
    high: float
    log: bool = True


@dataclass(frozen=True)
class Depth:
    """Where it looks for a layer: between two fractions of the model's depth."""

    low: float = 0.15
    high: float = 0.7


class MethodSettings(Spec):
    """Settings of a method: every field is part of the identity of what it makes."""

    default_kind: ClassVar[Kind | None] = Kind.IDENTITY


@dataclass(frozen=True)
class Tokens:
    """A batch of token sequences, padded on the right.

    Attributes:
        ids: token ids, (batch, length).
        mask: 1 for real tokens, 0 for padding, (batch, length).
    """

    ids: Tensor
    mask: Tensor

    @property
    def last(self) -> Tensor:
        """Position of the last real token of each sequence, (batch,)."""
        return self.mask.sum(dim=1) - 1


@dataclass(frozen=True)
class Batch:
    """What one training step sees: text of one forget topic (topics alternate step by step) and retain text."""

    step: int
    topic: str
    forget: Tokens
    retain: Tokens


class Context(ABC):
    """What the harness gives a method: the model's activations, the training data and seeded randomness.

    Attributes:
        layers: number of decoder layers.
        hidden_size: width d of the residual stream.
        topics: names of the forget topics, in their order.
        steps: number of training steps of the run.
        rng: numpy generator of the cell's training seed, for everything a method draws.
        device: where batches live.
    """

    layers: int
    hidden_size: int
    topics: Sequence[str]
    steps: int
    rng: np.random.Generator
    device: torch.device

    @abstractmethod
    def hidden(self, tokens: Tokens, layers: Sequence[int]) -> dict[int, Tensor]:
        """Return h_l, the residual stream after decoder layer l (from 0), (batch, length, d), with gradients."""

    @abstractmethod
    def frozen_hidden(self, tokens: Tokens, layers: Sequence[int]) -> dict[int, Tensor]:
        """Return the same of the frozen model (before any step), without gradients."""

    @abstractmethod
    def layer_parameters(self, layers: Sequence[int], name: str) -> list[str]:
        """Return the full names of a layer's parameter (`mlp.down_proj.weight`) in the given decoder layers.

        Raises:
            UserError: where a layer does not exist or has no such parameter, naming those it has.
        """

    @abstractmethod
    def batch(self, step: int) -> Batch:
        """Return the batch of a step, a pure function of (training seed, step)."""

    @abstractmethod
    def labelled(self, limit: int | None = None) -> list[tuple[Tokens, np.ndarray]]:
        """Return batches of labelled text for probes with labels (batch,): 1 = to forget (toxic), 0 = other.

        `limit` takes a seeded sample of at most that many texts, at most half of them of either label.
        """


class Method(ABC):
    """An unlearning objective. Subclasses set the class attributes and implement the abstract functions.

    Class attributes:
        Settings: the pydantic model of the settings; defaults are the paper's where it gives any.
        version: raised whenever a change alters what the method makes from the same inputs.
        citation: where the method comes from.
        summary: one line for `unlearn-bench list methods`.
        search: setting to where `unlearn-bench tune` looks for it; a setting that is not named keeps its default.
    """

    Settings: ClassVar[type[MethodSettings]]
    version: ClassVar[int]
    citation: ClassVar[str]
    summary: ClassVar[str]
    search: ClassVar[Mapping[str, Range | Depth]] = {}

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    @abstractmethod
    def trained(self, context: Context) -> list[str]:
        """Return the full names of the parameters that this method trains."""

    def setup(self, context: Context) -> None:
        """Prepare on the frozen model (control vectors, probes). Must be a pure function of the context."""
        self.context = context

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the named losses of a batch, scalars with gradients."""

    @abstractmethod
    def combine(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return the scalar that the loop minimises in this step."""

    def after_step(self, batch: Batch, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """React to an optimiser step, given the losses before it; return values for the training log."""
        return {}

    def log_setup(self) -> dict[str, Any]:
        """Return what `setup` found, as plain JSON types, for the first row of the training log."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return what must survive an interruption beside weights and optimiser (`setup` is run again)."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Take back what `state_dict` returned."""
