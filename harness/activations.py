"""What a method sees of a model: activations of its decoder layers, parameters by name, batches, randomness."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..methods.base import Batch, Context, Tokens
from .batches import Batches, generator
from .errors import UserError, suggest


def decoder_layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """Return the full name of the list of decoder layers (`model.layers`) and the list.

    Raises:
        UserError: where the model has no list of as many modules as its configuration has layers.
    """
    count = model.config.get_text_config(decoder=True).num_hidden_layers
    own = getattr(model.get_decoder(), "layers", None)
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    for name, module in lists:
        if module is own:
            return name, module
    for name, module in lists:
        if len(module) == count:
            return name, module
    raise UserError(
        f"{type(model).__name__} has no list of {count} decoder layers; its methods cannot find activations."
    )


class ModelContext(Context):
    """The `Context` of a loaded model.

    Args:
        model: a causal language model; the hooks are removed after every call.
        batches: the batches of the run.
        seed: the cell's training seed, from which `rng` derives.
    """

    def __init__(self, model: PreTrainedModel, batches: Batches, seed: int) -> None:
        self.model, self._batches = model, batches
        self._prefix, self._modules = decoder_layers(model)
        self.layers = len(self._modules)
        self.hidden_size = model.config.get_text_config(decoder=True).hidden_size
        self.topics = batches.topics
        self.steps = batches.steps
        self.rng = generator(seed, "method")
        self.device = model.device
        self._originals: Mapping[str, Tensor] = {}
        self._last_frozen: tuple[Tokens, tuple[int, ...], dict[int, Tensor]] | None = None

    def keep_originals(self, originals: Mapping[str, Tensor]) -> None:
        """Tell which parameters train, with the values that `frozen_hidden` puts in their place."""
        self._originals = originals

    def hidden(self, tokens: Tokens, layers: Sequence[int]) -> dict[int, Tensor]:
        """Return the residual stream after each of `layers`; layers beyond the deepest of them do not run."""
        self._check(layers)
        with self._captured(layers) as found:
            self._forward(lambda **inputs: self.model(**inputs), tokens)
        return found

    @torch.no_grad()
    def frozen_hidden(self, tokens: Tokens, layers: Sequence[int]) -> dict[int, Tensor]:
        """Return the same of the frozen model, by swapping the original values in for one pass.

        The last answer is kept, because an evaluation after the optimiser step asks for it again.
        """
        wanted = tuple(layers)
        if self._last_frozen and self._last_frozen[0] is tokens and self._last_frozen[1] == wanted:
            return self._last_frozen[2]
        self._check(layers)
        originals = dict(self._originals)
        with self._captured(layers) as found:
            self._forward(lambda **inputs: torch.func.functional_call(self.model, originals, (), inputs), tokens)
        self._last_frozen = (tokens, wanted, found)
        return found

    def layer_parameters(self, layers: Sequence[int], name: str) -> list[str]:
        """Return the full names of the parameter `name` of each of `layers`."""
        self._check(layers)
        for layer in layers:
            own = [key for key, _ in self._modules[layer].named_parameters()]
            if name not in own:
                raise UserError(
                    f"Decoder layer {layer} of {type(self.model).__name__} has no parameter {name!r}."
                    f"{suggest(name, own)} It has: {', '.join(own)}."
                )
        return [f"{self._prefix}.{layer}.{name}" for layer in layers]

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, a pure function of (training seed, step)."""
        return self._batches.batch(step)

    def labelled(self, limit: int | None = None) -> list[tuple[Tokens, np.ndarray]]:
        """Return batches of labelled text for probes, all of it or a seeded sample."""
        return self._batches.labelled(limit)

    def _check(self, layers: Sequence[int]) -> None:
        wrong = [layer for layer in layers if not 0 <= layer < self.layers]
        if wrong or not layers:
            raise UserError(
                f"Decoder layer {', '.join(map(str, wrong)) or '(none)'} was asked for, but {type(self.model).__name__}"
                f" has {self.layers} decoder layers (0 to {self.layers - 1}); change the method's layer settings."
            )

    def _forward(self, call: Callable[..., Any], tokens: Tokens) -> None:
        try:
            call(input_ids=tokens.ids, attention_mask=tokens.mask, use_cache=False)
        except _DeepEnough:
            return

    @contextmanager
    def _captured(self, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
        """Collect the outputs of `layers` while the block runs and stop the pass after the deepest."""
        found: dict[int, Tensor] = {}
        deepest = max(layers)

        def keep(layer: int) -> Callable[..., None]:
            def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
                found[layer] = output if isinstance(output, Tensor) else output[0]
                if layer == deepest:
                    raise _DeepEnough

            return hook

        handles = [self._modules[layer].register_forward_hook(keep(layer)) for layer in set(layers)]
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()


class _DeepEnough(Exception):
    """Ends a forward pass after the deepest layer that was asked for."""
