"""TOFU's truth ratio (arXiv 2401.06121): of an item, and the three ways in which it is averaged.

R = G / P(a),  P = exp(-NLL), NLL the mean over the tokens of an answer and its end
a   the paraphrased answer; of real authors and world facts the answer itself
G   mean of P over the wrong answers, geometric: exp(-mean NLL), or arithmetic
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from .formula import Sample, statistic
from .metrics import Floats


def truth_ratio(right: Floats, wrong: Floats, mean: Literal["geometric", "arithmetic"] = "geometric") -> Floats:
    """Return R of items [n] from the NLL of the right answer [n] and of k wrong ones [n, k].

    The geometric mean is that of TOFU's aggregation and of OpenUnlearning (which adds 1e-10 to P(a)); the arithmetic
    that of `utils.py` of TOFU's authors. They differ by some 4 points of model utility.
    """
    average = np.exp(-wrong.mean(axis=1)) if mean == "geometric" else np.exp(-wrong).mean(axis=1)
    return average / np.exp(-right)


def among_choices(right: Floats, wrong: Floats) -> Floats:
    """Return P(a) / (P(a) + sum P(wrong)) of items [n], each P length-normalised, from NLLs [n] and [n, k]."""
    return np.exp(-right) / (np.exp(-right) + np.exp(-wrong).sum(axis=1))


def against_mean(right: Floats, wrong: Floats) -> Floats:
    """Return P(a) / (P(a) + mean P(wrong)) of items [n]: OpenUnlearning's `prob_mean`, for meta-evaluation."""
    return np.exp(-right) / (np.exp(-right) + np.exp(-wrong).mean(axis=1))


@statistic("truth_ratio_closeness", bounds=(0.0, 1.0), better="higher")
def closeness(ratio: Sample) -> Floats:
    """Return the mean of min(R, 1 / R) [b]: the truth ratio that is reported of the forget set."""
    return ratio.mean(np.minimum(ratio.values, 1 / np.maximum(ratio.values, 1e-300)))


@statistic("truth_ratio_preference", bounds=(0.0, 1.0), better="higher")
def preference(ratio: Sample) -> Floats:
    """Return the mean of max(0, 1 - R) [b]: that of the retain set, real authors and world facts, in model utility."""
    return ratio.mean(np.maximum(0.0, 1 - ratio.values))


@statistic("mean")
def mean(values: Sample) -> Floats:
    """Return the mean of the items [b]: what any argument that is no sample is given anyway."""
    return values.mean()
