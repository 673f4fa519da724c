"""Deltas: the tensors of a checkpoint that differ from its base, as safetensors.

Those of a method that works at decoding time make a small assistant, and say so in the file's metadata (`decoding`), so
that the file's sha256 covers it. They are no change of the base's weights: `load_delta` refuses them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import UserError
from .entries import DELTA, Entry

if TYPE_CHECKING:
    import torch


def save_delta(
    path: Path,
    delta: Mapping[str, Tensor],
    dtype: torch.dtype | None = None,
    decoding: Mapping[str, Any] | None = None,
) -> None:
    """Write the changed tensors, in `dtype` (None: their own); the same tensors give the same bytes.

    `decoding` says what an engine does with them, where they are not to take the place of the base's; see
    `decoding_of`.

    Raises:
        OSError: the file cannot be written.
    """
    metadata = None if decoding is None else {"decoding": json.dumps(decoding, sort_keys=True)}
    try:
        save_file({name: delta[name].detach().to("cpu", dtype).contiguous() for name in sorted(delta)}, path, metadata)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def load_delta(entry: Entry) -> dict[str, Tensor]:
    """Read the changed weights of a finished cell; raise a `UserError` where it changes none (see `decoding_of`)."""
    if decoding_of(entry) is not None:
        raise UserError(
            f"{entry.path.name} works at decoding time: it has no weights of its own; choose a method that trains."
        )
    return load_tensors(entry)


def load_tensors(entry: Entry) -> dict[str, Tensor]:
    """Read the tensors of a finished cell, whatever `decoding_of` says that they are."""
    return load_file(entry.file(DELTA))


def not_finite(tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> str | None:
    """Return the first tensor that holds a value that is not finite, in `dtype` (None: its own), None where none does.

    Those of whole numbers are passed over.
    """
    for name, tensor in tensors.items():
        values = tensor.detach().to(dtype=dtype or tensor.dtype)
        if values.is_floating_point() and not bool(values.isfinite().all()):
            return name
    return None


def decoding_of(entry: Entry) -> dict[str, Any] | None:
    """Return what an engine does with a finished cell's tensors at decoding time; None: they are changed weights.

    `{"kind": registered method, "settings": its settings}`: the base's first layers with the tensors in place are the
    method's assistant; see `methods.base.DecodingMethod`.
    """
    with safe_open(entry.file(DELTA), framework="pt") as file:
        text = (file.metadata() or {}).get("decoding")
    return None if text is None else json.loads(text)
