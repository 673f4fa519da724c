"""Statistics of means: quotients against a reference, harmonic means, and the aggregates of published benchmarks.

They work elementwise on arrays of one shape, a value a resample. NaN stays NaN.
"""

from __future__ import annotations

import numpy as np

from . import metrics
from .formula import Sample, statistic
from .metrics import Floats


@statistic("mean")
def mean(values: Sample) -> Floats:
    """Return the mean of items [b]: what an argument that is no sample is given anyway; of use with `where`."""
    return values.mean()


@statistic("harmonic_mean", bounds=(0.0, np.inf), better="higher")
def harmonic_mean(*parts: Floats) -> Floats:
    """Return k / sum(1 / x) of k numbers; 0 where any of them is 0 or less, as scipy's `hmean` and the field have it.

    The unlearning-depth board takes 1e-12 for 0, which shows from the eleventh decimal on.
    """
    together = np.stack(np.broadcast_arrays(*parts))
    positive = (together > 0).all(axis=0)
    with np.errstate(divide="ignore"):
        mean = len(parts) / (1 / np.where(together > 0, together, 1.0)).sum(axis=0)
    return np.where(np.isnan(together).any(axis=0), np.nan, np.where(positive, mean, 0.0))


@statistic("quotient", better=None)
def quotient(value: Floats, reference: Floats) -> Floats:
    """Return value / reference: utility as a share of the original's. NaN where the reference is 0."""
    return value / np.where(reference == 0, np.nan, reference)


@statistic("relative_change")
def relative_change(value: Floats, reference: Floats) -> Floats:
    """Return (value - reference) / reference in per cent: OpenUnlearning's `rel_diff`. NaN where the reference is 0."""
    return 100 * quotient(value - reference, reference)


@statistic("likeness", bounds=(0.0, 1.0), better="higher")
def likeness(unlearned: Floats, retain: Floats) -> Floats:
    """Return clip(1 - |x_u - x_r| / x_r, 0, 1): 1 where an attack's AUC is that of the retrained model.

    The `s_MIA` of the unlearning-depth board (arXiv 2506.12618 scales its attacks to the same end).
    """
    return np.clip(1 - np.abs(unlearned - retain) / np.where(retain == 0, np.nan, retain), 0, 1)


@statistic("agreement", bounds=(0.0, 1.0), better="higher")
def agreement(before: Floats, after: Floats) -> Floats:
    """Return 1 - |a - b| / (|a| + |b|), 1 where both are 0: how little a metric moves under a perturbation.

    R (relearning, of changes) and Q (quantisation, of values) of the unlearning-depth board's meta-evaluation, whose
    robustness is their harmonic mean.
    """
    size = np.abs(before) + np.abs(after)
    return 1 - np.abs(before - after) / np.where(size == 0, 1.0, size)


@statistic("privleak")
def privleak(unlearned: Floats, retain: Floats) -> Floats:
    """Return 100 ((1 - AUC_u) - (1 - AUC_r)) / (1 - AUC_r) of AUCs of OpenUnlearning's sign (`auc`).

    0: like retraining; below: the forget text still is told apart as seen; above: it stands out as unseen. Where no
    retrained model is at hand OpenUnlearning puts 0.5 for AUC_r: give that number. It explodes as AUC_r nears 1.
    """
    return relative_change(1 - unlearned, 1 - retain)


@statistic("muse_privleak")
def muse_privleak(unlearned: Floats, retain: Floats) -> Floats:
    """Return 100 (AUC_u - AUC_r) / AUC_r of AUCs of MUSE's sign, of log-probabilities (arXiv 2407.06460, C3).

    The same number as `privleak` of the other sign's AUCs. Retrained: 0.4772 (News), 0.5393 (Books).
    """
    return relative_change(unlearned, retain)


@statistic("model_utility", bounds=(0.0, 1.0), better="higher")
def model_utility(
    retain_probability: Floats,
    retain_rouge: Floats,
    retain_truth: Floats,
    authors_probability: Floats,
    authors_rouge: Floats,
    authors_truth: Floats,
    facts_probability: Floats,
    facts_rouge: Floats,
    facts_truth: Floats,
) -> Floats:
    """Return TOFU's model utility (arXiv 2401.06121): the harmonic mean of nine means; 0 where any is 0.

    Probability (of real authors and world facts among the choices), ROUGE-L recall and max(0, 1 - truth ratio) of the
    retain set, real authors and world facts. The authors' own code has the wrong answers' arithmetic mean in one place
    and their geometric in another: the truth ratio moves it by 0.037.
    """
    return harmonic_mean(
        retain_probability,
        retain_rouge,
        retain_truth,
        authors_probability,
        authors_rouge,
        authors_truth,
        facts_probability,
        facts_rouge,
        facts_truth,
    )


@statistic("memorisation", bounds=(0.0, 1.0), better="higher")
def memorisation(
    extraction_strength: Floats, exact_memorisation: Floats, paraphrase_probability: Floats, truth_ratio: Floats
) -> Floats:
    """Return OpenUnlearning's Mem: HM(1 - ES, 1 - EM, 1 - P(paraphrase), 1 - truth ratio), all of the forget set.

    The truth ratio is its third form, P(paraphrase) / (P(paraphrase) + mean P(wrong)).
    """
    parts = (extraction_strength, exact_memorisation, paraphrase_probability, truth_ratio)
    return harmonic_mean(*(1 - part for part in parts))


@statistic("privacy", bounds=(0.0, 1.0), better="higher")
def privacy(
    loss: Floats,
    zlib: Floats,
    min_k: Floats,
    min_k_plus_plus: Floats,
    retain_loss: Floats,
    retain_zlib: Floats,
    retain_min_k: Floats,
    retain_min_k_plus_plus: Floats,
) -> Floats:
    """Return Priv of the unlearning-depth board: the harmonic mean of `likeness` of the AUCs of four attacks.

    Its authors' data give the scaling; OpenUnlearning (arXiv 2506.12618) does not publish its own.
    """
    pairs = (
        (loss, retain_loss),
        (zlib, retain_zlib),
        (min_k, retain_min_k),
        (min_k_plus_plus, retain_min_k_plus_plus),
    )
    return harmonic_mean(*(likeness(unlearned, retain) for unlearned, retain in pairs))


@statistic("s_unlearning", bounds=(0.0, 1.0), better="higher")
def s_unlearning(forgotten: Floats, kept: Floats, *, forget_chance: float = 0.0, retain_chance: float = 0.0) -> Floats:
    """Return S-unlearning (arXiv 2605.26454) of the forget metric and the retain metric; see `metrics`."""
    return metrics.s_unlearning(forgotten, kept, forget_chance=forget_chance, retain_chance=retain_chance)
