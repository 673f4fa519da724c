"""Deltas: the tensors of a checkpoint that differ from its base, as safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .errors import UserError
from .store import Entry

FILE = "delta.safetensors"


def save_delta(path: Path, delta: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> None:
    """Write the changed tensors, in `dtype` (None: their own); the same tensors give the same bytes."""
    save_file({name: delta[name].detach().to("cpu", dtype).contiguous() for name in sorted(delta)}, path)


def load_delta(entry: Entry) -> dict[str, Tensor]:
    """Read the changed tensors of a finished cell."""
    return load_file(entry.file(FILE))


def apply_delta(model: torch.nn.Module, delta: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy the tensors of `delta` into the model, in the model's dtype, and return the originals.

    Raises:
        UserError: a name or shape that the model does not have; nothing is changed then.
    """
    own = dict(model.named_parameters())
    for name, tensor in delta.items():
        if name not in own:
            raise UserError(f"The checkpoint changes {name}, which the base model does not have.")
        if own[name].shape != tensor.shape:
            raise UserError(f"The checkpoint's {name} is {tuple(tensor.shape)}, the base's {tuple(own[name].shape)}.")
    originals = {name: own[name].detach().clone() for name in delta}
    with torch.no_grad():
        for name, tensor in delta.items():
            own[name].copy_(tensor)
    return originals
