"""From resamples to statements: intervals, differences, rank intervals.

Two estimands. A *checkpoint* is uncertain because other items could have been asked; a *method* also because it could
have been trained with another seed. Items are crossed with seeds (every seed answers the same items), so a row with
several seeds is their mean in each resample, and from three seeds on its interval is widened:

    low  = value - sqrt((value - item_low)^2 + (t * se)^2)
    high = value + sqrt((item_high - value)^2 + (t * se)^2),    se^2 = s^2 / k

with k seeds, s the standard deviation of their values, and t the Student quantile at k - 1 degrees of freedom (for a
difference of two rows the variances add and the degrees of freedom are Welch-Satterthwaite's).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from .metrics import Floats

SEEDS_FOR_METHOD = 3
_ENOUGH = 0.95  # share of resamples that must hold a value; below it there is no interval
_TINY = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A value with its interval.

    Attributes:
        value: from the data as they are.
        low, high: the interval; None where the data do not allow one (fewer than two clusters, too few items).
        constant: whether all resamples agree, so that the interval has no width and says too little.
    """

    value: float
    low: float | None
    high: float | None
    constant: bool = False


@dataclass(frozen=True)
class Rank:
    """Rank interval and tie group. Group 1 holds what cannot be separated from the best value, and so on."""

    low: int
    high: int
    group: int


def estimate(
    plus: Floats,
    minus: Floats | None = None,
    *,
    confidence: float,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Estimate | None:
    """Return the mean over seeds of `plus`, less that of `minus`, with a percentile interval over resamples.

    Args:
        plus: a statistic in the data (row 0) and in each resample, by seed [B + 1, k].
        minus: what it is compared with [B + 1, j]; the same resamples, so that the difference is paired.
        confidence: of the interval.
        bounds: what the value cannot leave; the interval is cut there.

    Returns:
        The estimate, None where there is no value. With three seeds or more the interval is widened as above.
    """
    sides = [plus] if minus is None else [plus, minus]
    if any(side.shape[1] == 0 for side in sides):
        return None
    draws = plus.mean(axis=1) if minus is None else plus.mean(axis=1) - minus.mean(axis=1)
    value = float(draws[0])
    if np.isnan(value):
        return None
    valid = draws[1:][~np.isnan(draws[1:])]
    if not len(valid) or len(valid) < _ENOUGH * (len(draws) - 1):
        return Estimate(value, None, None)
    tail = (1 - confidence) / 2
    low, high = np.quantile(valid, [tail, 1 - tail])
    seeds = _seed_half_width(sides, 1 - tail)
    low = value - np.hypot(max(0.0, value - low), seeds) if seeds else low
    high = value + np.hypot(max(0.0, high - value), seeds) if seeds else high
    constant = bool(np.ptp(valid) < _TINY) and not seeds
    return Estimate(value, float(max(low, bounds[0])), float(min(high, bounds[1])), constant)


def wilson(share: float, n: int, confidence: float) -> tuple[float, float]:
    """Return Wilson's (1927) score interval of a share of n items, which has a width at 0 and 1 too."""
    found = stats.binomtest(round(share * n), n).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)


def noise_shares(draws: Floats) -> tuple[float, float] | None:
    """Return which shares of the variance of a row's value are due to its items and to its training seeds.

    With k seeds, V the variance over resamples of their mean and s^2 their variance in the data, the seeds have

        max(0, s^2 - I) / k,    I = mean over resamples of s_b^2, less s^2

    where I is what the seeds differ by only because they were asked few items (crossed random effects): more items
    take it away, so it belongs to the items, in V. The interval's seed term is s^2 / k with I, on the safe side.

    Args:
        draws: a statistic in the data (row 0) and in each resample, by seed [B + 1, k].

    Returns:
        Two shares that add up to 1; None for fewer than two seeds, too few resamples, or no variance at all.
    """
    seeds = draws.shape[1]
    valid = draws[1:][~np.isnan(draws[1:]).any(axis=1)]
    if seeds < 2 or not len(valid) or len(valid) < _ENOUGH * (len(draws) - 1):
        return None
    items = float(valid.mean(axis=1).var())
    between = float(draws[0].var(ddof=1))
    interaction = float(valid.var(axis=1, ddof=1).mean()) - between
    own = max(0.0, between - max(0.0, interaction)) / seeds
    total = items + own
    return (items / total, own / total) if total > _TINY**2 else None


def _seed_half_width(sides: Sequence[Floats], quantile: float) -> float:
    """Return t * se of the seeds of all sides together; sides of fewer than three seeds add nothing."""
    variances, freedom = [], []
    for side in sides:
        seeds = side.shape[1]
        if seeds >= SEEDS_FOR_METHOD:
            variances.append(float(np.var(side[0], ddof=1)) / seeds)
            freedom.append(seeds - 1)
    total = sum(variances)
    if not total > _TINY**2:
        return 0.0
    welch = total**2 / sum(variance**2 / df for variance, df in zip(variances, freedom, strict=True))
    return float(stats.t.ppf(quantile, welch)) * total**0.5


