"""Tests of the difference between two rows on one task, item by item, with Holm's correction and the power at hand.

With d_i = score of item i in the one row less that in the other, over the items that both have, and clusters c:

    McNemar      p = P(|X - m/2| >= |wins - m/2|),  X ~ Binomial(m, 1/2),  m = wins + losses (items that differ)
    permutation  p = (1 + #{b: |sum_c s_bc D_c| >= |sum_c D_c|}) / (B + 1),  D_c = sum of d_i in c,  s_bc = -1 or 1
    detectable   (z_{1 - a/2} + z_power) se,  se^2 = C / (C - 1) sum_c (D_c - mean(d) n_c)^2 / n^2

McNemar's test takes items for independent, so it is for binary scores of one checkpoint against one, one item a
cluster; all else is permuted, and a cluster's items change sign together. A row of several seeds enters with its mean
over seeds for each item: the test speaks of these checkpoints and asks what other items would have shown.
The detectable difference is the power analysis of Miller (2024, arXiv 2411.00640), solved for the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .arrays import ScoreMatrix, by_cluster
from .metrics import Floats

FLIPS = 9_999
POWER = 0.8
TestName = Literal["mcnemar", "permutation"]
_DIGITS = 12  # clusters that agree to these are of one size: a mean of equal scores may differ in the last bit
_TINY = 1e-9
_CHUNK = 4_000_000  # signs held at a time
_DEAR = 300
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float64)


@dataclass(frozen=True)
class Tested:
    """A test of no difference between two rows.

    Attributes:
        test: which one.
        n: items that all checkpoints of both rows have a score for.
        p: two-sided, before any correction; never 0 in a permutation test.
        detectable: the true difference that this test finds with probability `POWER`, from the observed variance; None
            where there is none to go by (one cluster, or all items differ alike).
    """

    test: TestName
    n: int
    p: float
    detectable: float | None


def compare_items(
    table: ScoreMatrix, plus: Sequence[int], minus: Sequence[int], *, confidence: float, rng: np.random.Generator
) -> Tested | None:
    """Test whether two rows score alike; an item that any of their checkpoints lacks is left out.

    Args:
        table: the scores of a task.
        plus, minus: the columns (seeds) of either row.
        confidence: 1 - the level at which the detectable difference would be found.
        rng: decides the signs; p depends on it and on the clusters' |D_c|, not on their names or order.

    Returns:
        The test, None where no item has a score on both sides.
    """
    difference = table.values[:, list(plus)].mean(axis=1) - table.values[:, list(minus)].mean(axis=1)
    counts = by_cluster((~np.isnan(difference)).astype(np.float64)[:, None], table.starts)[:, 0]
    sums = by_cluster(np.nan_to_num(difference)[:, None], table.starts)[:, 0]
    if not counts.any():
        return None
    if table.single and len(plus) == len(minus) == 1 and table.binary([*plus, *minus]):
        test, p = "mcnemar", mcnemar(int((sums > 0).sum()), int((sums < 0).sum()))
    else:
        test, p = "permutation", sign_flips(sums, rng)
    return Tested(test, int(counts.sum()), p, detectable_difference(sums, counts, confidence))


def mcnemar(wins: int, losses: int) -> float:
    """Return the exact two-sided p of McNemar's test; 1 where no item differs."""
    from scipy.stats import binomtest

    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def sign_flips(sums: Floats, rng: np.random.Generator, flips: int = FLIPS) -> float:
    """Return the two-sided p of the sum of clusters [C] among those with random signs; 1 where all are zero."""
    sizes, equal = np.unique(np.abs(sums).round(_DIGITS), return_counts=True)
    sizes, equal = sizes[sizes > 0], equal[sizes > 0]
    if not len(sizes):
        return 1.0
    observed = abs(float(sums.sum()))
    chunk = max(1, _CHUNK // int(equal.sum()))
    as_large = 0
    for first in range(0, flips, chunk):
        flipped = _flipped(sizes, equal, min(chunk, flips - first), rng)
        as_large += int((np.abs(flipped) >= observed - _TINY).sum())
    return (1 + as_large) / (flips + 1)


def _flipped(sizes: Floats, equal: NDArray[np.intp], draws: int, rng: np.random.Generator) -> Floats:
    """Return the sum of clusters under random signs [draws]; the k clusters of one size may be drawn together.

    Their signs add up to 2 Binomial(k, 1/2) - k, which is as dear as `_DEAR` signs. Else a sign is a bit, and what
    eight clusters add up to is looked up for their byte.
    """
    if equal.sum() > _DEAR * len(sizes):
        return (2 * rng.binomial(equal, 0.5, (draws, len(sizes))) - equal) @ sizes
    clusters = np.repeat(sizes, equal)
    octets = rng.integers(0, 256, (draws, len(clusters) // 8 + 1), dtype=np.uint8)
    eights = np.pad(clusters, (0, 8 * octets.shape[1] - len(clusters))).reshape(-1, 8)
    added = sum((sums.take(byte) for sums, byte in zip(eights @ _BITS.T, octets.T, strict=True)), np.zeros(draws))
    return 2 * added - clusters.sum()


def detectable_difference(sums: Floats, counts: Floats, confidence: float, power: float = POWER) -> float | None:
    """Return the true mean difference that a two-sided test at `confidence` finds with probability `power`.

    Args:
        sums, counts: sum of the differences and number of items in each cluster [C]; clusters without items are none.
        confidence: 1 - level of the test, before any correction.
        power: probability to find it.

    Returns:
        The difference in units of the score; None for fewer than two clusters or no variance between them.
    """
    from scipy import special

    sums, counts = sums[counts > 0], counts[counts > 0]
    clusters, n = len(counts), counts.sum()
    if clusters < 2:
        return None
    spread = np.sum((sums - sums.sum() / n * counts) ** 2) * clusters / (clusters - 1)
    error = float(np.sqrt(spread) / n)
    reach = float(special.ndtri((1 + confidence) / 2) + special.ndtri(power))
    return float(reach * error) if error > _TINY else None


def holm(p: Sequence[float]) -> list[float]:
    """Return Holm's (1979) adjusted p of each test of a family: claims at `p_holm <= a` are all true but at rate a.

    With p sorted upwards, p_holm of the i-th of m is the largest of (m - j + 1) p_j for j <= i, at most 1.
    """
    adjusted, largest = [0.0] * len(p), 0.0
    for place, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - place) * p[index]))
        adjusted[index] = largest
    return adjusted
