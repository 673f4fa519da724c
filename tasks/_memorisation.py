"""How well a text is memorised, from its trace: one function a metric, formula and source in its docstring.

Notation: l_t = log p(a_t | q, a_<t), nats, over the n tokens of an answer a to a question q; hit_t = 1 where a_t is the
most probable token. Whether the end token is one of the n is the caller's choice (`Trace.first`). What cannot be said
is None, never a number; where published code says a number, an option says it too.

OU: OpenUnlearning (Dorna et al. 2025, arXiv 2506.12618), `src/evals/metrics` at d3d7cf9.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from statistics import fmean
from typing import Literal

Aggregate = Literal["geometric", "arithmetic"]
VARIANCE_FLOOR = 1e-6
"""Smallest variance that Min-k++ divides by, as in OU."""


def loss(logprobs: Sequence[float]) -> float | None:
    """Return the mean negative log-likelihood, -(1/n) sum l_t, nats a token; None of an empty text."""
    return -fmean(logprobs) if logprobs else None


def mean_probability(probabilities: Sequence[float], aggregate: Aggregate = "geometric") -> float | None:
    """Return the mean of probabilities: exp(mean log P) or mean P; None where there is none."""
    if not probabilities:
        return None
    if aggregate == "arithmetic":
        return fmean(probabilities)
    return math.exp(fmean(map(math.log, probabilities))) if min(probabilities) > 0 else 0.0


def normalised_probability(right: float, wrong: Sequence[float]) -> float | None:
    """Return P(a) / (P(a) + sum_k P(wrong_k)) of length-normalised probabilities.

    TOFU's probability of real authors and world facts: the paper's text reads as if P were not normalised by length,
    its code and OU normalise it. None where all are 0.
    """
    whole = right + sum(wrong)
    return right / whole if whole > 0 else None


def truth_ratio(
    right: float, wrong: Sequence[float], aggregate: Aggregate = "geometric", epsilon: float = 0.0
) -> float | None:
    """Return R = mean_k P(wrong_k) / P(right): small where a model knows the truth, about 1 where it does not.

    `right` is the probability of the paraphrased answer (forget and retain questions of TOFU) or of the answer itself
    (real authors, world facts). TOFU's `aggregate_eval_stat.py` and OU take the geometric mean; `utils.py` of TOFU's
    code takes the arithmetic one, which moves model utility from .6227 to .5859.

    Args:
        epsilon: added to the divisor; OU adds 1e-10.
    """
    mean = mean_probability(wrong, aggregate)
    return mean / (right + epsilon) if mean is not None and right + epsilon > 0 else None


def forget_truth_ratio(ratio: float) -> float:
    """Return min(R, 1/R), TOFU's form on forget questions: 1 where right and wrong are equally probable."""
    return min(ratio, 1 / ratio) if ratio > 0 else 0.0


def retain_truth_ratio(ratio: float) -> float:
    """Return max(0, 1 - R), TOFU's form on all other questions: 1 where the wrong answers are improbable."""
    return max(0.0, 1 - ratio)


def preference(right: float, wrong: Sequence[float]) -> float | None:
    """Return P(right) / (P(right) + mean_k P(wrong_k)): OU's third form of the truth ratio, `prob_mean`.

    OU uses it for the meta-evaluation of metrics, with P(right) of the paraphrased answer. None where all are 0.
    """
    mean = mean_probability(wrong, "arithmetic")
    return right / (right + mean) if mean is not None and right + mean > 0 else None


def exact_memorisation(hits: Sequence[int]) -> float | None:
    """Return the share of hits, (1/n) sum hit_t (Tirumala et al. 2022, arXiv 2205.10770); None of an empty text.

    Under teacher forcing: it is not how much of the text greedy generation repeats. OU leaves out the end token.
    """
    return fmean(hits) if hits else None


def extraction_strength(hits: Sequence[int], unmatched: Literal["published", "zero"] = "published") -> float:
    """Return 1 - k/n, k the smallest start from which on every token is a hit (Carlini et al. 2021, arXiv 2012.07805).

    0 of an empty text. OU leaves out the end token.

    Args:
        unmatched: what it is where not even the last token is a hit: 1/n (`published`, as OU's loop ends; a text of one
            token then has 1 whatever the model says), or 0.
    """
    count = len(hits)
    strength = next((tail for tail in range(count) if not hits[count - 1 - tail]), count)
    return max(strength, int(unmatched == "published" and count > 0)) / count if count else 0.0


def zlib_ratio(loss: float, text: str) -> float:
    """Return the loss over the bytes of the zlib-compressed text (UTF-8, level 6): OU's form of Carlini et al. 2021."""
    return loss / len(zlib.compress(text.encode()))


def min_k(logprobs: Sequence[float], share: float = 0.4, least: int = 1, empty: float | None = None) -> float | None:
    """Return Min-k (Shi et al. 2024, arXiv 2310.16789): minus the mean of the lowest `share` of the l_t.

    Args:
        share: k; OU's configurations say .4, its class alone .2.
        least: fewest tokens that are averaged: OU takes max(1, int(k n)); with 0 a text that is too short has None, as
            MUSE's int(k n) comes to.
        empty: what an empty text has; 0 in OU.
    """
    return _lowest(logprobs, share, least, empty)


def min_k_plus_plus(
    logprobs: Sequence[float],
    means: Sequence[float],
    variances: Sequence[float],
    share: float = 0.4,
    least: int = 1,
    empty: float | None = None,
) -> float | None:
    """Return Min-k++ (Zhang et al. 2024, arXiv 2404.02936): minus the mean of the lowest `share` of the z_t.

    z_t = (l_t - mu_t) / sqrt(max(sigma_t^2, 1e-6)), mu and sigma^2 mean and variance of the log-probability over the
    vocabulary. The other arguments are those of `min_k`.
    """
    scaled = [
        (logprob - mean) / math.sqrt(max(variance, VARIANCE_FLOOR))
        for logprob, mean, variance in zip(logprobs, means, variances, strict=True)
    ]
    return _lowest(scaled, share, least, empty)


def _lowest(numbers: Sequence[float], share: float, least: int, empty: float | None) -> float | None:
    if not numbers:
        return empty
    count = max(least, int(share * len(numbers)))
    return -fmean(sorted(numbers)[:count]) if count else None
