"""Kinds of devices that estimates are made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class DeviceProfile:
    """A kind of device: peak FLOP/s by dtype, bytes/s and bytes of memory, and how much of the peak is reached.

    `layer_seconds` is the least that a layer takes in one direction, however small: Python and kernel launches.
    """

    name: str
    flops: Mapping[str, float]
    bandwidth: float
    memory: float
    utilisation: float = 0.4
    layer_seconds: float = 0.0

    def seconds(self, flops: float, dtype: str) -> float:
        """Return the time of so many FLOPs."""
        return flops / (self.utilisation * self.flops[dtype])


A100 = DeviceProfile(
    "A100-80GB",
    flops={"bfloat16": 312e12, "float16": 312e12, "tf32": 156e12, "float32": 19.5e12},
    bandwidth=2.04e12,
    memory=80 * GIB,
    layer_seconds=7e-4,
)
"""NVIDIA's data sheet (dense, SXM); the launch time is that of transformers' decoder layers without compilation."""
