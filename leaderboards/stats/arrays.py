"""From records to arrays: the items of a task, matched by id across checkpoints and sorted into clusters and strata."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...harness.errors import UserError
from ...harness.records import Record
from .metrics import Floats


@dataclass(frozen=True)
class ScoreMatrix:
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

    def binary(self, columns: Sequence[int]) -> bool:
        """Tell whether every score of some columns is 0 or 1."""
        values = self.values[:, list(columns)]
        return bool(((values == 0) | (values == 1) | np.isnan(values)).all())

    @property
    def single(self) -> bool:
        """Whether every item is a cluster of its own."""
        return len(self.starts) == len(self.items)

    @cached_property
    def freedom(self) -> int:
        """Clusters less strata (those of one cluster are pooled, so that they lose one together); at least 1."""
        sizes = np.bincount(self.strata)
        return max(1, int(len(self.starts) - (sizes > 1).sum() - bool((sizes == 1).any())))

    def complete(self, columns: Sequence[int]) -> tuple[int, int, int]:
        """Return how many items have a score in every column, in how many clusters they lie, and how many have not."""
        scored = np.count_nonzero(np.isnan(self.values[:, list(columns)]), axis=1) == 0
        clusters = by_cluster(scored[:, None].astype(np.float64), self.starts)
        return int(scored.sum()), int((clusters > 0).sum()), int((~scored).sum())

    @cached_property
    def _sizes(self) -> NDArray[np.intp]:
        """Number of items of each cluster [C]."""
        return np.diff([*self.starts, len(self.items)])

    @cached_property
    def clusters(self) -> NDArray[np.intp]:
        """The cluster of each item [I]."""
        return np.repeat(np.arange(len(self.starts)), self._sizes)

    @cached_property
    def _rows(self) -> list[NDArray[np.intp]]:
        """Items of each stratum, in the order of `names`."""
        of_item = np.repeat(self.strata, self._sizes)
        return [np.flatnonzero(of_item == code) for code in range(len(self.names))]

    def part(self, names: Sequence[str]) -> ScoreMatrix:
        """Return the part of the table that lies in some strata."""
        kept = [name for name in self.names if name in set(names)]
        codes = {self.names.index(name): code for code, name in enumerate(kept)}
        clusters = np.flatnonzero(np.isin(self.strata, list(codes)))
        sizes = self._sizes[clusters]
        rows = np.sort(np.concatenate([np.zeros(0, np.intp), *(self._rows[code] for code in codes)]))
        return ScoreMatrix(
            tuple(self.items[row] for row in rows),
            self.values[rows],
            sizes.cumsum() - sizes,
            np.array([codes[code] for code in self.strata[clusters].tolist()], dtype=np.intp),
            tuple(kept),
        )

    def stratum_means(self, columns: Sequence[int]) -> dict[str, float]:
        """Return the mean score of each stratum: over its scored items, then over the columns that have any."""
        means = {}
        for name, rows in zip(self.names, self._rows, strict=True):
            block = self.values[rows][:, list(columns)]
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


@dataclass(frozen=True)
class Answers:
    """The records of one checkpoint on one task, read once, as arrays in the order of its records.

    Attributes:
        items: item ids.
        places: (stratum, cluster) of each.
        scores: score name to values; NaN where missing or not finite.
        marks: mark name to shares; 0 where an item is not marked.
    """

    items: tuple[str, ...]
    places: tuple[tuple[str, str], ...]
    scores: Mapping[str, Floats]
    marks: Mapping[str, Floats]

    @classmethod
    def of(cls, records: Sequence[Record] | Answers) -> Answers:
        """Return records as arrays; such arrays as they are."""
        return records if isinstance(records, Answers) else cls.of_rows([vars(record) for record in records])

    @classmethod
    def of_rows(cls, rows: Sequence[Mapping[str, Any]]) -> Answers:
        """Return records that are plain JSON types as arrays."""
        score_rows = [row["scores"] or {} for row in rows]
        scores = {name: _finite([values.get(name, math.nan) for values in score_rows]) for name in _names(score_rows)}
        marks = [row["marks"] for row in rows]
        shares = {name: np.array([values.get(name, 0.0) for values in marks]) for name in _names(marks)}
        items = tuple(row["item"] for row in rows)
        places = tuple((row["stratum"], row["cluster"]) for row in rows)
        return cls(*_shared(items, places), scores, shares)

    def scored(self, score: str) -> set[str]:
        """Return the items that have a score."""
        valid = ~np.isnan(self.scores.get(score, np.full(len(self.items), np.nan)))
        return {item for item, kept in zip(self.items, valid, strict=True) if kept}

    def only(self, items: Collection[str]) -> Answers:
        """Return the records of some items."""
        rows = [row for row, item in enumerate(self.items) if item in items]
        return Answers(
            tuple(self.items[row] for row in rows),
            tuple(self.places[row] for row in rows),
            {name: values[rows] for name, values in self.scores.items()},
            {name: shares[rows] for name, shares in self.marks.items()},
        )


@lru_cache(maxsize=256)
def _shared(
    items: tuple[str, ...], places: tuple[tuple[str, str], ...]
) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Return the tuples that were here first among equal ones: checkpoints answer the same items."""
    return items, places


