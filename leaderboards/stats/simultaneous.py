"""Claims that hold together: simultaneous intervals (max-t) for differences, ranks and tie groups from them.

The half-width of a difference D_i is q sd(D_i), with sd over resamples and q the quantile, over resamples, of the
largest |D_i(b) - D_i| / sd(D_i) of the family (max-t, as in Romano and Wolf 2005). Training seeds are added as in
`intervals`, at the Student quantile of the level that q has for a normal value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from .intervals import ENOUGH, TINY, Estimate, SeedMean, SeedNoise, contrast, reach
from .metrics import Floats

_TOGETHER = 200  # differences held at a time


@dataclass(frozen=True)
class Rank:
    """Rank interval and tie group. Group 1 holds what cannot be separated from the best value, and so on."""

    low: int
    high: int
    group: int


def family(contrasts: Iterable[SeedMean], confidence: float, freedom: float = np.inf) -> list[Estimate]:
    """Return differences with intervals that hold together.

    Args:
        contrasts: differences, with the same resamples for all; taken a few at a time, so that they may be many.
        confidence: that all intervals hold at once.
        freedom: degrees of freedom of the variance over items, as in `estimate`.

    Returns:
        An estimate each, without an interval where fewer than 95 % of the resamples hold a value. A difference that is
        zero in all resamples has the interval [0, 0].
    """
    values, spreads, seeds = [], [], []
    largest = np.zeros(1)
    rest = iter(contrasts)
    while some := list(islice(rest, _TOGETHER)):
        together = np.stack([side.mean for side in some], axis=1)
        centre, draws = together[0], together[1:]
        sound = ~np.isnan(centre) & ((~np.isnan(draws)).sum(axis=0) >= max(1.0, ENOUGH * len(draws)))
        spread = np.full(len(some), np.nan)
        if sound.any():
            spread[sound], most = _studentised(centre[sound], draws[:, sound])
            largest = np.maximum(largest, most)
        values += centre.tolist()
        spreads.append(spread)
        seeds += [side.noise for side in some]
    spread = np.concatenate([*spreads, np.zeros(0)])
    half = _reaches(np.nan_to_num(spread), seeds, largest, confidence, freedom)
    return [
        Estimate(value, None, None) if np.isnan(sd) else Estimate(value, value - width, value + width, width == 0.0)
        for value, sd, width in zip(values, spread, half.tolist(), strict=True)
    ]


def _studentised(centre: Floats, draws: Floats) -> tuple[Floats, Floats]:
    """Return the sd of each of some differences over resamples [D], and the largest scaled deviation [B]."""
    spread = np.nanstd(draws, axis=0)
    spread[spread < TINY] = 0.0
    shift = np.abs(draws - centre)
    scaled = np.divide(shift, spread, out=np.zeros_like(shift), where=(spread > 0) & ~np.isnan(shift))
    return spread, scaled.max(axis=1)


def _reaches(spread: Floats, seeds: Sequence[SeedNoise], largest: Floats, confidence: float, freedom: float) -> Floats:
    from scipy import special

    q = float(special.stdtrit(freedom, special.ndtr(np.quantile(largest, confidence))))
    own, shared, decay = (np.array([getattr(noise, key) for noise in seeds]) for key in ("own", "shared", "decay"))
    if not own.any():
        return q * spread
    q = max(q, float(special.ndtri((1 + confidence) / 2)))
    return reach(q * spread, spread**2, own, shared, decay, float(special.ndtr(q)))


def simultaneous(differences: Sequence[Floats], confidence: float) -> list[Estimate]:
    """Return paired differences with intervals that hold together, cut to [-1, 1].

    Args:
        differences: a difference in the data (row 0) and in each resample, by seed [B + 1, k_i], k_i > 0; the same
            resamples for all.
        confidence: that all intervals hold at once.
    """
    estimates = family(map(SeedMean.of, differences), confidence)
    return [cut(estimate, -1.0, 1.0) for estimate in estimates]


def against(pairs: Sequence[tuple[Floats, Floats]], confidence: float, freedom: float = np.inf) -> list[Estimate]:
    """Return each row less its rival (base, its own noise), with intervals that hold for all pairs, cut to [-1, 1].

    Args:
        pairs: a statistic by seed [B + 1, k_i] of a row and of its rival, with the same resamples.
        confidence: that all intervals hold at once.
        freedom: degrees of freedom of the variance over items, as in `estimate`.
    """
    means = {id(draws): SeedMean.of(draws) for pair in pairs for draws in pair}
    contrasts = (contrast([(1.0, means[id(row)]), (-1.0, means[id(rival)])]) for row, rival in pairs)
    return [cut(estimate, -1.0, 1.0) for estimate in family(contrasts, confidence, freedom)]


def cut(found: Estimate, low: float, high: float) -> Estimate:
    """Return an estimate whose interval does not leave [low, high]."""
    if found.low is None or found.high is None:
        return found
    return Estimate(found.value, max(found.low, low), min(found.high, high), found.constant)


def separations(rows: Sequence[Floats], confidence: float, freedom: float = np.inf) -> NDArray[np.bool_]:
    """Tell which rows stand above which, by intervals for all pairwise differences that hold together.

    Args:
        rows: a statistic by seed [B + 1, k_i] for each row, with the same resamples.
        confidence: that all intervals hold at once.
        freedom: degrees of freedom of the variance over items, as in `estimate`.

    Returns:
        [K, K]; element (i, j) says that row i is above row j. A row without enough resamples is separated from none.
    """
    above = np.zeros((len(rows), len(rows)), dtype=bool)
    means = [row.mean(axis=1) for row in rows]
    sound = [i for i, mean in enumerate(means) if (~np.isnan(mean)).mean() >= ENOUGH and not np.isnan(mean[0])]
    if len(sound) < 2:
        return above
    together = np.stack([means[i] for i in sound], axis=1)
    together = together[~np.isnan(together).any(axis=1)]
    if len(together) < ENOUGH * len(means[0]):
        return above
    first, second = np.triu_indices(len(sound), 1)
    spreads, largest = [], np.zeros(len(together) - 1)
    for i in range(len(sound) - 1):
        differences = together[:, i : i + 1] - together[:, i + 1 :]
        spread, most = _studentised(differences[0], differences[1:])
        spreads.append(spread)
        np.maximum(largest, most, out=largest)
    seeds = [SeedNoise.of(rows[i]) for i in sound]
    pairs = [seeds[i] + seeds[j] for i, j in zip(first, second, strict=True)]
    half = _reaches(np.concatenate(spreads), pairs, largest, confidence, freedom)
    centre = together[0, first] - together[0, second]
    codes = np.array(sound)
    above[codes[first], codes[second]] = centre > half + TINY
    above[codes[second], codes[first]] = -centre > half + TINY
    return above


def rank_intervals(rows: Sequence[Floats], confidence: float, freedom: float = np.inf) -> list[Rank]:
    """Return the ranks that each row may hold, 1 the highest, from simultaneous pairwise intervals.

    low = 1 + number of rows that stand above it, high = number of rows - number that it stands above. A tie group
    starts with its highest row and takes all later rows that are not below that one.
    """
    above = separations(rows, confidence, freedom)
    ranks_low = 1 + above.sum(axis=0)
    ranks_high = len(rows) - above.sum(axis=1)
    groups = [0] * len(rows)
    group, leader = 0, -1
    for i in sorted(range(len(rows)), key=lambda i: (-float(rows[i][0].mean()), i)):
        if leader < 0 or above[leader, i]:
            group, leader = group + 1, i
        groups[i] = group
    return [Rank(int(ranks_low[i]), int(ranks_high[i]), groups[i]) for i in range(len(rows))]
