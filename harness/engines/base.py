"""The contract of an engine: it answers requests with raw outcomes, whatever they were batched with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch

from ...tasks.base import ChoiceRequest, Decoding, GenerationRequest
from ..models import ModelSpec
from ..records import Choices, Generations
from ..registry import Registry

engines: Registry[type[Engine]] = Registry("engine", "unlearn_bench.harness.engines", "unlearn_bench.engines")
register = engines.register

Progress = Callable[[int], None]
"""Called with the number of items that were just finished."""


class Engine(ABC):
    """A loaded base model that can take a checkpoint's changed tensors and give them back.

    Outcomes are batch-invariant: an item's texts do not depend on its batch, its log-probabilities not beyond
    `tolerance` (nats). Sampling noise is keyed by (seed, item, sample, position).
    """

    summary: ClassVar[str]
    tolerance: ClassVar[float] = 1e-4

    @abstractmethod
    def __init__(self, model: ModelSpec, *, device: str = "cpu", batch_size: int = 64) -> None:
        """Load the base model; `batch_size` is the number of sequences that run together (runtime only)."""

    @abstractmethod
    def apply(self, delta: Mapping[str, torch.Tensor]) -> None:
        """Replace the named tensors by those of a checkpoint; raise a `UserError` on an unknown name or shape."""

    @abstractmethod
    def restore(self) -> None:
        """Put the base model's tensors back, bit by bit."""

    @abstractmethod
    def score_choices(self, requests: Sequence[ChoiceRequest], progress: Progress | None = None) -> list[Choices]:
        """Return the log-probabilities of each request's choices after its context, in the requests' order.

        Tokens are split as in lm-eval: spaces at the end of the context move to the choice, both are encoded
        together, and the choice is what follows the context's own tokens. Overlong contexts are cut from the left
        and counted.
        """

    @abstractmethod
    def generate(
        self, requests: Sequence[GenerationRequest], decoding: Decoding, progress: Progress | None = None
    ) -> list[Generations]:
        """Return `decoding.samples` continuations a request, in the requests' order."""

    @abstractmethod
    def recorded(self) -> dict[str, Any]:
        """Return what stands beside an outcome: device, dtype, attention kernel, threads, library versions."""
