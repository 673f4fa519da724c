"""Joint paired bootstrap: whole clusters are drawn within strata, with the same draws for every checkpoint.

A resample is a vector of cluster weights, a mean is a ratio of two matrix products, and every other number of a board
is a function of such means, recomputed whole in each resample. Row 0 of all arrays is the data as they are.

Within a stratum of n clusters, n - 1 are drawn with replacement and weighted n / (n - 1): the rescaled bootstrap of Rao
and Wu (1988), whose variance is right in small strata too, where drawing n gives (n - 1) / n of it. A stratum of a
single cluster has no variance that could be seen; such strata are pooled ("collapsed", the usual conservative choice).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .metrics import Floats
from .scores import Table

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
    pooled = collapse_strata(strata)
    for code in np.unique(pooled):
        members = np.flatnonzero(pooled == code)
        size = len(members)
        if size < 2:
            continue
        drawn = rng.integers(size, size=(resamples, size - 1))
        drawn += np.arange(resamples)[:, None] * size
        counts = np.bincount(drawn.ravel(), minlength=resamples * size).reshape(resamples, size)
        weights[:, members] = counts * (size / (size - 1))
    return weights


def bootstrap_means(table: Table, resamples: int, rng: np.random.Generator) -> Floats:
    """Return the mean score of each checkpoint in the data and in every resample.

    mean[b, k] = sum_c w[b, c] sum_ck / sum_c w[b, c] count_ck, with weights w that all checkpoints share, so that the
    difference of two columns is a paired difference. A missing item has no weight in its checkpoint's mean.

    Returns:
        Means [B + 1, K], row 0 from the data themselves. NaN in row 0: no scored item. NaN in a resample: the draw
        held no scored item of that checkpoint. Where a checkpoint's items lie in fewer than two clusters all
        resamples are NaN: there is nothing to resample.
    """
    sums, sum_columns = np.unique(table.cluster_sums(), axis=1, return_inverse=True)
    counts, count_columns = np.unique(table.cluster_counts(), axis=1, return_inverse=True)
    sum_columns, count_columns = sum_columns.ravel(), count_columns.ravel()
    clusters = len(table.starts)
    chunk = max(1, _CHUNK // max(1, clusters))
    means = [_ratio(sums.sum(axis=0, keepdims=True), counts.sum(axis=0, keepdims=True), sum_columns, count_columns)]
    for first in range(0, resamples, chunk):
        weights = bootstrap_weights(table.strata, min(chunk, resamples - first), rng)
        means.append(_ratio(weights @ sums, weights @ counts, sum_columns, count_columns))
    result = np.concatenate(means)
    result[1:, ((counts > 0).sum(axis=0) < 2)[count_columns]] = np.nan
    return result


def _ratio(sums: Floats, counts: Floats, sum_columns: NDArray[np.intp], count_columns: NDArray[np.intp]) -> Floats:
    """Divide, NaN where nothing was counted. Equal columns were multiplied once, so that they stay equal to the bit."""
    numerator, denominator = sums[:, sum_columns], counts[:, count_columns]
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)
