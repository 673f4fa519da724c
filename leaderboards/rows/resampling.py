"""All that is known of one model: its checkpoints, their scores as arrays, and the joint resamples of every task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...harness.errors import UserError
from ...harness.rng import board_generator
from ...harness.specs import digest
from ..spec import BoardSpec, Checkpoint
from ..stats.arrays import Answers, ScoreMatrix, collect
from ..stats.bootstrap import Draws, bootstrap_means, jackknife_means
from ..stats.intervals import Estimate, acceleration, estimate
from ..stats.metrics import Floats, forget_part, retain_part, s_unlearning
from ..stats.significance import Tested, compare_items

Part = tuple[str, ...]
"""A task, or a task and some of its strata."""


@dataclass(frozen=True)
class Statistic:
    """A number of a checkpoint: a function, elementwise, of its means on some parts.

    Attributes:
        parts: what is measured.
        of: takes the means on the parts in their order, arrays of one shape.
        bounds: what the number cannot leave.
    """

    parts: tuple[Part, ...]
    of: Callable[..., Floats]
    bounds: tuple[float, float] = (0.0, 1.0)


class Resamples:
    """The checkpoints of one model in a fixed order, with the scores and resamples of each task, drawn once.

    The draws of a task depend on the bootstrap seed, the task's name and the union of its clusters only.

    Attributes:
        checkpoints: sorted, whatever order they came in.
        answers: task name to the answers of every checkpoint; empty for one that has none or is not run yet.
        tables: task name to scores.
        means: task name to means [B + 1, K], row 0 from the data themselves.
    """

    def __init__(self, spec: BoardSpec, checkpoints: Sequence[Checkpoint]) -> None:
        ordered = sorted(checkpoints, key=_order)
        tables = {}
        self.answers: dict[str, list[Answers]] = {}
        for name, info in sorted(spec.tasks.items()):
            records = [checkpoint.records.get(name, ()) if _counts(checkpoint) else () for checkpoint in ordered]
            self.answers[name] = [Answers.of(rows) for rows in records]
            try:
                tables[name] = collect(self.answers[name], info.metric)
            except UserError as error:
                raise UserError(f"Task {name!r}: {error}") from None
        self._fill(spec, ordered, tables)

    @classmethod
    def of_tables(
        cls, spec: BoardSpec, checkpoints: Sequence[Checkpoint], tables: Mapping[str, ScoreMatrix]
    ) -> Resamples:
        """Return the resamples of checkpoints whose scores stand in tables already, a column each, in their order."""
        self = cls.__new__(cls)
        self._fill(spec, checkpoints, tables)
        return self

    def _fill(self, spec: BoardSpec, checkpoints: Sequence[Checkpoint], tables: Mapping[str, ScoreMatrix]) -> None:
        self.spec = spec
        self.checkpoints = list(checkpoints)
        self.tables = dict(tables)
        self._parts: dict[Part, ScoreMatrix] = {}
        self._means: dict[Part, Floats] = {}
        self._left_out: dict[Part, tuple[Floats, NDArray[np.intp]]] = {}
        self._scores: dict[tuple[str, str], ScoreMatrix] = {}
        self._drawn: dict[str, Draws] = {}
        self.means: dict[str, Floats] = {name: self.part((name,)) for name in self.tables}

    def part(self, part: Part) -> Floats:
        """Return the means of all checkpoints on a part [B + 1, K]; strata are drawn for themselves, once for all."""
        if part not in self._means:
            key = part[0] if len(part) == 1 else list(part)
            self._means[part] = bootstrap_means(self._table(part), self.spec.resamples, self.generator(key))
        return self._means[part]

    def scores(self, task: str, score: str) -> ScoreMatrix:
        """Return any score of a task for all checkpoints; of the clusters that its metric has."""
        if score == self.spec.tasks[task].metric:
            return self.tables[task]
        if (task, score) not in self._scores:
            self._scores[task, score] = collect(self.answers[task], score)
        return self._scores[task, score]

    def drawn(self, task: str) -> Draws:
        """Return how often each cluster of a task is drawn in each resample, as for the means of its metric."""
        if task not in self._drawn:
            self._drawn[task] = Draws.of(self.tables[task], self.spec.resamples, self.generator(task))
        return self._drawn[task]

    def metric(self, task: str, *strata: str) -> Statistic:
        """Return a task's metric, or that of some of its strata."""
        largest = self.spec.tasks[task].largest
        return Statistic(((task, *strata),), lambda mean: mean, (0.0, np.inf if largest is None else largest))

    def s(self, track: str) -> Statistic:
        """Return S-unlearning of a track, recomputed whole in each resample."""
        (forget, forget_chance), (retain, retain_chance) = self._roles(track)

        def of(m: Floats, r: Floats) -> Floats:
            return s_unlearning(m, r, forget_chance=forget_chance, retain_chance=retain_chance)

        return Statistic((forget, retain), of)

    def s_unbounded(self, track: str, columns: Sequence[int]) -> Floats:
        """Return S of some checkpoints, its resamples spread as those of S before clipping [B + 1, k].

        Clipping hides the noise of a row near chance, whose resamples pile up at 0 or 1; a comparison of rows that went
        by their spread would call luck a difference. Row 0 is S itself.
        """
        forget, retain = self.unclipped(track)
        whole = Statistic((*forget.parts, *retain.parts), lambda m, r: forget.of(m) * retain.of(r))
        draws = self.values(whole, columns)
        return draws - draws[0] + self.s_draws(track, columns)[0]

    def unclipped(self, track: str) -> tuple[Statistic, Statistic]:
        """Return Ubar and Rbar before clipping."""
        (forget, forget_chance), (retain, retain_chance) = self._roles(track)
        bounds = (-np.inf, np.inf)
        return (
            Statistic((forget,), lambda mean: forget_part(mean, forget_chance, clip=False), bounds),
            Statistic((retain,), lambda mean: retain_part(mean, retain_chance, clip=False), bounds),
        )

    def values(self, statistic: Statistic, columns: Sequence[int]) -> Floats:
        """Return a statistic of some checkpoints [B + 1, k]; those without a value are left out."""
        draws = statistic.of(*(self.part(part)[:, list(columns)] for part in statistic.parts))
        valid = ~np.isnan(draws[0])
        return draws if valid.all() else draws[:, valid]

    def draws(self, task: str, columns: Sequence[int]) -> Floats:
        """Return the means of some checkpoints on a task [B + 1, k]; those without any score of it are left out."""
        return self.values(self.metric(task), columns)

    def s_draws(self, track: str, columns: Sequence[int]) -> Floats:
        """Return S-unlearning of some checkpoints, recomputed whole in each resample [B + 1, k]."""
        return self.values(self.s(track), columns)

    def estimate(
        self,
        statistic: Statistic,
        plus: Sequence[int],
        minus: Sequence[int] | None = None,
        confidence: float | None = None,
    ) -> Estimate | None:
        """Return the mean of a statistic over some checkpoints, less that over others, with an interval.

        It is the board's, in its confidence where no other is given.
        """
        sides = [self.values(statistic, columns) for columns in (plus, minus) if columns is not None]
        if not all(side.shape[1] for side in sides):
            return None
        low, high = statistic.bounds
        return estimate(
            *sides,
            confidence=confidence or self.spec.confidence,
            bounds=statistic.bounds if minus is None else (low - high, high - low),
            acceleration=self.acceleration(statistic, plus, minus) if self.spec.interval == "bca" else None,
            freedom=self.freedom(statistic),
        )

    def freedom(self, statistic: Statistic) -> int:
        """Return the degrees of freedom of a statistic's variance over items: the fewest of its parts, at least 1."""
        return min(self._table(part).freedom for part in statistic.parts)

    def clusters(self, statistic: Statistic) -> int:
        """Return the number of clusters behind a statistic: the fewest of its parts."""
        return min(len(self._table(part).starts) for part in statistic.parts)

    def acceleration(
        self, statistic: Statistic, plus: Sequence[int], minus: Sequence[int] | None = None
    ) -> float | None:
        """Return BCa's acceleration of a mean, or a difference of two, over items; None on degenerate data."""
        left_out, groups = self._jackknife(statistic, plus)
        if minus is not None:
            left_out = left_out - self._jackknife(statistic, minus)[0]
        return acceleration(left_out, groups) if len(left_out) else None

    def _jackknife(self, statistic: Statistic, columns: Sequence[int]) -> tuple[Floats, NDArray[np.intp]]:
        """Return the mean of a statistic over some checkpoints without each cluster of each part in turn [C]."""
        data = [self.part(part)[0, list(columns)] for part in statistic.parts]
        valid = ~np.isnan(statistic.of(*data))
        values, groups, first = [], [], 0
        for place, part in enumerate(statistic.parts):
            if part not in self._left_out:
                self._left_out[part] = jackknife_means(self._table(part))
            means, strata = self._left_out[part]
            given = [*data[:place], means[:, list(columns)], *data[place + 1 :]]
            values.append(statistic.of(*given)[:, valid].mean(axis=1))
            groups.append(strata + first)
            first += int(strata.max(initial=-1)) + 1
        return np.concatenate(values), np.concatenate(groups)

    def strata(self, task: str) -> tuple[str, ...]:
        """Return the names of a task's strata."""
        return self.tables[task].names

    def scored(self, task: str, columns: Sequence[int]) -> list[int]:
        """Return those of some checkpoints that have a score of the task."""
        return [k for k in columns if not np.isnan(self.means[task][0, k])]

    def compare(self, task: str, plus: Sequence[int], minus: Sequence[int]) -> Tested | None:
        """Test whether two sets of columns score a task alike, or None where no item has a score on both sides."""
        rng = self.generator([task, "signs"])
        return compare_items(self.tables[task], plus, minus, confidence=self.spec.confidence, rng=rng)

    def lacking(self, track: str, index: int) -> str | None:
        """Return the task of a track of which a finished checkpoint has no score at all, or None."""
        roles = self.spec.tracks[track]
        for task in (roles.forget_task, roles.retain_task):
            if np.isnan(self.means[task][0, index]):
                return task
        return None

    def generator(self, key: Any) -> np.random.Generator:
        """Return a source of randomness that depends on the board's seed and a key only."""
        return board_generator(self.spec.seed, digest(key))

    def _table(self, part: Part) -> ScoreMatrix:
        if part not in self._parts:
            task, *strata = part
            self._parts[part] = self.tables[task].part(strata) if strata else self.tables[task]
        return self._parts[part]

    def _roles(self, track: str) -> tuple[tuple[Part, float], tuple[Part, float]]:
        roles = self.spec.tracks[track]
        forget, retain = ((task, self.spec.tasks[task].chance) for task in (roles.forget_task, roles.retain_task))
        return ((forget[0],), forget[1]), ((retain[0],), retain[1])


def _counts(checkpoint: Checkpoint) -> bool:
    """Whether records are read: of what is measured, and the finished ones of what failed."""
    return checkpoint.status != "pending"


def _order(checkpoint: Checkpoint) -> tuple:
    return (
        checkpoint.track or "",
        checkpoint.variant,
        -1 if checkpoint.seed is None else checkpoint.seed,
        checkpoint.cell,
    )
