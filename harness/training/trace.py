"""Tracing a method: it runs on a model without weights, and every pass that a step asks for is written down."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ...methods.base import Batch, Method, Result, Tokens
from ..models.layers import decoder_layers, layer_of
from .context import ModelContext
from .forward import RecentCache, SharedPrefix


@dataclass(frozen=True)
class ForwardPass:
    """One pass that a method asks for: over which text, from which layer through how many, how many of them watched.

    `head`: on to the logits; `once`: once a text, however often the text comes round.
    """

    text: str
    start: int
    layers: int
    watched: int
    gradients: bool
    head: bool = False
    once: bool = False


class TracingContext(ModelContext):
    """A context that answers with random hidden states and logits of a few units and writes down what was asked.

    Attributes:
        passes: all passes so far.
        probe_limit: the most labelled texts that were asked for; None: all of them.
    """

    PROBE_BATCHES = 2

    def __init__(self, model: PreTrainedModel, topics: Sequence[str], auxiliary: Sequence[str] = ()) -> None:
        self.model = model
        self.prefix, self._modules = decoder_layers(model)
        self.layers, self.hidden_size = len(self._modules), 8
        self.topics, self.steps = list(topics), 1
        self.rng = np.random.default_rng(0)
        self.device = torch.device("cpu")
        self.passes: list[ForwardPass] = []
        self.probe_limit: int | None = None
        self._random = torch.Generator().manual_seed(0)
        beside = {name: self._tokens() for name in auxiliary}
        self._batch = Batch(0, self.topics[0], self._tokens(), self._tokens(), beside)
        self._probe = [self._tokens() for _ in range(self.PROBE_BATCHES)]
        self.shared, self._originals = 0, {}
        self.forget()

    def forget(self) -> None:
        """Forget what was answered, as for a new batch."""
        self._frozen, self._below_of = RecentCache(self.ANSWERS), RecentCache(SharedPrefix.BATCHES)

    def batch(self, step: int) -> Batch:
        """Return the same batch for every step."""
        return self._batch

    def labelled(self, limit: int | None = None) -> list[tuple[Tokens, np.ndarray]]:
        """Return a few batches of both labels."""
        self.probe_limit = limit
        return [(tokens, np.array([0, 1])) for tokens in self._probe]

    def memo(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """Return what `compute` makes now: all its passes count."""
        return compute()

    def take(self) -> tuple[ForwardPass, ...]:
        """Return the passes since the last call, and forget what was answered."""
        taken, self.passes = tuple(self.passes), []
        self.forget()
        return taken

    @torch.no_grad()
    def frozen_logprobs(self, tokens: Tokens) -> Tensor:
        """Return log-probabilities, and note a pass that happens once a text."""
        return self._noted(tokens, 0, self.layers, 0, head=True, once=True)[:, 1:, 0]

    @torch.no_grad()
    def stage_logits(self, stage: str, tokens: Tokens) -> Tensor:
        """Return random logits, and note a pass."""
        return self._noted(tokens, 0, self.layers, 0, head=True)

    def _head(self, tokens: Tokens, parameters: Mapping[str, Tensor] | None = None, depth: int | None = None) -> Tensor:
        """Return random logits, and note a pass."""
        return self._noted(tokens, self._start(tokens, self.shared), depth or self.layers, 0, head=True)

    def _run(
        self, tokens: Tokens, layers: Sequence[int], parameters: Mapping[str, Tensor] | None = None
    ) -> dict[int, Tensor]:
        """Return random states, and note a pass."""
        start = self._start(tokens, min(layers))
        states = [self._noted(tokens, start, max(layers) + 1, len(set(layers)))]
        states += [self._states(tokens) for _ in layers[1:]]
        return dict(zip(layers, states, strict=True))

    def _start(self, tokens: Tokens, first: int) -> int:
        """Return the layer that a pass begins with whose first watched layer is `first`."""
        shares, fresh = first >= self.shared > 0, list[bool]()
        if shares:
            self._below_of(tokens, None, lambda: fresh.append(True))
        return self.shared if shares and not fresh else 0

    def _noted(
        self, tokens: Tokens, start: int, layers: int, watched: int, head: bool = False, once: bool = False
    ) -> Tensor:
        named = [("forget", self._batch.forget), ("retain", self._batch.retain)]
        named += [("forget", other) for other in self._batch.auxiliary.values()]
        text = next((name for name, own in named if own is tokens), "probe")
        self.passes.append(ForwardPass(text, start, layers, watched, torch.is_grad_enabled(), head, once))
        return self._states(tokens)

    def _states(self, tokens: Tokens) -> Tensor:
        shape = (*tokens.ids.shape, self.hidden_size)
        return torch.randn(shape, generator=self._random).requires_grad_(torch.is_grad_enabled())

    @staticmethod
    def _tokens() -> Tokens:
        return Tokens(torch.zeros(2, 6, dtype=torch.long), torch.ones(2, 6, dtype=torch.long))


@dataclass(frozen=True)
class Workload:
    """What a method trains and runs.

    Attributes:
        trained: names of the parameters that change.
        setup, step: passes of the set-up and of one batch.
        probe_limit: labelled texts that were asked for; None: all.
        layers: how many first layers are read or trained.
        elements: how many values the optimiser moves; None: those of the parameters that change.
        objectives: gradients that a step needs beside each other.
    """

    trained: tuple[str, ...]
    setup: tuple[ForwardPass, ...]
    step: tuple[ForwardPass, ...]
    probe_limit: int | None
    layers: int
    elements: int | None = None
    objectives: int = 1

    @property
    def head(self) -> bool:
        """Whether logits are read."""
        return any(item.head for item in (*self.setup, *self.step))


def trace_method(method: Method, model: PreTrainedModel, topics: Sequence[str] = ("forget",)) -> Workload:
    """Run the method's set-up and one batch on random states of the skeleton and return what it asked for."""
    context = TracingContext(model, topics, method.auxiliary)
    trained = tuple(dict.fromkeys(method.trained(context)))
    context.shared = min(layer_of(name, context.prefix) for name in trained)
    with torch.no_grad():
        method.context = context
        method.setup(context)
    setup = context.take()
    batch = context.batch(0)
    with torch.enable_grad():
        losses = method.losses(batch)
        objectives = len(method.objectives(losses))
    with torch.no_grad():
        values = {name: loss.detach() for name, loss in losses.items()}
        row = {"step": 0, **{name: value.item() for name, value in values.items()}, **method.after_step(batch, values)}
        method.should_stop(row)
    step = context.take()
    deepest = max(layer_of(name, context.prefix) + 1 for name in trained)
    layers = max([deepest, *(item.layers for item in (*setup, *step))])
    lora, known = method.lora(), dict(model.named_parameters())
    elements = lora and sum(lora.rank * sum(known[name].shape) for name in trained)
    return Workload(trained, setup, step, context.probe_limit, layers, elements, objectives)
