"""What a composite is given of a checkpoint: means of a score, or its items with their weights, in each resample."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..stats.bootstrap import Draws, bootstrap_means
from ..stats.composite import Condition, Score
from ..stats.formula import Sample
from ..stats.metrics import Floats
from .resampling import Resamples

SIGNS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq}


class MissingValueError(Exception):
    """Why a composite of a checkpoint has no value."""


@dataclass(frozen=True)
class Resampled:
    """The values of items [n] of a checkpoint, their clusters [n], and how often those were drawn."""

    values: Floats
    clusters: NDArray[np.intp]
    draws: Draws

    @property
    def enough(self) -> bool:
        """Whether there is anything to resample: two clusters."""
        return len(self.values) > 0 and bool((self.clusters != self.clusters[0]).any())

    def data(self) -> Sample:
        """Return the data themselves."""
        return Sample.of(self.values)

    def sample(self, resamples: slice) -> Sample:
        """Return some resamples."""
        return Sample(self.values, self.draws.weights(resamples, self.clusters))


class Scores:
    """The scores of a model's checkpoints on a track, filtered by what the checkpoints of a role have.

    Args:
        resamples: the model's.
        columns: role to its checkpoints on the track.
    """

    def __init__(self, resamples: Resamples, columns: Mapping[str, Sequence[int]]) -> None:
        self.resamples, self.columns = resamples, columns
        self._means: dict[tuple[Score, tuple[Condition, ...]], Floats] = {}

    def means(self, score: Score, column: int, conditions: Sequence[Condition]) -> Floats:
        """Return the mean of a score in the data and in each resample [B + 1].

        Raises:
            MissingValueError: the checkpoint has no value of it.
        """
        self.check(score, column)
        key = score, _own(score, conditions)
        if key not in self._means:
            self._means[key] = self._all_means(*key)
        means = self._means[key][:, column]
        if np.isnan(means[0]):
            raise MissingValueError(_filtered(score))
        return means

    def items(self, score: Score, column: int, conditions: Sequence[Condition], beside: str | None = None) -> Resampled:
        """Return the items that have a score, less that of the checkpoints with the role `beside`, if there is one.

        Raises:
            MissingValueError: there are none.
        """
        self.check(score, column)
        table = self.resamples.scores(score.task, score.name)
        values = table.values[:, column]
        if beside is not None:
            values = values - self._of_role(score, beside)
        kept = ~np.isnan(values) & self._kept(score.task, _own(score, conditions))
        if not kept.any():
            raise MissingValueError(_filtered(score))
        return Resampled(values[kept], table.clusters[kept], self.resamples.drawn(score.task))

    def _of_role(self, score: Score, role: str) -> Floats:
        """Return the mean score of each item over the checkpoints of a role [I]."""
        columns = list(self.of_role(role))
        for k in columns:
            self.check(score, k)
        return self.resamples.scores(score.task, score.name).values[:, columns].mean(axis=1)

    def check(self, score: Score, column: int) -> None:
        """Raise a `MissingValueError` where a checkpoint has no value of a score."""
        checkpoint = self.resamples.checkpoints[column]
        who = f"{checkpoint.role or checkpoint.kind}: " if checkpoint.kind in ("reference", "base") else ""
        answers = self.resamples.answers[score.task][column]
        if answers.scored(score.name):
            return
        if answers.items:
            has = ", ".join(name for name in answers.scores if name != score.name)
            cause = checkpoint.missing.get(score.task) or (f"they have {has}" if has else "no cause was recorded")
            raise MissingValueError(f"{who}its records of {score.task} have no {score.name}: {cause}")
        if checkpoint.status == "failed":
            raise MissingValueError(f"{who}failed: {checkpoint.failure or 'no cause was recorded'}")
        raise MissingValueError(
            f"{who}{'not run yet' if checkpoint.status == 'pending' else f'no records of {score.task}'}"
        )

    def _all_means(self, score: Score, conditions: tuple[Condition, ...]) -> Floats:
        """Return the means of all checkpoints [B + 1, K], by the draws of the task's metric."""
        resamples, table = self.resamples, self.resamples.scores(score.task, score.name)
        if not conditions and table is resamples.tables[score.task]:
            return resamples.part((score.task,))
        kept = self._kept(score.task, conditions)[:, None]
        values = np.where(kept, table.values, np.nan)
        return bootstrap_means(replace(table, values=values), resamples.spec.resamples, resamples.generator(score.task))

    def _kept(self, task: str, conditions: tuple[Condition, ...]) -> NDArray[np.bool_]:
        """Return which items of a task hold all conditions on it [I]."""
        kept = np.ones(len(self.resamples.tables[task].items), dtype=bool)
        for condition in conditions:
            kept &= SIGNS[condition.sign](self._of_role(condition.score, condition.role), condition.bound)
        return kept

    def of_role(self, role: str) -> Sequence[int]:
        """Return the checkpoints of a role; raise a `MissingValueError` where the track has none."""
        if not self.columns[role]:
            raise MissingValueError(f"the track has no {role} checkpoint")
        return self.columns[role]


def _own(score: Score, conditions: Sequence[Condition]) -> tuple[Condition, ...]:
    """Return the conditions on items of a score's task."""
    return tuple(condition for condition in conditions if condition.score.task == score.task)


def _filtered(score: Score) -> str:
    return f"no item of {score.task} is left by its `where`"
