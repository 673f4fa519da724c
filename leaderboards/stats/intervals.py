"""From resamples to an interval of one value or difference: percentile or BCa over items, Student's t over seeds.

Two estimands. A *checkpoint* is uncertain because other items could have been asked; a *method* also because it could
have been trained with another seed. Items are crossed with seeds (every seed answers the same items), so a row of k
seeds is their mean in each resample, and from three seeds on its variance is that of crossed random effects:

    variance = (V - I / k) + max(s^2, I) / k,    I = mean over resamples of the variance over seeds of (draw - data)

with V the variance of the mean over resamples and s^2 that of the seeds' values. Seeds differ by I for no other reason
than that they were asked few items: V holds I / k, s^2 / k holds it again, and it is counted once. That few seeds
agree better than that is luck, so s^2 is taken to be I at least. The interval is then the item interval, narrowed to
the share (V - I / k) / V, and s^2 / k in quadrature, at Student's t with Satterthwaite's (1946) degrees of freedom:

    arm = t_f sqrt((1 - I / (k V)) (item arm / z)^2 + s^2 / k),
    f   = variance^2 / sum over sides of (s^2 / k)^2 / (k - 1)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .metrics import Floats

SEEDS_FOR_METHOD = 3
ENOUGH = 0.95
"""Share of resamples that must hold a value; below it there is no interval."""
TINY = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A value with its interval.

    Attributes:
        value: from the data as they are.
        low, high: the interval; None where the data do not allow one (fewer than two clusters, too few items).
        constant: whether all resamples agree, so that the interval has no width and says too little.
        bca: whether the interval over items is BCa's; else it is of percentiles.
    """

    value: float
    low: float | None
    high: float | None
    constant: bool = False
    bca: bool = False


@dataclass(frozen=True)
class SeedNoise:
    """What training seeds add to the variance of a row, or of a combination of rows: nothing below three seeds.

    Attributes:
        own: max(s^2, I) / k.
        shared: I / k, which the variance over resamples holds too.
        decay: sum of (s^2 / k)^2 / (k - 1), for Satterthwaite's degrees of freedom.
    """

    own: float = 0.0
    shared: float = 0.0
    decay: float = 0.0

    @classmethod
    def of(cls, draws: Floats) -> SeedNoise:
        """Return that of a statistic in the data (row 0) and in each resample, by seed [B + 1, k]."""
        seeds = draws.shape[1]
        if seeds < SEEDS_FOR_METHOD:
            return cls()
        shared = interaction(draws) / seeds
        own = max(float(draws[0].var(ddof=1)) / seeds, shared)
        return cls(own, shared, own**2 / (seeds - 1)) if own > TINY**2 else cls()

    def __add__(self, other: SeedNoise) -> SeedNoise:
        return SeedNoise(self.own + other.own, self.shared + other.shared, self.decay + other.decay)


def interaction(draws: Floats) -> float:
    """Return I: how much seeds differ only because they were asked few items [B + 1, k]; 0 where nothing is known."""
    shifts = draws[1:] - draws[0]
    of_seeds = shifts.var(axis=1, ddof=1)
    known = of_seeds[~np.isnan(of_seeds)]
    return float(known.mean()) if len(known) else 0.0


def reach(arm: Floats, variance: Floats, own: Floats, shared: Floats, decay: Floats, level: float) -> Floats:
    """Return the arm of an interval that holds items and seeds; the item arm itself where seeds add nothing.

    Args:
        arm: the item arm at this level, any shape, as all others.
        variance: over resamples.
        own, shared, decay: of `SeedNoise`.
        level: one-sided, 0.975 for an interval of 95 %.
    """
    from scipy import special

    narrowed = np.divide(shared, variance, out=np.zeros_like(variance), where=variance > 0)
    kept = 1 - np.minimum(narrowed, 1.0)
    total = kept * variance + own
    freedom = np.divide(total**2, decay, out=np.full_like(total, np.inf), where=decay > 0)
    items = arm / special.ndtri(level)
    widened = special.stdtrit(np.maximum(freedom, 1.0), level) * np.sqrt(kept * items**2 + own)
    return np.where(own > 0, widened, arm)


