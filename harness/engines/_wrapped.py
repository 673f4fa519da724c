"""A model beside a small assistant of its own making, for methods that work at decoding time."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from ...methods.base import DecodingMethod
from ..errors import UserError
from ..models.layers import decoder_layers, first_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Caches(tuple[Any, Any]):
    """The caches of keys and values of the model and of its assistant, as one."""

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows of both."""
        for cache in self:
            cache.batch_select_indices(indices)


class Wrapped:
    """A model whose logits a method changes, called like the model.

    The assistant is the model's first layers under its norm and head, with a checkpoint's tensors in place of its own
    while it runs; all other tensors are shared, and the model's own never change.

    Raises:
        UserError: the assistant has more layers than the model.
    """

    def __init__(self, model: PreTrainedModel, tensors: Mapping[str, torch.Tensor], method: DecodingMethod) -> None:
        own = model.state_dict()
        self._model, self._method = model, method
        self._tensors = {name: tensor.to(own[name].device, own[name].dtype) for name, tensor in tensors.items()}
        _, self._layers = decoder_layers(model)
        if not 1 <= method.depth <= len(self._layers):
            raise UserError(
                f"The checkpoint's assistant has {method.depth} layers, {type(model).__name__} {len(self._layers)};"
                " pass the model it was made for with --models."
            )

    def __call__(self, *, past_key_values: Caches | None = None, **inputs: Any) -> SimpleNamespace:
        """Return `logits`, float32, and `past_key_values`: the caches of both, None where there are none."""
        own, assistants = past_key_values or (None, None)
        base = self._model(past_key_values=own, **inputs)
        with first_layers(self._layers, self._method.depth):
            inputs["past_key_values"] = assistants
            assistant = torch.func.functional_call(self._model, self._tensors, (), inputs)
        caches = [getattr(out, "past_key_values", None) for out in (base, assistant)]
        return SimpleNamespace(
            logits=self._method.decode(base.logits.float(), assistant.logits.float()),
            past_key_values=None if None in caches else Caches(caches),
        )
