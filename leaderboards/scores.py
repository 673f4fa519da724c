"""From records to arrays: the items of a task, matched by id across checkpoints and sorted into clusters and strata."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..harness.errors import UserError
from ..harness.records import Record
from .metrics import Floats


@dataclass(frozen=True)
class Table:
    """One score of a task for K checkpoints over the union of their I items, which lie in C clusters.

    Items are ordered by (stratum, cluster, id), whatever order they came in.

    Attributes:
        items: item ids [I].
        values: scores [I, K]; NaN where a checkpoint has no score for an item.
        starts: index of the first item of each cluster [C].
        strata: stratum of each cluster [C], as codes 0, 1, ... in the order of `names`.
        names: names of the strata.
    """

    items: tuple[str, ...]
    values: Floats
    starts: NDArray[np.intp]
    strata: NDArray[np.intp]
    names: tuple[str, ...]

    def cluster_sums(self) -> Floats:
        """Return the sum of the scores of each cluster [C, K]; a missing item adds nothing."""
        return by_cluster(np.nan_to_num(self.values), self.starts)

    def cluster_counts(self) -> Floats:
        """Return the number of scored items of each cluster [C, K]."""
        return by_cluster((~np.isnan(self.values)).astype(np.float64), self.starts)

    @cached_property
    def binary(self) -> bool:
        """Whether every score is 0 or 1."""
        return bool(np.isin(self.values[~np.isnan(self.values)], (0.0, 1.0)).all())

    @property
    def single(self) -> bool:
        """Whether every item is a cluster of its own."""
        return len(self.starts) == len(self.items)

    def complete(self, columns: Sequence[int]) -> tuple[int, int, int]:
        """Return how many items have a score in every column, in how many clusters they lie, and how many have not."""
        scored = np.count_nonzero(np.isnan(self.values[:, list(columns)]), axis=1) == 0
        clusters = by_cluster(scored[:, None].astype(np.float64), self.starts)
        return int(scored.sum()), int((clusters > 0).sum()), int((~scored).sum())

    def stratum(self, name: str) -> Table:
        """Return the part of the table that lies in one stratum."""
        clusters = np.flatnonzero(self.strata == self.names.index(name))
        ends = [*self.starts, len(self.items)]
        rows = slice(ends[clusters[0]], ends[clusters[-1] + 1])
        starts = self.starts[clusters] - rows.start
        return Table(self.items[rows], self.values[rows], starts, np.zeros_like(clusters), (name,))

    def stratum_means(self, columns: Sequence[int]) -> dict[str, float]:
        """Return the mean score of each stratum: over its scored items, then over the columns that have any."""
        means = {}
        for name in self.names:
            block = self.stratum(name).values[:, list(columns)]
            scored = np.count_nonzero(~np.isnan(block), axis=0)
            if scored.any():
                sums = np.nan_to_num(block).sum(axis=0)
                means[name] = float(np.mean(sums[scored > 0] / scored[scored > 0]))
        return means


def by_cluster(values: Floats, starts: NDArray[np.intp]) -> Floats:
    """Add up the items of each cluster: [I, K] and the first item of each to [C, K]."""
    if not len(starts):
        return np.zeros((0, values.shape[1]))
    return np.add.reduceat(values, starts, axis=0)


def score_of(record: Record, score: str) -> float | None:
    """Return a record's score, or None where it is missing; what is not finite is missing too, never a value."""
    value = None if record.scores is None else record.scores.get(score)
    return None if value is None or not math.isfinite(value) else float(value)


def collect(columns: Sequence[Sequence[Record]], score: str) -> Table:
    """Match the records of K checkpoints by item.

    Args:
        columns: the records of each checkpoint, in any order; empty where it has none.
        score: key in `Record.scores`.

    Raises:
        UserError: an item twice in a checkpoint, or in different clusters or strata in two (different data).
    """
    places: dict[str, tuple[str, str]] = {}
    for records in columns:
        seen = set()
        for record in records:
            place = (record.stratum, record.cluster)
            if places.setdefault(record.item, place) != place:
                raise UserError(
                    f"Item {record.item!r} is in {places[record.item]} (stratum, cluster) in one checkpoint and in "
                    f"{place} in another: records of different data cannot share a board."
                )
            if record.item in seen:
                raise UserError(f"Item {record.item!r} occurs twice among the records of one checkpoint.")
            seen.add(record.item)
    items = tuple(sorted(places, key=lambda item: (*places[item], item)))
    index = {item: row for row, item in enumerate(items)}
    values = np.full((len(items), len(columns)), np.nan)
    for column, records in enumerate(columns):
        for record in records:
            value = score_of(record, score)
            if value is not None:
                values[index[record.item], column] = value
    ordered = [places[item] for item in items]
    starts = [row for row in range(len(items)) if row == 0 or ordered[row] != ordered[row - 1]]
    names = tuple(sorted({stratum for stratum, _ in ordered}))
    codes = {name: code for code, name in enumerate(names)}
    strata = [codes[ordered[row][0]] for row in starts]
    return Table(items, values, np.array(starts, dtype=np.intp), np.array(strata, dtype=np.intp), names)


def answer_shares(records: Sequence[Record]) -> dict[int, float]:
    """Return the share of the questions that were answered with each position (score `position`: 0 is the first).

    Questions without that score are left out; no question with one gives no share.
    """
    chosen = [int(place) for record in records if (place := score_of(record, "position")) is not None]
    return {place: chosen.count(place) / len(chosen) for place in sorted(set(chosen))}


def mark_shares(columns: Sequence[Sequence[Record]]) -> dict[str, float]:
    """Return the mean share of each mark: over the records of a checkpoint (no mark is 0), then over checkpoints."""
    totals: dict[str, float] = {}
    for records in columns:
        for record in records:
            for mark, share in record.marks.items():
                totals[mark] = totals.get(mark, 0.0) + share / len(records) / len(columns)
    return {mark: total for mark, total in sorted(totals.items()) if total > 0}


def mean_scores(columns: Sequence[Sequence[Record]]) -> dict[str, float]:
    """Return the mean of every score that the records hold: over scored items, then over checkpoints."""
    means: dict[str, list[float]] = {}
    for records in columns:
        names = sorted({name for record in records for name in record.scores or ()})
        for name in names:
            values = [value for record in records if (value := score_of(record, name)) is not None]
            if values:
                means.setdefault(name, []).append(math.fsum(values) / len(values))
    return {name: math.fsum(values) / len(values) for name, values in sorted(means.items())}
