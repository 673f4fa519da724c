"""Composites of a track's rows: statistics of scores of several tasks and checkpoints, whole in each resample.

A row of several checkpoints, and a reference of several, are crossed: the value of a checkpoint is the mean over the
references of its role, and a row's is the mean over its checkpoints, with the interval that `intervals` gives any row.
The draws of a task are those that its means are taken by, so that one resample holds the same clusters for the row, its
reference and every other number of the board.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import product
from typing import cast

import numpy as np

from ..schema import CompositeRow, CompositeTable, CompositeValue, Interval, Row, rounded
from ..spec import BoardSpec
from ..stats.composite import Definition, Operand, Score, definitions
from ..stats.intervals import Estimate, estimate
from ..stats.metrics import Floats
from .components import interval
from .groups import Group, base_of, untouched
from .operands import MissingValueError, Resampled, Scores
from .resampling import Resamples

_CHUNK = 100_000  # weights held at a time: what lies in a processor's own memory is fastest


def definitions_of(spec: BoardSpec) -> dict[str, Definition]:
    """Return what a board's composites say; raise a `UserError` where they cannot be computed of its tasks."""
    return definitions(spec.composites, spec.tasks, {name: roles.tasks for name, roles in spec.tracks.items()})


def build_composites(
    resamples: Resamples, model: str, groups: Mapping[str, Sequence[Group]], rows: Sequence[Row]
) -> Iterator[CompositeTable]:
    """Yield the composites of a model's tracks that have any, references and base first, then as in `rows`."""
    known = definitions_of(resamples.spec)
    for track, own in groups.items():
        shown = {name: definition for name, definition in known.items() if track in definition.tracks}
        if not shown:
            continue
        places = [row["variant"] for row in rows if (row["model"], row["track"]) == (model, track)]
        ordered = sorted(own, key=lambda group: (_place(group), places.index(group.variant)))
        composites = Composites(resamples, track, own, known)
        yield {
            "model": model,
            "track": track,
            "better": {name: definition.better for name, definition in shown.items()},
            "rows": [composites.row(group, shown) for group in ordered],
        }


def _place(group: Group) -> int:
    """Return where a row stands: what others are read beside comes first."""
    return {"reference": 0, "base": 1}.get(group.first.kind, 2)


