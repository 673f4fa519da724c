"""Statistics of two samples of items: Kolmogorov and Smirnov's D and p, the area under the ROC curve."""

from __future__ import annotations

import sys
import warnings

import numpy as np
from numpy.typing import NDArray

from .formula import Sample, statistic
from .metrics import Floats

LEAST = sys.float_info.min
"""What stands for a p that is too small for a number: no p is 0."""


def ks_p(unlearned: Sample, retain: Sample) -> float:
    """Return the two-sided p of the two-sample Kolmogorov-Smirnov test: TOFU's forget quality.

    `scipy.stats.ks_2samp` with its defaults, as TOFU (arXiv 2401.06121) and OpenUnlearning use it: exact up to 10,000
    items, so for n = m and D = 1 it is 2 / C(2n, n). It takes items for independent, which those of one author are
    not, and falls with their number: values of different n are not comparable.
    """
    from scipy import stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where the exact p is below the least number
        found = stats.ks_2samp(unlearned.values, retain.values)
    return max(float(found.pvalue), LEAST)  # pyright: ignore[reportAttributeAccessIssue]


@statistic("ks", bounds=(0.0, 1.0), better="lower", p=ks_p, paired=False)
def ks(unlearned: Sample, retain: Sample) -> Floats:
    """Return D = sup |F_u - F_r| of two samples [b], the statistic of the Kolmogorov-Smirnov test, beside its p.

    A monotone map of both samples changes nothing: truth ratios may come with or without a logarithm. The supremum of
    a resample lies too high, most where both samples are alike, so that percentiles of it miss the truth. Resamples
    are therefore those of the band around F_u - F_r, above and below in turn:

        D_b = D +- sup |(F_u - F_r)_b - (F_u - F_r)|,    since |D - D_true| <= sup |(F_u - F_r)_true - (F_u - F_r)|
    """
    points = np.unique(np.concatenate([unlearned.values, retain.values]))
    shares = (
        np.searchsorted(np.sort(side.values), points, side="right") / len(side.values) for side in (unlearned, retain)
    )
    distance = float(np.abs(np.subtract(*shares)).max())
    order, ends = _pooled(unlearned, retain)
    data = _gaps(Sample.of(unlearned.values), Sample.of(retain.values), order, ends)
    gaps = _gaps(unlearned, retain, order, ends)
    gaps -= data
    reach = np.maximum(gaps.max(axis=1), -gaps.min(axis=1))
    return distance + np.where(np.arange(len(reach)) % 2, reach, -reach)


def _pooled(one: Sample, other: Sample) -> tuple[NDArray[np.intp], NDArray[np.intp] | None]:
    """Return the order of the values of both, and in it the last of each run of equal ones; None: all differ."""
    values = np.concatenate([one.values, other.values])
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    return order, None if len(ends) == len(order) else ends


def _gaps(one: Sample, other: Sample, order: NDArray[np.intp], ends: NDArray[np.intp] | None) -> Floats:
    """Return the difference of two distribution functions at each value [b, t]."""
    weights = np.concatenate([one.weights / one.total[:, None], other.weights / -other.total[:, None]], axis=1)
    gaps = weights.take(order, axis=1)
    np.cumsum(gaps, axis=1, out=gaps)
    return gaps if ends is None else gaps.take(ends, axis=1)


@statistic("auc", bounds=(0.0, 1.0))
def auc(forget: Sample, holdout: Sample) -> Floats:
    """Return P(holdout > forget) + P(holdout = forget) / 2 [b]: the area under the ROC curve, holdout as class 1.

    OpenUnlearning's sign (arXiv 2506.12618): of scores that are lower for members (loss, zlib, Min-k), 1 says that the
    forget text is wholly told apart as seen, 0.5 that it is not. MUSE's AUC, of log-probabilities, is 1 less this one.
    """
    below = (forget.up_to(holdout.values) + forget.up_to(holdout.values, itself=False)) / 2
    return (holdout.weights * below).sum(axis=1) / (forget.total * holdout.total)
