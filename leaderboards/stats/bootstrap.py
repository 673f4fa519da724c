"""Joint paired bootstrap: whole clusters are drawn within strata, with the same draws for every checkpoint.

A resample is a vector of cluster weights, a mean is a ratio of two matrix products, and every other number of a board
is a function of such means, recomputed whole in each resample. Row 0 of all arrays is the data as they are.

Within a stratum of n clusters, n - 1 are drawn with replacement and weighted n / (n - 1): the rescaled bootstrap of Rao
and Wu (1988), whose variance is right in small strata too, where drawing n gives (n - 1) / n of it. A stratum of a
single cluster has no variance that could be seen; such strata are pooled ("collapsed", the usual conservative choice).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .arrays import ScoreMatrix
from .intervals import TINY
from .metrics import Floats

_CHUNK = 4_000_000  # cluster weights held at a time (32 MB)


def collapse_strata(strata: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return stratum codes [C] in which every stratum has two clusters or more, where there are two at all.

    Strata of one cluster are pooled; if that leaves a pool of one, it joins the smallest other stratum.
    """
    codes, counts = np.unique(strata, return_counts=True)
    single = codes[counts == 1]
    if not len(single) or len(codes) == 1:
        return strata
    pooled = np.where(np.isin(strata, single), single[0], strata)
    if len(single) == 1:
        larger = codes[counts > 1]
        host = larger[np.argmin(counts[counts > 1])]
        pooled = np.where(pooled == single[0], host, pooled)
    return pooled


def bootstrap_weights(strata: NDArray[np.intp], resamples: int, rng: np.random.Generator) -> Floats:
    """Draw cluster weights.

    Args:
        strata: stratum code of each cluster [C].
        resamples: B.
        rng: the source of randomness.

    Returns:
        Weights [B, C]; those of a stratum of n clusters add up to n.
    """
    weights = np.ones((resamples, len(strata)))
    for members, drawn in _drawn(strata, resamples, rng):
        weights[:, members] = drawn
    return weights


def _drawn(
    strata: NDArray[np.intp], resamples: int, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.intp], Floats]]:
    """Yield the clusters of each stratum with their weights [B, n]."""
    pooled = collapse_strata(strata)
    for code in np.unique(pooled):
        members = np.flatnonzero(pooled == code)
        size = len(members)
        if size < 2:
            yield members, np.ones((resamples, size))
            continue
        drawn = rng.integers(size, size=(resamples, size - 1), dtype=np.uint32).astype(np.intp)
        drawn += np.arange(resamples)[:, None] * size
        counts = np.bincount(drawn.ravel(), minlength=resamples * size).reshape(resamples, size)
        yield members, counts * np.float64(size / (size - 1))


@dataclass(frozen=True)
class Draws:
    """How often each cluster of a table was drawn in each resample: those that `bootstrap_means` takes its means by.

    Attributes:
        counts: [B, C]; 1 for a stratum of a single cluster.
        scale: n / (n - 1) for the n clusters of its stratum [C]; 1 for n = 1.
    """

    counts: NDArray[np.uint16]
    scale: Floats

    @classmethod
    def of(cls, table: ScoreMatrix, resamples: int, rng: np.random.Generator) -> Draws:
        """Return the draws of a table's clusters."""
        pooled = collapse_strata(table.strata)
        sizes = np.bincount(pooled)[pooled] if len(pooled) else np.zeros(0, dtype=np.intp)
        scale = np.where(sizes > 1, sizes / np.maximum(sizes - 1, 1), 1.0)
        counts = np.empty((resamples, len(scale)), dtype=np.uint16)
        for first, size in _chunks(resamples, len(scale)):
            for members, drawn in _drawn(table.strata, size, rng):
                counts[first : first + size, members] = np.rint(drawn / scale[members])
        return cls(counts, scale)

    def weights(self, resamples: slice, clusters: NDArray[np.intp]) -> Floats:
        """Return the weights of items [b, n] in some resamples from their clusters [n]."""
        return self.counts[resamples].take(clusters, axis=1) * self.scale[clusters]


