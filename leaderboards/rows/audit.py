"""Signs that a checkpoint is broken, not unlearned: answers of one form, accuracy below chance, one text for all.

entropy        -sum_p share_p log2 share_p over the answered positions; 2 bits where four are answered alike often
below chance   p of an accuracy as low, or lower, were the true one chance: exact binomial, or t over clusters
distinct-2     distinct pairs of neighbouring words / all pairs (Li et al. 2016, arXiv 1510.03055), over the first
               continuation of each prompt, so that it does not depend on how many were drawn
same text      share of the prompts that the most common continuation was given to
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from scipy import special

from ..stats.arrays import ScoreMatrix, answer_shares, by_cluster
from .resampling import Resamples

BELOW = 0.001
"""p from which an accuracy is said to lie below chance: a board tests many checkpoints."""


@dataclass(frozen=True)
class Audit:
    """What a checkpoint's answers to a task look like.

    Attributes:
        answers: position to the share of the questions that it was answered to; empty where there are no positions.
        below: p of the accuracy were the truth chance; None where the task has no chance level.
        texts: of `audit_texts`; empty where there are no texts.
    """

    answers: Mapping[int, float] = field(default_factory=dict)
    below: float | None = None
    texts: Mapping[str, float] = field(default_factory=dict)

    def numbers(self) -> dict[str, float]:
        """Return every number by name."""
        numbers = dict(self.texts)
        if self.answers:
            numbers["answer_entropy"] = -sum(share * math.log2(share) for share in self.answers.values()) + 0.0
            numbers["most_answered"] = max(self.answers.values())
        if self.below is not None:
            numbers["p_below_chance"] = self.below
        return numbers


def audit(resamples: Resamples, index: int, task: str) -> Audit:
    """Return what a checkpoint's answers to a task look like."""
    info = resamples.spec.tasks[task]
    below = below_chance(resamples.tables[task], index, info.chance) if info.chance else None
    texts = resamples.checkpoints[index].texts.get(task, {})
    return Audit(answer_shares(resamples.answers[task][index], info.chosen), below, texts)


def mean_numbers(audits: Sequence[Audit]) -> dict[str, float]:
    """Return the mean of every number over the seeds that have it; of p the largest."""
    by_name: dict[str, list[float]] = {}
    for checkpoint_audit in audits:
        for name, value in checkpoint_audit.numbers().items():
            by_name.setdefault(name, []).append(value)
    return {
        name: max(values) if name.startswith("p_") else math.fsum(values) / len(values)
        for name, values in sorted(by_name.items())
    }


def below_chance(table: ScoreMatrix, column: int, chance: float) -> float | None:
    """Return the one-sided p of a mean score as low as this, were the true one `chance`; None for under two clusters.

    Scores of 0 and 1 that are clusters of their own: exact binomial. Else Student's t of the clustered mean.
    """
    values = table.values[:, [column]]
    counts = by_cluster((~np.isnan(values)).astype(np.float64), table.starts)[:, 0]
    sums = by_cluster(np.nan_to_num(values), table.starts)[:, 0][counts > 0]
    counts = counts[counts > 0]
    clusters, n = len(counts), counts.sum()
    if clusters < 2:
        return None
    if table.single and table.binary([column]):
        return float(special.bdtr(sums.sum(), int(n), chance))
    mean = sums.sum() / n
    error = math.sqrt(((sums - mean * counts) ** 2).sum() * clusters / (clusters - 1)) / n
    return float(special.stdtr(clusters - 1, (mean - chance) / error)) if error > 0 else float(mean >= chance)


def audit_texts(prompts: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return how much the continuations of different prompts differ: `distinct_2`, `same_text`; none without any.

    Empty continuations are left out (they are counted as `empty` marks).
    """
    continuations = [{text.strip() for text in texts} - {""} for texts in prompts]
    pairs = [pair for texts in prompts if texts for pair in pairwise(texts[0].split())]
    given = Counter(text for texts in continuations for text in texts)
    shares = {"distinct_2": len(set(pairs)) / len(pairs)} if pairs else {}
    return {**shares, "same_text": max(given.values()) / len(continuations)} if given else shares
