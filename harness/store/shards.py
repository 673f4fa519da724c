"""Weight files: what a safetensors file holds, and the same file with other tensors in it.

The safetensors package writes files from tensors that are all in memory. `Shard.rewrite` writes the format itself, one
tensor in memory at a time: the header's length (8 bytes, little-endian), the header (JSON), the tensors' bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import safe_open
from torch import Tensor

CODES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
"""What the format calls the dtypes that models are evaluated in."""
CHUNK = 1 << 24
"""Bytes that are copied at a time."""


@dataclass(frozen=True)
class Shard:
    """A safetensors file: its tensors (dtype, shape, data_offsets) by name, its metadata, and where its data starts."""

    path: Path
    tensors: Mapping[str, Mapping[str, Any]]
    metadata: Mapping[str, str]
    start: int

    @classmethod
    def read(cls, path: Path) -> Shard:
        """Read the header of a file."""
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
        return cls(path, header, header.pop("__metadata__", {}), 8 + length)

    def size(self, name: str) -> int:
        """Return the bytes of a tensor."""
        begin, end = self.tensors[name]["data_offsets"]
        return end - begin

    def rewrite(self, target: Path, delta: Path, dtype: torch.dtype) -> int:
        """Write the file to `target` with the tensors that a delta file has in their place, the rest byte for byte.

        Replaced tensors are cast to `dtype`. Wider dtypes come first, as readers need tensors aligned. Returns by how
        many bytes the tensors grew.
        """
        with safe_open(delta, "pt") as changed, self.path.open("rb") as source, target.open("wb") as out:
            names = self.tensors.keys() & set(changed.keys())
            new = {name: {"dtype": CODES[dtype], "shape": self.tensors[name]["shape"]} for name in names}
            entries = {name: new.get(name) or dict(facts) for name, facts in self.tensors.items()}
            counts = {name: prod(facts["shape"]) for name, facts in entries.items()}
            sizes = {name: counts[name] * dtype.itemsize if name in new else self.size(name) for name in entries}
            order = sorted(entries, key=lambda name: (-sizes[name] / max(1, counts[name]), self._begin(name)))
            offset = 0
            for name in order:
                entries[name]["data_offsets"] = [offset, offset := offset + sizes[name]]
            header = {"__metadata__": self.metadata, **{name: entries[name] for name in order}}
            text = json.dumps(header, separators=(",", ":")).encode()
            text += b" " * (-len(text) % 8)
            out.write(len(text).to_bytes(8, "little") + text)
            for name in order:
                if name in new:
                    out.write(_bytes(changed.get_tensor(name).to(dtype)))
                else:
                    source.seek(self.start + self._begin(name))
                    _copy(source, out, sizes[name])
        return offset - sum(map(self.size, self.tensors))

    def _begin(self, name: str) -> int:
        return self.tensors[name]["data_offsets"][0]


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def _copy(source: IO[bytes], out: IO[bytes], count: int) -> None:
    while count > 0:
        chunk = source.read(min(count, CHUNK))
        if not chunk:
            raise EOFError(f"{source.name} ends before its tensors do.")
        count -= out.write(chunk)
