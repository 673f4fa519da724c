"""Forward passes through a part of a model's decoder layers: from states at hand to the deepest layer that is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...methods.base import Tokens
from ..models.layers import first_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ForwardPasses:
    """Runs a model from its embeddings, or a layer's output, to the deepest layer that is read, or to its logits.

    Args:
        model: a causal language model; hooks and changed functions are taken away after every pass.
        modules: its decoder layers.

    Attributes:
        checkpointing: keep only the layers' inputs for the backward pass and run each layer again there: less memory,
            the same gradients, about a third more time.
    """

    def __init__(self, model: PreTrainedModel, modules: nn.ModuleList) -> None:
        self.model, self._modules = model, modules
        self.checkpointing = False

    def run(
        self, tokens: Tokens, layers: Sequence[int], parameters: Mapping[str, Tensor] | None = None, below: Any = None
    ) -> dict[int, Tensor]:
        """Return the residual stream after each of `layers`, (batch, length, d).

        Args:
            tokens: what to read.
            layers: decoder layers from 0.
            parameters: values that stand in for those of the named parameters in this pass.
            below: (layer, its output): neither it nor the layers before it run.
        """
        start, output = below or (-1, None)
        states: dict[int, Tensor] = {}
        with self._captured(layers, states), self._replaced(start, output, max(layers)), suppress(_DeepEnough):
            self._forward(tokens, parameters or {})
        return {layer: state if isinstance(state, Tensor) else state[0] for layer, state in states.items()}

    def logits(
        self,
        tokens: Tokens,
        parameters: Mapping[str, Tensor] | None = None,
        below: Any = None,
        depth: int | None = None,
    ) -> Tensor:
        """Return the logits, (batch, length, vocabulary), of the whole model or its first `depth` layers; see `run`."""
        start, output = below or (-1, None)
        deepest = (depth or len(self._modules)) - 1
        with self._replaced(start, output, deepest), first_layers(self._modules, deepest + 1):
            return self._forward(tokens, parameters or {}).logits

    @torch.no_grad()
    def output(self, tokens: Tokens, layer: int) -> Any:
        """Return what a layer hands on, in its own form: the residual stream, or a tuple that begins with it."""
        outputs: dict[int, Any] = {}
        with self._captured([layer], outputs), suppress(_DeepEnough):
            self._forward(tokens, {})
        return outputs[layer]

    def _forward(self, tokens: Tokens, parameters: Mapping[str, Tensor]) -> Any:
        inputs = {"input_ids": tokens.ids, "attention_mask": tokens.mask, "use_cache": False}
        if not parameters:
            return self.model(**inputs)
        return torch.func.functional_call(self.model, dict(parameters), (), inputs)

    @contextmanager
    def _captured(self, layers: Sequence[int], found: dict[int, Any]) -> Iterator[None]:
        """Collect the outputs of `layers` while the block runs and stop the pass after the deepest."""
        deepest = max(layers)

        def keep(layer: int) -> Callable[..., None]:
            def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
                found[layer] = output
                if layer == deepest:
                    raise _DeepEnough

            return hook

        handles = [self._modules[layer].register_forward_hook(keep(layer)) for layer in set(layers)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def _replaced(self, start: int, output: Any, deepest: int) -> Iterator[None]:
        """Let layers up to `start` answer with `output`, whatever their input, and checkpoint those after them."""
        below = list(self._modules)[: start + 1]
        above = list(self._modules)[start + 1 : deepest + 1] if self.checkpointing and torch.is_grad_enabled() else []
        for module in below:
            module.forward = lambda *_, **__: output
        for module in above:
            module.forward = partial(checkpoint, module.forward, use_reentrant=False, preserve_rng_state=False)
        try:
            yield
        finally:
            for module in (*below, *above):
                del module.forward


class _DeepEnough(Exception):
    """Ends a forward pass after the deepest layer that was asked for."""


class RecentCache:
    """The last few answers, each known by the batch itself (not its content) and by what was asked of it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: list[tuple[Tokens, Any, Any]] = []

    def __call__(self, tokens: Tokens, asked: Any, answer: Callable[[], Any]) -> Any:
        """Return the held answer, else that of `answer`, which is held then."""
        for known, wanted, value in self._held:
            if known is tokens and wanted == asked:
                return value
        value = answer()
        self._held = [*self._held[1 - self._size :], (tokens, asked, value)]
        return value


class SharedPrefix:
    """The layers below every trained one: they answer the same for the updated and the frozen model, so they run once.

    Args:
        passes: runs the model.
        layer: the last of these layers.
        by_text: run text by text, without padding, so that an answer depends on the text alone, and keep the answers
            in main memory while they take at most a quarter of it.
    """

    BATCHES = 2
    """Batches whose states are kept: a step's forget and retain text."""

    def __init__(self, passes: ForwardPasses, layer: int, by_text: bool = False) -> None:
        self._passes, self.layer, self._by_text = passes, layer, by_text
        self._recent = RecentCache(self.BATCHES)
        self._kept: dict[bytes, Tensor] = {}
        self._room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4

    def __call__(self, tokens: Tokens) -> tuple[int, Any]:
        """Return the last layer below and its output for the tokens, as `ForwardPasses.run` takes it."""
        return self.layer, self._recent(tokens, None, lambda: self._output(tokens))

    def _output(self, tokens: Tokens) -> Any:
        return self._texts(tokens) if self._by_text else self._passes.output(tokens, self.layer)

    def same(self, tokens: Tokens, last: int) -> bool:
        """Return whether layer `last` answers the same, bit by bit, when this output is put in its place.

        Not so in models whose layers hand more on than their output.
        """
        below = (self.layer, self._passes.output(tokens, self.layer))
        with torch.no_grad():
            whole, part = (self._passes.run(tokens, [last], below=start)[last] for start in (None, below))
        return torch.equal(part, whole)

    def _texts(self, tokens: Tokens) -> Any:
        """Return the output for a batch, put together from those of its texts; zero where there is padding."""
        lengths = (tokens.last + 1).tolist()
        rows = [self._text(tokens, row, length) for row, length in enumerate(lengths)]
        states = rows[0].new_zeros((len(rows), tokens.ids.shape[1], rows[0].shape[-1]), device=tokens.ids.device)
        for row, (state, length) in enumerate(zip(rows, lengths, strict=True)):
            states[row, :length] = state.to(states.device)
        return (states,) if self._packed else states

    def _text(self, tokens: Tokens, row: int, length: int) -> Tensor:
        ids = tokens.ids[row, :length]
        key = ids.cpu().numpy().tobytes()
        if key not in self._kept:
            output = self._passes.output(Tokens(ids[None], torch.ones_like(ids[None])), self.layer)
            self._packed = not isinstance(output, Tensor)
            state = (output[0] if self._packed else output)[0]
            if state.nbytes > self._room:
                return state
            self._kept[key] = state.cpu()
            self._room -= state.nbytes
        return self._kept[key]
