"""Every named stream of randomness: a seed and what the numbers are for give the same ones on every machine.

A stream depends on nothing that was drawn before it. Its bits are frozen; `tests/harness/test_rng.py` holds some.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np


def generator(seed: int, *words: str | int) -> np.random.Generator:
    """Return the generator of a training seed and of words that say what is drawn, as order, method, probe or torch."""
    return np.random.default_rng([seed, _hashed("/".join(map(str, words)), 8, "big")])


def board_generator(seed: int, digest: str) -> np.random.Generator:
    """Return the generator of a board's seed and the digest (hexadecimal) of what is resampled or tested."""
    return np.random.default_rng([seed, int(digest, 16)])


def search_seed(digest: str) -> int:
    """Return the seed, below 2**32, of a search for settings, from the digest (hexadecimal) of what is searched."""
    return int(digest, 16) % 2**32


def weight_noise(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return standard normal noise for the tensor of a name, float32, in its shape."""
    return _philox(f"{seed}:{name}").standard_normal(shape, dtype=np.float32)


def replica_noise(seed: int, name: str, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return what sets a replica's tensor of a name apart, float32, in its shape: standard normal, uniform in [0, 1).

    The second rounds the first at random, where a tensor's dtype is too coarse for it.
    """
    stream = _philox(f"replica:{seed}:{name}")
    return stream.standard_normal(shape, dtype=np.float32), stream.random(shape, dtype=np.float32)


def sampling_noise(seed: int, item: str, sample: int, length: int) -> np.ndarray:
    """Return the uniform noise of one continuation, one number in [0, 1) a position, shape [length].

    A longer request begins with the numbers of a shorter one.
    """
    return _philox(f"{seed}\x00{item}", sample).random(length)


def sampling_seed(seed: int, item: str, sample: int) -> int:
    """Return the seed, below 2**63, of one continuation where an engine draws its own noise."""
    return _hashed(f"{seed}\x00{item}\x00{sample}", 8, "little") >> 1


def _philox(key: str, block: int = 0) -> np.random.Generator:
    """Return the Philox generator of a key, its counter at the start of a block of 2**64 draws."""
    return np.random.Generator(np.random.Philox(key=_hashed(key, 16, "little"), counter=[0, block, 0, 0]))


def _hashed(text: str, size: int, order: Literal["big", "little"]) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:size], order)
