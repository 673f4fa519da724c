"""The contract of an engine: it answers requests with raw outcomes, whatever they were batched with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ...methods.base import DecodingMethod
from ...tasks.base import ChoiceRequest, Decoding, GenerationRequest, TraceRequest
from ..errors import UserError, suggest
from ..models.load import ModelSpec
from ..models.patch import check_delta as check_delta
from ..records import Choices, Generations, Traces
from ..registry import Registry

if TYPE_CHECKING:
    import torch

engines: Registry[type[Engine]] = Registry("engine", "unlearn_bench.harness.engines", "unlearn_bench.engines")
register = engines.register

Progress = Callable[[int], None]
"""Called with the number of items that were just finished."""


HALF = ("bfloat16", "float16")
"""Dtypes in which answers follow the batch that they are made in."""


def recorded_batch(dtype: str, size: Any) -> dict[str, Any]:
    """Return what an engine records of the size of its batches: nothing in float32, whose answers do not follow it."""
    return {"batch_size": size} if dtype in HALF else {}


class Engine(ABC):
    """A loaded base model that can take a checkpoint's changed tensors and give them back.

    In float32 an item's log-probabilities do not depend on its batch beyond `tolerance` (nats a token), and its texts
    only where a draw lies within last bits of an edge. In half precision both follow the batch, so `recorded` names its
    size. Sampling noise is keyed by (seed, item, sample, position).

    Class attributes:
        summary: one line for `unlearn-bench list engines`.
        tolerance: how far log-probabilities may lie from those of the reference engine in float32, nats a token.
        options: what `--engine-option` takes, with what each does; in float32 they change no result beyond the
            tolerance.
        alone: whether it takes a GPU for itself, so that nothing else of a worker stays there beside it.
        wrappers: whether it runs methods that work at decoding time (`wrap`).
        traces: whether it traces given texts; `moments`: with mean and variance over the vocabulary too.
    """

    summary: ClassVar[str]
    tolerance: ClassVar[float] = 1e-4
    options: ClassVar[Mapping[str, str]] = {}
    alone: ClassVar[bool] = False
    wrappers: ClassVar[bool] = False
    traces: ClassVar[bool] = False
    moments: ClassVar[bool] = False
    closed: bool = False

    @abstractmethod
    def __init__(
        self, model: ModelSpec, *, device: str = "cpu", batch_size: int = 64, options: Mapping[str, Any] | None = None
    ) -> None:
        """Load the base model; `batch_size` is the number of sequences that run together."""

    @classmethod
    def unusable(cls) -> str | None:
        """Return why the engine cannot run on this machine and what to do, None where it can; loads no model."""
        return None

    @classmethod
    def check_options(cls, name: str, options: Mapping[str, Any]) -> None:
        """Raise a `UserError` on an option that the engine called `name` does not take."""
        for key in options:
            if key not in cls.options:
                raise UserError(f"Engine {name} has no option {key!r}.{suggest(key, cls.options)}")

    def close(self) -> None:
        """Give back memory and processes; the engine answers nothing afterwards, and `closed` says so."""
        self.closed = True

    @abstractmethod
    def apply(self, delta: Mapping[str, torch.Tensor]) -> None:
        """Replace the named tensors by those of a checkpoint; raise a `UserError` on an unknown name or shape."""

    def wrap(self, tensors: Mapping[str, torch.Tensor], method: DecodingMethod) -> None:
        """Let a method change the base's logits, with the assistant that a checkpoint's tensors make.

        Raises:
            UserError: an unknown name or shape, a depth that the model has not, or an engine without `wrappers`.
        """
        raise UserError(
            f"{type(self).__name__} cannot run a method that works at decoding time; pass --engine transformers."
        )

    def broken_tensor(self) -> str | None:
        """Return the name of a tensor of the model that holds a value that is not finite; None: it knows of none."""
        return None

    @abstractmethod
    def restore(self) -> None:
        """Put the base model's tensors back, bit by bit, and answer as the base alone."""

    @abstractmethod
    def score_choices(self, requests: Sequence[ChoiceRequest], progress: Progress | None = None) -> list[Choices]:
        """Return the log-probabilities of each request's choices after its context, in the requests' order.

        Tokens are split as in lm-eval: spaces at the end of the context move to the choice, both are encoded
        together, and the choice is what follows the context's own tokens. Overlong contexts are cut from the left
        and counted.
        """

    def trace(self, requests: Sequence[TraceRequest], progress: Progress | None = None) -> list[Traces]:
        """Return what the model thinks of each token of each request's texts, in the requests' order.

        Text and context are encoded together; spaces at the end of a context are no part of the text, and a token that
        holds some of both is. The end token, where asked for, is the tokenizer's. Contexts that do not fit together
        with the whole text are cut from the left and counted. A log-probability lies
        within `tolerance` of the reference engine's, a mean or variance within a thousandth; which of two equally
        probable tokens is a hit may differ.

        Raises:
            UserError: a text longer than the model takes, or an engine without `traces`.
        """
        raise UserError(f"{type(self).__name__} cannot trace given texts; pass --engine transformers.")

    @abstractmethod
    def generate(
        self, requests: Sequence[GenerationRequest], decoding: Decoding, progress: Progress | None = None
    ) -> list[Generations]:
        """Return `decoding.samples` continuations a request, in the requests' order.

        A continuation ends at any end token of the generation configuration, and before the first of `decoding.stop`.
        One whose logits stop being finite is empty: no text, no tokens, `stopped` False. Overlong prompts are cut from
        the left and counted.
        """

    @abstractmethod
    def recorded(self) -> dict[str, Any]:
        """Return what stands beside an outcome: device, dtype, attention kernel, threads, library versions."""
