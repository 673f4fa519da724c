"""What a row forgot and kept of what base has: two numbers beside S that are 0 where nothing was unlearned.

With f and r the forget and retain metrics above chance ((m - m0) / (1 - m0)) of the row, f0 and r0 those of base:

    share forgotten  F = clip(1 - f / f0, 0, 1)
    share kept       K = clip(r / r0, 0, 1)
    harmonic mean        2 F K / (F + K)
    difference           (f0 - f) - (r0 - r)

The harmonic mean has the form of OpenUnlearning's aggregate (arXiv 2506.12618), which also rescales to a retrained
model. The difference in differences is 0 for damage that costs both tasks alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..schema import Relative
from ..stats.intervals import estimate
from ..stats.metrics import Floats
from .components import interval
from .groups import Group
from .resampling import Resamples


def relative(resamples: Resamples, track: str, group: Group, base: Group | None) -> Relative | None:
    """Return both numbers of a row, None where there is no base."""
    if base is None:
        return None
    (forget, retain), (forget_0, retain_0) = (_above(resamples, track, row.columns) for row in (group, base))
    forget_0, retain_0 = (part.mean(axis=1, keepdims=True) for part in (forget_0, retain_0))
    with np.errstate(divide="ignore", invalid="ignore"):
        forgotten, kept = 1 - forget / _positive(forget_0), retain / _positive(retain_0)
    forgotten, kept = np.clip(forgotten, 0, 1), np.clip(kept, 0, 1)
    both = forgotten + kept
    harmonic = np.where(both > 0, 2 * forgotten * kept / np.where(both > 0, both, 1), both)
    difference = (forget_0 - forget) - (retain_0 - retain)
    freedom = resamples.freedom(resamples.s(track))
    given = {"confidence": resamples.spec.confidence, "freedom": freedom}
    return {
        "harmonic_mean": interval(estimate(harmonic, bounds=(0.0, 1.0), **given)),
        "difference": interval(estimate(difference, **given)),
    }


def uniform_gain(resamples: Resamples, track: str, base: Group) -> float:
    """Return by how much damage that takes the same share of both metrics above chance could raise base's S.

    It is max over d in [0, 1] of (1 - d f0) d r0, less (1 - f0) r0: 0 where base knows at most half of both.
    """
    forget, retain = (float(np.clip(part[0].mean(), 0, 1)) for part in _above(resamples, track, base.columns))
    share = min(1.0, 1 / (2 * forget)) if forget > 0 else 1.0
    return (1 - share * forget) * share * retain - (1 - forget) * retain


def _above(resamples: Resamples, track: str, columns: Sequence[int]) -> tuple[Floats, Floats]:
    """Return the forget and retain metrics above chance of some checkpoints [B + 1, k]."""
    forgotten, retain = (resamples.values(part, columns) for part in resamples.unclipped(track))
    return 1 - forgotten, retain


def _positive(values: Floats) -> Floats:
    return np.where(values > 0, values, np.nan)
