"""Named streams of randomness: one generator a seed and a name, the same on every machine."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, *words: str | int) -> np.random.Generator:
    """Return the generator of a named stream of randomness below `seed`; other words give independent draws."""
    name = "/".join(str(word) for word in words)
    return np.random.default_rng([seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")])