def _names(mappings: Sequence[Mapping[str, float]]) -> list[str]:
    return sorted(set().union(*mappings))


def _finite(values: Sequence[float | None]) -> Floats:
    array = np.array(values, dtype=np.float64)
    array[~np.isfinite(array)] = np.nan
    return array


def collect(columns: Sequence[Answers], score: str) -> ScoreMatrix:
    """Match the answers of K checkpoints by item.

    Args:
        columns: the answers of each checkpoint, in any order; empty where it has none.
        score: key in `Answers.scores`.

    Raises:
        UserError: an item twice in a checkpoint, or in different clusters or strata in two (different data).
    """
    places: dict[str, tuple[str, str]] = {}
    orders: dict[int, NDArray[np.intp]] = {}
    distinct = {(id(answers.items), id(answers.places)): (answers.items, answers.places) for answers in columns}
    for items, positions in distinct.values():
        if len(set(items)) < len(items):
            twice = next(item for item in items if items.count(item) > 1)
            raise UserError(f"Item {twice!r} occurs twice among the records of one checkpoint.")
        for item, place in zip(items, positions, strict=True):
            if places.setdefault(item, place) != place:
                raise UserError(
                    f"Item {item!r} is in {places[item]} (stratum, cluster) in one checkpoint and in "
                    f"{place} in another: records of different data cannot share a board."
                )
    items = tuple(sorted(places, key=lambda item: (*places[item], item)))
    index = {item: row for row, item in enumerate(items)}
    values = np.full((len(items), len(columns)), np.nan)
    for column, answers in enumerate(columns):
        if id(answers.items) not in orders:
            orders[id(answers.items)] = np.array([index[item] for item in answers.items], dtype=np.intp)
        if score in answers.scores:
            values[orders[id(answers.items)], column] = answers.scores[score]
    ordered = [places[item] for item in items]
    starts = [row for row in range(len(items)) if row == 0 or ordered[row] != ordered[row - 1]]
    names = tuple(sorted({stratum for stratum, _ in ordered}))
    codes = {name: code for code, name in enumerate(names)}
    strata = [codes[ordered[row][0]] for row in starts]
    return ScoreMatrix(items, values, np.array(starts, dtype=np.intp), np.array(strata, dtype=np.intp), names)


def answer_shares(answers: Answers, score: str | None) -> dict[int, float]:
    """Return the share of the questions that were answered with each choice; `score` is its place, 0 the first.

    Questions without that score are left out; no question with one gives no share.
    """
    chosen = _scored(answers, score or "")
    places, counts = np.unique(chosen.astype(int), return_counts=True)
    return {int(place): int(count) / len(chosen) for place, count in zip(places, counts, strict=True)}


def mark_shares(columns: Sequence[Answers]) -> dict[str, float]:
    """Return the mean share of each mark: over the records of a checkpoint (no mark is 0), then over checkpoints."""
    totals: dict[str, float] = {}
    for answers in columns:
        for mark, shares in answers.marks.items():
            totals[mark] = totals.get(mark, 0.0) + math.fsum(shares) / len(shares) / len(columns)
    return {mark: total for mark, total in sorted(totals.items()) if total > 0}


def mean_scores(columns: Sequence[Answers]) -> dict[str, float]:
    """Return the mean of every score that the answers hold: over scored items, then over checkpoints."""
    means: dict[str, list[float]] = {}
    for answers in columns:
        for name in answers.scores:
            values = _scored(answers, name)
            if len(values):
                means.setdefault(name, []).append(math.fsum(values) / len(values))
    return {name: math.fsum(values) / len(values) for name, values in sorted(means.items())}


def _scored(answers: Answers, score: str) -> Floats:
    values = answers.scores.get(score, np.zeros(0))
    return values[~np.isnan(values)]