def separations(rows: Sequence[Floats], confidence: float) -> NDArray[np.bool_]:
    """Tell which rows stand above which, by intervals for all pairwise differences that hold together.

    D_ij = mean of row i - mean of row j. The half-width is q sd(D_ij), with sd over resamples and q the quantile, over
    resamples, of the largest |D_ij(b) - D_ij| / sd(D_ij) (max-t). Seeds (three or more) are added in quadrature at a
    Bonferroni quantile.

    Args:
        rows: a statistic by seed [B + 1, k_i] for each row, with the same resamples.
        confidence: that all intervals hold at once.

    Returns:
        [K, K]; element (i, j) says that row i is above row j. A row without enough resamples is separated from none.
    """
    count = len(rows)
    above = np.zeros((count, count), dtype=bool)
    means = [row.mean(axis=1) for row in rows]
    sound = [i for i, mean in enumerate(means) if (~np.isnan(mean)).mean() >= _ENOUGH and not np.isnan(mean[0])]
    pairs = list(combinations(sound, 2))
    if not pairs:
        return above
    together = np.stack([means[i] for i in sound], axis=1)
    together = together[~np.isnan(together).any(axis=1)]
    if len(together) < _ENOUGH * len(means[0]):
        return above
    first, second = np.array(list(combinations(range(len(sound)), 2))).T
    draws = together[:, first] - together[:, second]
    centre, draws = draws[0], draws[1:]
    spread = draws.std(axis=0)
    spread[spread < _TINY] = 0.0
    shift = np.abs(draws - centre)
    scaled = np.divide(shift, spread, out=np.zeros_like(shift), where=spread > 0)
    half = np.quantile(scaled.max(axis=1), confidence) * spread
    quantile = 1 - (1 - confidence) / 2 / len(pairs)
    for (i, j), difference, width in zip(pairs, centre, half, strict=True):
        reach = np.hypot(width, _seed_half_width([rows[i], rows[j]], quantile))
        above[i, j] = difference > reach + _TINY
        above[j, i] = -difference > reach + _TINY
    return above


def simultaneous(differences: Sequence[Floats], confidence: float) -> list[Estimate]:
    """Return paired differences with intervals that hold together: max-t over all of them, as in `separations`.

    Args:
        differences: a difference in the data (row 0) and in each resample, by seed [B + 1, k_i], k_i > 0; the same
            resamples for all. Values lie in [-1, 1].
        confidence: that all intervals hold at once.

    Returns:
        An estimate each, without an interval where fewer than 95% of the resamples hold a value. A difference that is
        zero in all resamples has the interval [0, 0].
    """
    means = np.stack([each.mean(axis=1) for each in differences], axis=1) if differences else np.zeros((1, 0))
    centre, draws = means[0], means[1:]
    sound = (~np.isnan(draws)).sum(axis=0) >= max(1.0, _ENOUGH * len(draws))
    draws = np.where(sound, draws, 0.0)
    spread = np.where(sound, np.nanstd(draws, axis=0), 0.0)
    spread[spread < _TINY] = 0.0
    shift = np.abs(draws - centre)
    scaled = np.divide(shift, spread, out=np.zeros_like(shift), where=(spread > 0) & ~np.isnan(shift))
    half = np.quantile(scaled.max(axis=1), confidence) * spread if sound.any() else spread
    quantile = 1 - (1 - confidence) / 2 / max(1, int(sound.sum()))
    found = []
    for value, width, held, each in zip(centre, half, sound, differences, strict=True):
        if not held:
            found.append(Estimate(float(value), None, None))
            continue
        reach = float(np.hypot(width, _seed_half_width([each], quantile)))
        found.append(Estimate(float(value), max(value - reach, -1.0), min(value + reach, 1.0), reach == 0.0))
    return found


def rank_intervals(rows: Sequence[Floats], confidence: float) -> list[Rank]:
    """Return the ranks that each row may hold, 1 the highest, from simultaneous pairwise intervals.

    low = 1 + number of rows that stand above it, high = number of rows - number that it stands above. A tie group
    starts with its highest row and takes all later rows that are not below that one.
    """
    above = separations(rows, confidence)
    ranks_low = 1 + above.sum(axis=0)
    ranks_high = len(rows) - above.sum(axis=1)
    groups = [0] * len(rows)
    group, leader = 0, -1
    for i in sorted(range(len(rows)), key=lambda i: (-float(rows[i][0].mean()), i)):
        if leader < 0 or above[leader, i]:
            group, leader = group + 1, i
        groups[i] = group
    return [Rank(int(ranks_low[i]), int(ranks_high[i]), groups[i]) for i in range(len(rows))]