def _chunks(resamples: int, clusters: int) -> Iterator[tuple[int, int]]:
    """Yield the first of each run of resamples that are drawn at a time, and their number."""
    chunk = max(1, _CHUNK // max(1, clusters))
    for first in range(0, resamples, chunk):
        yield first, min(chunk, resamples - first)


def bootstrap_means(table: ScoreMatrix, resamples: int, rng: np.random.Generator) -> Floats:
    """Return the mean score of each checkpoint in the data and in every resample.

    mean[b, k] = sum_c w[b, c] sum_ck / sum_c w[b, c] count_ck, with weights w that all checkpoints share, so that the
    difference of two columns is a paired difference. A missing item has no weight in its checkpoint's mean.

    Returns:
        Means [B + 1, K], contiguous by column, row 0 from the data themselves. NaN in row 0: no scored item. NaN in a
        resample: the draw held no scored item of that checkpoint. Where a checkpoint's items lie in fewer than two
        clusters all resamples are NaN: there is nothing to resample.
    """
    sums, sum_columns = np.unique(table.cluster_sums(), axis=1, return_inverse=True)
    counts, count_columns = np.unique(table.cluster_counts(), axis=1, return_inverse=True)
    sum_columns, count_columns = sum_columns.ravel(), count_columns.ravel()
    result = np.empty((resamples + 1, len(sum_columns)), order="F")
    _divide(result[:1], sums.sum(axis=0)[None], counts.sum(axis=0)[None], sum_columns, count_columns)
    for first, size in _chunks(resamples, len(table.starts)):
        top, below = np.zeros((size, sums.shape[1])), np.zeros((size, counts.shape[1]))
        for members, drawn in _drawn(table.strata, size, rng):
            top += drawn @ sums[members]
            below += drawn @ counts[members]
        _divide(result[first + 1 : first + 1 + size], top, below, sum_columns, count_columns)
    result[1:, ((counts > 0).sum(axis=0) < 2)[count_columns]] = np.nan
    return result


def jackknife_means(table: ScoreMatrix) -> tuple[Floats, NDArray[np.intp]]:
    """Return the mean score of each checkpoint without each cluster in turn [C, K], and the stratum of each [C].

    The clusters that stay in the stratum, pooled as in the draws, are weighted n / (n - 1), so that it keeps its
    weight. NaN where nothing else is scored.
    """
    sums, counts = table.cluster_sums(), table.cluster_counts()
    _, strata = np.unique(collapse_strata(table.strata), return_inverse=True)
    sizes = np.bincount(strata)[strata][:, None]
    numerator, denominator = (_without(part, strata, sizes) for part in (sums, counts))
    return np.divide(numerator, denominator, out=np.full(sums.shape, np.nan), where=denominator > TINY), strata


def _without(part: Floats, strata: NDArray[np.intp], sizes: NDArray[np.intp]) -> Floats:
    """Return the total without each row in turn, the other rows of its stratum weighted n / (n - 1)."""
    of_stratum = np.zeros((strata.max(initial=-1) + 1, part.shape[1]))
    np.add.at(of_stratum, strata, part)
    rest = (of_stratum[strata] - part) * sizes / np.maximum(sizes - 1, 1)
    return part.sum(axis=0) - of_stratum[strata] + rest


def _divide(
    means: Floats, sums: Floats, counts: Floats, sum_columns: NDArray[np.intp], count_columns: NDArray[np.intp]
) -> None:
    """Fill in means, NaN where nothing was counted. Equal columns were added up once, so they stay equal to the bit."""
    divisors = np.where(counts > 0, counts, np.nan)
    for place in range(counts.shape[1]):
        columns = np.flatnonzero(count_columns == place)
        means[:, columns] = sums[:, sum_columns[columns]] / divisors[:, [place]]
