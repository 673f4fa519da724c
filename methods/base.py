"""The contract of an unlearning method: an objective with settings. The loop that trains it belongs to the harness.

A method says which parameters it trains (by name), prepares itself on the frozen model (`setup`), turns a batch into
named losses (`losses`) and says how they combine (`combine`). It knows neither the store nor the command line.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, TypeVar

from ..harness.errors import UserError
from ..harness.records import LogRole
from ..harness.registry import Registry
from ..harness.specs import Kind, Spec

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

methods: Registry[type[Method]] = Registry("method", "unlearn_bench.methods", "unlearn_bench.methods")
register = methods.register
Result = TypeVar("Result")
Status: TypeAlias = Literal["faithful", "reading", "variant", "unknown"]
"""How near a method is to its source: its formula, read in the paper or the official code; some parts ours; ours."""


def build_method(name: str, settings: Mapping[str, Any]) -> Method:
    """Return a registered method with its settings; raise a `UserError` where there is none, or it refuses them."""
    kind = methods.get(name)
    return kind(kind.Settings.parse(settings, name))


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
        targets: 1 for tokens that count where they are predicted, as those of answers, (batch, length); None: all real
            ones.
    """

    ids: Tensor
    mask: Tensor
    targets: Tensor | None = None

    @property
    def counted(self) -> Tensor:
        """1 for the predicted tokens that count, 0 for others and padding, (batch, length - 1)."""
        return (self.mask if self.targets is None else self.targets)[:, 1:]

    @property
    def last(self) -> Tensor:
        """Position of the last real token of each sequence, (batch,)."""
        return self.mask.sum(dim=1) - 1


