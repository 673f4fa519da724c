"""Patching: the one way to put a checkpoint's tensors into a model, and its own back, bit by bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import UserError, suggest

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def shapes_of(model: nn.Module) -> dict[str, torch.Size]:
    """Return the shape of every tensor of a model by its full name, tied ones under each of theirs."""
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def check_delta(model: str, shapes: Mapping[str, torch.Size], delta: Mapping[str, Tensor]) -> None:
    """Raise a `UserError` on a tensor whose name or shape is not among those of the model called `model`."""
    for name, tensor in delta.items():
        if name not in shapes:
            raise UserError(
                f"The checkpoint changes {name!r}, which {model} has not; pass the model it was made from with"
                f" --models.{suggest(name, shapes)}"
            )
        if shapes[name] != tensor.shape:
            raise UserError(
                f"The checkpoint's {name!r} is {tuple(tensor.shape)}, but {tuple(shapes[name])} in {model}:"
                " it belongs to another model; pass that with --models."
            )


def apply_delta(model: nn.Module, name: str, delta: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put the tensors of `delta` into the model called `name` and return its own, on the CPU, for `put_tensors`.

    Raises:
        UserError: a name or shape that the model does not have; nothing is changed then.
    """
    check_delta(name, shapes_of(model), delta)
    own = model.state_dict()
    originals = {key: own[key].to("cpu", copy=True) for key in delta}
    put_tensors(own, delta)
    return originals


def put_tensors(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors over those of their names (a model's `state_dict()`, its parameters), in the dtype of those."""
    for name, tensor in tensors.items():
        own[name].detach().copy_(tensor.detach())
