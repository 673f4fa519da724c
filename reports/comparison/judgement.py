"""What a few trainings allow to be said of a row that came out differently.

One training is one draw: with another seed, or on another processor, the same settings end elsewhere. Fewer than three
of them that are not the same checkpoints on both sides are shown and not judged. A row is *reproduced* where

    |S - S'| < 2 sqrt(2) sigma_run,

with sigma_run the standard deviation of S over the training seeds of a side that has at least three, pooled where both
have: two trainings of one law differ by more in about one of twenty cases.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...leaderboards.stats.intervals import SEEDS_FOR_METHOD
from ...leaderboards.stats.metrics import Floats

UNKNOWN = "unknown"
"""How a side says that a fact of a training was not recorded."""


@dataclass(frozen=True)
class Training:
    """What a checkpoint comes from.

    Attributes:
        cell: id of its settings, model, text and seed.
        delta: sha256 of the tensors that came out; None: it is not known.
        machine: what was recorded of where it was made; `unknown` for what was not.
    """

    cell: str
    delta: str | None = None
    machine: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reproduction:
    """Whether the same settings came to the same S: `reproduced` is null where `run_sd` (sigma_run) is not known."""

    difference: float
    run_sd: float | None
    reproduced: bool | None

    @classmethod
    def of(cls, difference: float, run_sd: float | None) -> Reproduction:
        """Return it of a difference of S; none at all is reproduced whatever the spread."""
        if difference == 0:
            return cls(difference, run_sd, True)
        known = run_sd is not None
        return cls(difference, run_sd, abs(difference) < reach(run_sd) if known else None)


def reach(run_sd: float) -> float:
    """Return how far two trainings of a law with this standard deviation may lie apart."""
    return 2 * math.sqrt(2) * run_sd


def pooled_sd(sides: Sequence[Floats]) -> float | None:
    """Return sigma_run from S by seed of each side; None where neither has three seeds."""
    variances = [side.var(ddof=1) for side in sides if len(side) >= SEEDS_FOR_METHOD]
    return float(np.sqrt(np.mean(variances))) if variances else None


def unjudged(pairs: Sequence[tuple[Training, Training]]) -> str | None:
    """Return why a difference between paired checkpoints is not judged, None where it is.

    It is where there are three seeds, and where both sides are the same checkpoints, measured twice.
    """
    if len(pairs) >= SEEDS_FOR_METHOD or all(a.delta is not None and a.delta == b.delta for a, b in pairs):
        return None
    return "; ".join(filter(None, (_training(pairs), _machines(pairs))))


def _training(pairs: Sequence[tuple[Training, Training]]) -> str:
    if any(a.cell != b.cell for a, b in pairs):
        return "another training (other settings or another seed)"
    if any(a.delta is None or b.delta is None for a, b in pairs):
        return "not known to be one training"
    return "another training of the same settings and seed"


def _machines(pairs: Sequence[tuple[Training, Training]]) -> str:
    """Return in which facts of the machines the trainings differ, and which are not known of the same settings."""
    differ: dict[str, None] = {}
    lacking: dict[str, None] = {}
    for a, b in pairs:
        sides = a.machine, b.machine
        for key in {**sides[0], **sides[1]}:
            before, after = (side.get(key, "none") for side in sides)
            if UNKNOWN in (before, after):
                lacking[key] = None
            elif before != after:
                differ[f"{key} {before} against {after}"] = None
    words = [f"made with {', '.join(differ)}"] if differ else []
    if lacking and all(a.cell == b.cell for a, b in pairs):
        words.append(f"{', '.join(lacking)} unknown")
    return "; ".join(words)