def estimate(
    plus: Floats,
    minus: Floats | None = None,
    *,
    confidence: float,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    acceleration: float | None = None,
    freedom: float = np.inf,
) -> Estimate | None:
    """Return the mean over seeds of `plus`, less that of `minus`, with an interval.

    Args:
        plus: a statistic in the data (row 0) and in each resample, by seed [B + 1, k].
        minus: what it is compared with [B + 1, j]; the same resamples, so that the difference is paired.
        confidence: of the interval.
        bounds: what the value cannot leave; the interval is cut there.
        acceleration: BCa with this acceleration over items; None: percentiles.
        freedom: degrees of freedom of the variance over items (clusters less strata): the levels of the two ends are
            those that make a normal interval one of Student's (expanded percentiles, Hesterberg 2015).

    Returns:
        The estimate, None where there is no value. With three seeds or more the interval holds them too.
    """
    from scipy import special

    sides = [plus] if minus is None else [plus, minus]
    if any(side.shape[1] == 0 for side in sides):
        return None
    draws = plus.mean(axis=1) if minus is None else plus.mean(axis=1) - minus.mean(axis=1)
    value = float(draws[0])
    if np.isnan(value):
        return None
    valid = draws[1:][~np.isnan(draws[1:])]
    if not len(valid) or len(valid) < ENOUGH * (len(draws) - 1):
        return Estimate(value, None, None)
    seeds = sum(map(SeedNoise.of, sides), SeedNoise())
    flat = bool(np.ptp(valid) < TINY)
    ends = special.stdtrit(freedom, (1 + confidence) / 2) * np.array([-1.0, 1.0])
    bent = None if acceleration is None else _bca(valid, value, ends, acceleration)
    low, high = np.quantile(valid, special.ndtr(ends) if bent is None else bent)
    if seeds.own:
        arms = np.maximum([value - low, high - value], 0.0)
        noise = (np.full(2, number) for number in (valid.var(), seeds.own, seeds.shared, seeds.decay))
        down, up = reach(arms, *noise, level=(1 + confidence) / 2)
        low, high = value - down, value + up
    return Estimate(
        value, float(max(low, bounds[0])), float(min(high, bounds[1])), flat and not seeds.own, bent is not None
    )


def _bca(draws: Floats, value: float, ends: Floats, acceleration: float) -> Floats | None:
    """Return the levels of BCa's two ends (Efron 1987), None where there are none: all draws on one side, or bent over.

    level = cdf(z0 + (z0 + z) / (1 - a (z0 + z))), with z0 the quantile of the share of draws below the value (half of
    those at it) and z the ends of a normal interval.
    """
    from scipy import special

    below = ((draws < value - TINY).mean() + (draws <= value + TINY).mean()) / 2
    if not 0 < below < 1:
        return None
    bias = special.ndtri(below)
    rest = 1 - acceleration * (bias + ends)
    return special.ndtr(bias + (bias + ends) / rest) if (rest > 0).all() else None


def acceleration(left_out: Floats, groups: NDArray[np.intp]) -> float | None:
    """Return BCa's acceleration from a statistic without each cluster in turn; None on degenerate data.

    Several samples (strata, tasks) as in Efron and Tibshirani (1993, chapter 14) and scipy:

        a = 1/6 sum_hc U_hc^3 / n_h^3 / (sum_hc U_hc^2 / n_h^2)^1.5,    U_hc = (n_h - 1) (mean_h - value without c)

    Args:
        left_out: the statistic without cluster c [C].
        groups: the sample that each cluster was drawn from [C].
    """
    sizes = np.bincount(groups)
    if not np.isfinite(left_out).all():
        return None
    centre = np.bincount(groups, left_out) / np.maximum(sizes, 1)
    size = sizes[groups]
    influence = (size - 1) / size * (centre[groups] - left_out)
    spread = float((influence**2).sum())
    return float((influence**3).sum()) / 6 / spread**1.5 if spread > TINY**2 else None


def exact_reach(n: int, confidence: float) -> float:
    """Return how far a share of which n units show none may lie from 0, one-sided: 1 - (1 - confidence)^(1/n)."""
    return 1 - (1 - confidence) ** (1 / max(n, 1))


def noise_shares(draws: Floats) -> tuple[float, float] | None:
    """Return which shares of the variance of a row's value are due to its items and to its training seeds.

    With k seeds, V the variance over resamples of their mean, s^2 and I as above, the seeds have max(0, s^2 - I) / k:
    what they differ by only because they were asked few items belongs to the items, since more items take it away.

    Args:
        draws: a statistic in the data (row 0) and in each resample, by seed [B + 1, k].

    Returns:
        Two shares that add up to 1; None for fewer than two seeds, too few resamples, or no variance at all.
    """
    seeds = draws.shape[1]
    valid = draws[1:][~np.isnan(draws[1:]).any(axis=1)]
    if seeds < 2 or not len(valid) or len(valid) < ENOUGH * (len(draws) - 1):
        return None
    items = float(valid.mean(axis=1).var())
    own = max(0.0, float(draws[0].var(ddof=1)) - interaction(draws)) / seeds
    total = items + own
    return (items / total, own / total) if total > TINY**2 else None


@dataclass(frozen=True)
class SeedMean:
    """A row in a comparison: the mean of its seeds in the data and in each resample [B + 1], and their noise."""

    mean: Floats
    noise: SeedNoise

    @classmethod
    def of(cls, draws: Floats) -> SeedMean:
        """Return that of a statistic by seed [B + 1, k]."""
        return cls(draws.mean(axis=1), SeedNoise.of(draws))


def contrast(sides: Sequence[tuple[float, SeedMean]]) -> SeedMean:
    """Return a weighted sum of rows."""
    noise = SeedNoise()
    for weight, side in sides:
        one = side.noise
        noise += SeedNoise(weight**2 * one.own, weight**2 * one.shared, weight**4 * one.decay)
    return SeedMean(np.sum([weight * side.mean for weight, side in sides], axis=0), noise)