class Composites:
    """The composites of a model on a track; values that several rows or composites need are computed once."""

    def __init__(
        self, resamples: Resamples, track: str, groups: Sequence[Group], known: Mapping[str, Definition]
    ) -> None:
        self.resamples, self.known = resamples, known
        base, self.compared = untouched(groups), base_of(resamples, track, groups)
        columns = {role: self._of_role(role, track) for role in ("original", "retain")}
        columns["base"] = list(base.columns) if base else []
        columns["original"] = columns["original"] or columns["base"]
        self.scores = Scores(resamples, columns)
        self.draws = lru_cache(maxsize=512)(self._draws)

    def _of_role(self, role: str, track: str) -> list[int]:
        """Return the checkpoints of a role, the measured ones where there are any."""
        named = [
            (k, checkpoint)
            for k, checkpoint in enumerate(self.resamples.checkpoints)
            if checkpoint.role == role and checkpoint.track in (None, track)
            if checkpoint.stress is None and checkpoint.beside is None
        ]
        return [k for k, checkpoint in named if checkpoint.status == "ok"] or [k for k, _ in named]

    def row(self, group: Group, names: Sequence[str] | Mapping[str, Definition]) -> CompositeRow:
        """Return the composites of a row."""
        values = {name: self._value(name, group) for name in names}
        return {"variant": group.variant, "kind": group.first.kind, "role": group.first.role, "values": values}

    def _value(self, name: str, group: Group) -> CompositeValue:
        draws: dict[int, Floats] = {}
        p, lacking = [], []
        for k in group.members:
            try:
                draws[k] = self.draws(name, k)
                p += self._p(name, k)
            except MissingValueError as reason:
                lacking.append(str(reason))
        own = list(draws.values())
        some = f"{len(lacking)} of {len(group.members)}: " if own else ""
        return {
            "value": _rounded(self._estimate(name, own)),
            "p": [float(f"{one:.6g}") for one in p],
            "delta_base": _rounded(self._estimate(name, own, self._others(name, group))),
            "n": min((self._items(name, k) for k in draws), default=0),
            "checkpoints": len(draws),
            "missing": some + lacking[0] if lacking else None,
        }

    def _others(self, name: str, group: Group) -> list[Floats]:
        """Return the draws of the row that all are compared with; none where a difference from it says nothing."""
        if self.compared is None or group.variant == self.compared.variant or not self.known[name].paired:
            return []
        try:
            return [self.draws(name, k) for k in self.compared.columns]
        except MissingValueError:
            return []

    def _estimate(self, name: str, plus: list[Floats], minus: list[Floats] | None = None) -> Estimate | None:
        """Return the mean of some checkpoints' draws, less that of others; None where there are none."""
        if not plus or minus == []:
            return None
        definition = self.known[name]
        low, high = definition.formula.bounds
        return estimate(
            *(np.stack(side, axis=1) for side in (plus, minus) if side is not None),
            confidence=self.resamples.spec.confidence,
            bounds=(low, high) if minus is None else (low - high, high - low),
            freedom=min((self.resamples.tables[score.task].freedom for score in definition.scores), default=1),
        )

    def _items(self, name: str, column: int) -> int:
        """Return the number of items of a composite's smallest part."""
        definition = self.known[name]
        counts = []
        for columns in self._crossed(definition, column):
            for (_, operand), k in zip(definition.arguments, columns, strict=True):
                if isinstance(operand.of, Score):
                    items = self.scores.items(operand.of, k, definition.conditions, operand.beside)
                    counts.append(len(items.values))
                elif isinstance(operand.of, str):
                    counts.append(self._items(operand.of, k))
        return min(counts, default=0)

    def _draws(self, name: str, column: int) -> Floats:
        """Return a composite of a checkpoint in the data and in each resample [B + 1].

        Raises:
            MissingValueError: it has no value in the data.
        """
        definition = self.known[name]
        draws = np.mean([self._computed(definition, columns) for columns in self._crossed(definition, column)], axis=0)
        if np.isnan(draws[0]):
            raise MissingValueError("what it would be divided by is 0")
        return draws

    def _crossed(self, definition: Definition, column: int) -> Iterator[list[int]]:
        """Yield the checkpoint that each argument is of, for every choice of the references."""
        roles = sorted({operand.role for _, operand in definition.arguments if operand.role})
        for chosen in product(*(self.scores.of_role(role) for role in roles)):
            of = dict(zip(roles, chosen, strict=True))
            yield [of.get(operand.role or "", column) for _, operand in definition.arguments]

    def _computed(self, definition: Definition, columns: Sequence[int]) -> Floats:
        given = self._given(definition, columns)
        resamples = self.resamples.spec.resamples
        samples = [part for part in given.values() if isinstance(part, Resampled)]
        if not samples:
            return np.broadcast_to(_called(definition, given), resamples + 1)
        result = np.full(resamples + 1, np.nan)
        data = {key: _data(part) for key, part in given.items()}
        result[:1] = _called(definition, data)
        if not all(part.enough for part in samples):
            return result
        step = max(2, _CHUNK // sum(len(part.values) for part in samples) // 2 * 2)
        for first in range(0, resamples, step):
            some = slice(first, min(first + step, resamples))
            result[1:][some] = _called(definition, {key: _some(part, some) for key, part in given.items()})
        return result

    def _given(self, definition: Definition, columns: Sequence[int]) -> dict[str, Resampled | Floats]:
        """Return what each argument is given: items, numbers [B + 1], or one number."""
        return {
            key: self._items_of(operand, k, definition)
            if key in definition.formula.samples
            else self._numbers(operand, k, definition)
            for (key, operand), k in zip(definition.arguments, columns, strict=True)
        }

    def _items_of(self, operand: Operand, column: int, definition: Definition) -> Resampled:
        items = self.scores.items(cast(Score, operand.of), column, definition.conditions, operand.beside)
        return Resampled(1 - items.values, items.clusters, items.draws) if operand.less else items

    def _numbers(self, operand: Operand, column: int, definition: Definition) -> Floats:
        if isinstance(operand.of, Score):
            numbers = self.scores.means(operand.of, column, definition.conditions)
        else:
            numbers = np.array(operand.of) if isinstance(operand.of, float) else self.draws(operand.of, column)
        return 1 - numbers if operand.less else numbers

    def _p(self, name: str, column: int) -> list[float]:
        """Return the p of the data for every choice of the references; none where the statistic has none."""
        definition = self.known[name]
        if definition.formula.p is None:
            return []
        given = (self._given(definition, columns) for columns in self._crossed(definition, column))
        return [definition.formula.p(**{key: _data(part) for key, part in one.items()}) for one in given]


def _data(part: Resampled | Floats) -> object:
    """Return what an argument is in the data."""
    return part.data() if isinstance(part, Resampled) else part[:1] if part.ndim else part


def _some(part: Resampled | Floats, resamples: slice) -> object:
    """Return what an argument is in some resamples."""
    return part.sample(resamples) if isinstance(part, Resampled) else part[1:][resamples] if part.ndim else part


def _called(definition: Definition, given: Mapping[str, object]) -> Floats:
    if definition.formula.variadic:
        return definition.formula(*given.values(), **definition.settings)
    return definition.formula(**given, **definition.settings)


def _rounded(found: Estimate | None) -> Interval | None:
    return cast("Interval | None", rounded(interval(found)))