@dataclass(frozen=True)
class Batch:
    """What one training step sees: text of one forget topic (topics alternate step by step) and retain text.

    Attributes:
        auxiliary: by the names that the method asks for, the forget rows once more: the same prompts, other answers.
    """

    step: int
    topic: str
    forget: Tokens
    retain: Tokens
    auxiliary: Mapping[str, Tokens] = field(default_factory=dict)


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
    def logits(self, tokens: Tokens, depth: int | None = None) -> Tensor:
        """Return the logits at every position, (batch, length, vocabulary), in the model's dtype, with gradients.

        With a `depth` they are those of the model's first `depth` decoder layers under its norm and head.

        Raises:
            UserError: where the model has fewer layers.
        """

    @abstractmethod
    def frozen_logits(self, tokens: Tokens) -> Tensor:
        """Return the same of the frozen model, without gradients; nothing is kept."""

    @abstractmethod
    def stage_logits(self, stage: str, tokens: Tokens) -> Tensor:
        """Return the same of the model that an earlier stage made, without gradients; see `Method.stages`.

        Raises:
            UserError: where no such stage came before.
        """

    def logprobs(self, tokens: Tokens) -> Tensor:
        """Return the log-probability of each next token, (batch, length - 1), float32, with gradients.

        It is 0 where a token does not count: at padding, and outside of answers (`Tokens.counted`).
        """
        return next_logprobs(self.logits(tokens), tokens)

    @abstractmethod
    def frozen_logprobs(self, tokens: Tokens) -> Tensor:
        """Return the same of the frozen model, without gradients.

        Computed once a text and kept in main memory: later epochs, and a resumed run, get the same bits.
        """

    @abstractmethod
    def parameters(self, layers: Sequence[int] | None = None, matrices: bool = False) -> list[str]:
        """Return the full names of all parameters, tied ones once, or of those in the given decoder layers.

        `matrices` takes only the weights of the decoder layers' linear maps.

        Raises:
            UserError: where a layer does not exist.
        """

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

        `limit` takes a seeded sample of at most that many texts, at most half of them of either label. Texts of a batch
        are about equally long; a batch of short ones holds more of them than one to train on.
        """

    def memo(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """Return what `compute` makes of the frozen model; kept for later trainings in the same process.

        The key must hold all else that the result depends on: nothing may be drawn from `rng`. A result is small, and
        nobody changes it.
        """
        return compute()


def next_logprobs(logits: Tensor, tokens: Tokens) -> Tensor:
    """Return the log-probability of each next token, (batch, length - 1), float32; 0 where it does not count."""
    import torch.nn.functional as F

    rows, length = tokens.ids.shape
    nll = F.cross_entropy(logits[:, :-1].float().flatten(0, 1), tokens.ids[:, 1:].flatten(), reduction="none")
    return -nll.view(rows, length - 1) * tokens.counted


@dataclass(frozen=True)
class LoRA:
    """Low-rank training of matrices: W + (alpha / rank) B A, of which A and B train; B starts at zero."""

    rank: int
    alpha: float


Gradients: TypeAlias = "Mapping[str, Tensor]"
"""Parameter name to gradient."""


@dataclass(frozen=True)
class Stage:
    """A model that is trained before a method, by an objective of its own, and that the method can ask.

    Attributes:
        method: the objective; its own stages are not asked for, and what it asks for beside forget rows (`auxiliary`)
            must be among what the method asks for.
        training: what differs from the cell's training settings (`{"steps": None, "epochs": 3}`).
        start: the earlier stage whose model it goes on from; None: the model that the method starts from.
    """

    method: Method
    training: Mapping[str, Any] = field(default_factory=dict)
    start: str | None = None


class Method(ABC):
    """An unlearning objective. Subclasses set the class attributes and implement the abstract functions.

    Class attributes:
        Settings: the pydantic model of the settings; defaults are the paper's where it gives any.
        version: raised whenever a change alters what the method makes from the same inputs.
        citation: where the method comes from.
        summary: one line for `unlearn-bench list methods`.
        family: what it works by, one word: `--methods family:preference` takes all of one.
        status: how near it is to its source (`Status`); a subclass says its own.
        start: the stage whose model it goes on from, its frozen model then; None: the model as it was before any stage.
        changes: whether its checkpoint has other weights, or answers otherwise at decoding time (`DecodingMethod`).
        auxiliary: names of texts that it trains on beside each forget row (`Batch.auxiliary`): columns of the rows, or
            pools of lines, of the track's corpora.
        search: setting to where `unlearn-bench tune` looks for it; a setting that is not named keeps its default.
        log_schema: what the columns are that it logs beside those of this class; one that is not named is a loss.

    Attributes:
        settings: validated settings.
        context: what the harness gives it, from before `setup` on.
    """

    Settings: ClassVar[type[MethodSettings]]
    version: ClassVar[int]
    citation: ClassVar[str]
    summary: ClassVar[str]
    family: ClassVar[str] = "other"
    status: ClassVar[Status] = "unknown"
    start: ClassVar[str | None] = None
    changes: ClassVar[Literal["weights", "decoding"]] = "weights"
    auxiliary: ClassVar[tuple[str, ...]] = ()
    search: ClassVar[Mapping[str, Range | Depth]] = {}
    log_schema: ClassVar[Mapping[str, LogRole]] = {
        "forget": "loss",
        "retain": "loss",
        "total": "total",
        "alpha": "weight",
    }
    context: Context

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    @abstractmethod
    def trained(self, context: Context) -> list[str]:
        """Return the full names of the parameters that this method trains."""

    def lora(self) -> LoRA | None:
        """Return how the trained tensors move: themselves (None), or by a low-rank change, merged in the end."""
        return None

    def stages(self) -> Mapping[str, Stage]:
        """Return the models that are trained before this method, by name, in their order.

        The harness trains them on the same text and seed before `setup`. What a stage made is then there, without
        gradients, for later stages and this method (`Context.stage_logits`). It is a pure function of the settings.
        """
        return {}

    def setup(self, context: Context) -> None:  # noqa: B027
        """Prepare on the frozen model (control vectors, probes). Must be a pure function of the context."""

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the named losses of a batch, scalars with gradients."""

    def combine(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return the scalar that the loop minimises in this step: the sum, unless a method says otherwise."""
        import torch

        return torch.stack(list(losses.values())).sum()

    def units(self, batch: Batch) -> Mapping[str, Tensor | int]:
        """Return by loss over how many units it is a mean in a batch: its texts, or the tokens that it counts.

        With `accumulation_mean: tokens` the loop weighs the batches of a step by them, so that they make the losses of
        one large batch; `combine` must be linear in the losses then.

        Raises:
            UserError: the method does not say.
        """
        raise UserError(
            f"{type(self).__name__} does not say over what its losses are means (`units`); train it with"
            " `accumulation_mean: batches`."
        )

    def combine_gradients(self, gradients: Mapping[str, Gradients]) -> Gradients:
        """Return the gradient that the optimiser gets, by parameter name.

        A method that overrides this gets the gradient of each loss by the loss's name, a mean over the batches of the
        step (see `units`); `combine` is not asked then. Otherwise there is one gradient, that of `combine`.
        """
        (gradient,) = gradients.values()
        return gradient

    def objectives(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the scalars that the loop differentiates: the combined one, or each loss for `combine_gradients`."""
        if type(self).combine_gradients is Method.combine_gradients:
            return {"total": self.combine(losses)}
        return dict(losses)

    def after_step(self, batch: Batch, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """React to an optimiser step, given its last batch and the losses before it; return values for the log."""
        return {}

    def should_stop(self, row: Mapping[str, Any]) -> str | None:
        """Return why training ends with this step, in words for the log; None: it goes on, at most to its last step.

        Asked after every step, without gradients, with the row of the log. What the rule remembers belongs into
        `state_dict`.
        """
        return None

    def finish(self, delta: Mapping[str, Tensor], originals: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the change that the checkpoint gets in place of the trained one: theta_0 + finish(theta - theta_0).

        Both are float32, on the CPU, by the full names of the model's parameters, a LoRA merged. A tensor that is left
        out keeps its value of before. Must be a pure function of them.
        """
        return delta

    def log_setup(self) -> dict[str, Any]:
        """Return what `setup` found, as plain JSON types, for the first row of the training log."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return what must survive an interruption beside weights and optimiser (`setup` is run again)."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Take back what `state_dict` returned."""


class DecodingMethod(Method):
    """A method that leaves the base's weights alone and changes its logits, with a small assistant beside it.

    The assistant is the base's first `depth` decoder layers under the base's own norm and head. What is trained (with
    `Context.logits(tokens, depth)`) are the assistant's tensors, which the checkpoint keeps by the base's names.
    """

    changes = "decoding"
    family = "decoding"

    @property
    @abstractmethod
    def depth(self) -> int | None:
        """Number of the assistant's decoder layers; None: all."""

    @abstractmethod
    def decode(self, base: Tensor, assistant: Tensor) -> Tensor:
        """Return the logits to answer with, given those of both, float32, (…, vocabulary); each position by itself."""
