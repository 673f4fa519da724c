"""What a method sees of a model: activations of its decoder layers, logits, parameters by name, batches, randomness."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from hashlib import sha256
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ...methods.base import Batch, Context, Result, Tokens, next_logprobs
from ..errors import LayerNotLoaded, UserError, suggest
from ..models.layers import decoder_layers, layer_of
from ..rng import generator
from .batches import Batches
from .forward import ForwardPasses, RecentCache, SharedPrefix

_MEMORY: WeakKeyDictionary[PreTrainedModel, dict[Hashable, Any]] = WeakKeyDictionary()
"""What methods found on a frozen model, by what they asked; see `Context.memo`."""


class ModelContext(Context):
    """The `Context` of a loaded model.

    Layers below every trained one run once a batch, for the updated and the frozen model alike; nothing runs beyond the
    deepest layer that is read, unless logits are.

    Args:
        model: a causal language model, or its first layers.
        batches: the batches of the run.
        seed: the cell's training seed, from which `rng` derives.
        device: where batches go.
        depth: decoder layers of the whole model, where `model` is a part of it.

    Attributes:
        prefix: full name of the list of decoder layers.
        shared: number of layers that run once for both.
        references: what `frozen_logprobs` keeps: log-probabilities, (length - 1,), by the digest of a text's tokens.
        arithmetic: what else the bits of the frozen model's states depend on, as the precision.
    """

    ANSWERS = 2
    """Answers of the frozen model that are kept: an evaluation after the optimiser step asks for them again."""
    LOGITS = 1 << 23
    """Logits of the frozen model that a pass over several texts may make: the memory of one long text or many short."""

    def __init__(
        self, model: PreTrainedModel, batches: Batches, seed: int, device: torch.device, depth: int | None = None
    ) -> None:
        self.model, self._batches = model, batches
        self.prefix, self._modules = decoder_layers(model)
        self.passes = ForwardPasses(model, self._modules)
        self.layers = depth or len(self._modules)
        self.hidden_size = model.config.get_text_config(decoder=True).hidden_size
        self.topics = batches.topics
        self.steps = batches.steps
        self.rng = generator(seed, "method")
        self.device = device
        self.shared = 0
        self._originals: Mapping[str, Tensor] = {}
        self._stages: dict[str, Mapping[str, Tensor]] = {}
        self.arithmetic: Hashable = None
        self._below: SharedPrefix | None = None
        self._frozen = RecentCache(self.ANSWERS)
        self.references: dict[str, Tensor] = {}

    def keep_originals(self, originals: Mapping[str, Tensor], by_text: bool = False) -> None:
        """Tell which parameters train, with the values that `frozen_hidden` puts in their place; see `SharedPrefix`."""
        self._originals = originals
        shared = min(layer_of(name, self.prefix) for name in originals)
        below = SharedPrefix(self.passes, shared - 1, by_text) if shared else None
        if below is not None and below.same(self.batch(0).forget, len(self._modules) - 1):
            self.shared, self._below = shared, below

    def hidden(self, tokens: Tokens, layers: Sequence[int]) -> dict[int, Tensor]:
        """Return the residual stream after each of `layers`; layers beyond the deepest of them do not run."""
        self._check(layers)
        return self._run(tokens, layers)

    @torch.no_grad()
    def frozen_hidden(self, tokens: Tokens, layers: Sequence[int]) -> dict[int, Tensor]:
        """Return the same of the frozen model, by swapping the original values in for one pass."""
        self._check(layers)
        return self._frozen(tokens, tuple(layers), lambda: self._run(tokens, layers, self._originals))

    def logits(self, tokens: Tokens, depth: int | None = None) -> Tensor:
        """Return the logits at every position, of the whole model or its first `depth` layers."""
        if depth is not None:
            self._check([depth - 1])
        return self._head(tokens, depth=depth)

    @torch.no_grad()
    def frozen_logits(self, tokens: Tokens) -> Tensor:
        """Return the same of the frozen model."""
        return self._head(tokens, self._originals)

    @torch.no_grad()
    def stage_logits(self, stage: str, tokens: Tokens) -> Tensor:
        """Return the same of what an earlier stage made."""
        if stage not in self._stages:
            raise UserError(f"No stage {stage!r} came before.{suggest(stage, self._stages)}")
        return self.passes.logits(tokens, {**self._originals, **self._stages[stage]})

    def keep_stages(self, stages: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Tell by stage which tensors its model has in the place of the original ones."""
        own = dict(self.model.named_parameters())
        for stage, tensors in stages.items():
            named = {name if name in own else _below_lora(name): tensor for name, tensor in tensors.items()}
            self._stages[stage] = {name: tensor.to(own[name].device, own[name].dtype) for name, tensor in named.items()}

    @torch.no_grad()
    def frozen_logprobs(self, tokens: Tokens) -> Tensor:
        """Return the frozen model's log-probability of each next token that counts; those of all are kept by text."""
        lengths = (tokens.last + 1).tolist()
        rows = [tokens.ids[row, :length] for row, length in enumerate(lengths)]
        keys = [sha256(ids.cpu().numpy().tobytes()).hexdigest() for ids in rows]
        new = {key: row for row, key in enumerate(keys) if key not in self.references}
        count = self._texts_a_pass(max(lengths))
        for start in range(0, len(new), count):
            self._refer(tokens, dict(list(new.items())[start : start + count]))
        logprobs = torch.zeros(tokens.ids[:, 1:].shape, device=tokens.ids.device)
        for row, (key, length) in enumerate(zip(keys, lengths, strict=True)):
            logprobs[row, : length - 1] = self.references[key].to(logprobs.device)
        return logprobs * tokens.counted

    def parameters(self, layers: Sequence[int] | None = None, matrices: bool = False) -> list[str]:
        """Return the names of all parameters or of those in some layers, or only of their matrices."""
        if layers is not None:
            self._check(layers)
        elif len(self._modules) < self.layers or not self._has_head:
            raise LayerNotLoaded
        if layers is None and not matrices:
            return [name for name, _ in self.model.named_parameters()]
        return [
            f"{self.prefix}.{layer}.{name}"
            for layer in (range(self.layers) if layers is None else layers)
            for name, parameter in self._modules[layer].named_parameters()
            if not matrices or (name.endswith(".weight") and parameter.dim() == 2)
        ]

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
        return [f"{self.prefix}.{layer}.{name}" for layer in layers]

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, a pure function of (training seed, step)."""
        return self._batches.batch(step)

    def labelled(self, limit: int | None = None) -> list[tuple[Tokens, np.ndarray]]:
        """Return batches of labelled text for probes, all of it or a seeded sample."""
        return self._batches.labelled(limit)

    def memo(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """Return what `compute` makes of the frozen model, once in this process while the model is loaded."""
        memory, known = _MEMORY.setdefault(self.model, {}), (self.arithmetic, key)
        if known not in memory:
            memory[known] = compute()
        return memory[known]

    def _texts_a_pass(self, length: int) -> int:
        vocabulary = self.model.config.get_text_config(decoder=True).vocab_size
        return max(1, self.LOGITS // (length * vocabulary))

    def _refer(self, tokens: Tokens, rows: Mapping[str, int]) -> None:
        """Keep the frozen model's log-probabilities of some rows of a batch, by the text's digest."""
        chosen = torch.tensor(list(rows.values()), device=tokens.ids.device)
        lengths = tokens.last[chosen] + 1
        texts = Tokens(*(part[chosen, : int(lengths.max())] for part in (tokens.ids, tokens.mask)))
        logprobs = next_logprobs(self.passes.logits(texts, self._originals), texts)
        for key, own, length in zip(rows, logprobs, lengths.tolist(), strict=True):
            self.references[key] = own[: length - 1].to("cpu", copy=True)

    def _check(self, layers: Sequence[int]) -> None:
        wrong = [layer for layer in layers if not 0 <= layer < self.layers]
        if wrong or not layers:
            raise UserError(
                f"Decoder layer {', '.join(map(str, wrong)) or '(none)'} was asked for, but {type(self.model).__name__}"
                f" has {self.layers} decoder layers (0 to {self.layers - 1}); change the method's layer settings."
            )
        if max(layers) >= len(self._modules):
            raise LayerNotLoaded

    @property
    def _has_head(self) -> bool:
        return not isinstance(self.model.get_output_embeddings(), nn.Identity)

    def _head(self, tokens: Tokens, parameters: Mapping[str, Tensor] | None = None, depth: int | None = None) -> Tensor:
        if not self._has_head:
            raise LayerNotLoaded
        below = self._below(tokens) if self._below is not None and (depth or self.layers) >= self.shared else None
        return self.passes.logits(tokens, parameters, below, depth)

    def _run(
        self, tokens: Tokens, layers: Sequence[int], parameters: Mapping[str, Tensor] | None = None
    ) -> dict[int, Tensor]:
        below = self._below(tokens) if self._below is not None and min(layers) >= self.shared else None
        return self.passes.run(tokens, layers, parameters, below)


def _below_lora(name: str) -> str:
    """Return what the weight of a linear map is called while low-rank factors stand beside it."""
    return f"{name.removesuffix('.weight')}.base_layer.weight"
