"""The composites of two boards beside each other: statistics that have no say in what a comparison comes to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ...leaderboards.rows.composites import definitions_of
from ...leaderboards.schema import CompositeRow, Interval
from .model import CompositeComparison, Side


def compare_composites(a: Side, b: Side, reason: Mapping[tuple[str, str], str]) -> list[CompositeComparison]:
    """Return the composites that both sides have of a row, in the order of B's rows.

    Args:
        reason: why the numbers of a task on a model are not comparable, without those that are.
    """
    definitions, others = (definitions_of(side.spec) if side.composites else {} for side in (b, a))
    earlier = dict(_values(a))
    compared = []
    for key, after in _values(b):
        model, track, variant, name = key
        if (before := earlier.get(key)) is None:
            continue
        definition = definitions[name]
        causes = [reason[model, score.task] for score in definition.scores if (model, score.task) in reason]
        if definition != others[name]:
            causes = ["the composite is another one", *causes]
        defined = definition.paired and not causes
        difference = independent(before, after) if defined else None
        why = "; ".join(dict.fromkeys(causes)) or None
        compared.append(CompositeComparison(model, track, variant, name, before, after, difference, why))
    return compared


def _values(side: Side) -> Iterator[tuple[tuple[str, str, str, str], Interval]]:
    for table in side.composites:
        for row in table["rows"]:
            for name, value in _intervals(row):
                yield (table["model"], table["track"], row["variant"], name), value


def _intervals(row: CompositeRow) -> Iterator[tuple[str, Interval]]:
    for name, value in row["values"].items():
        if value["value"] is not None:
            yield name, value["value"]


def independent(a: Interval, b: Interval, stretch: Sequence[float] = (1.0, 1.0)) -> Interval:
    """Return b - a with the interval of independent estimates, their half-widths stretched; see `compare`."""
    value = b["value"] - a["value"]
    if a["low"] is None or a["high"] is None or b["low"] is None or b["high"] is None:
        return {"value": value, "low": None, "high": None}
    low = value - np.hypot(stretch[1] * (b["value"] - b["low"]), stretch[0] * (a["high"] - a["value"]))
    high = value + np.hypot(stretch[1] * (b["high"] - b["value"]), stretch[0] * (a["value"] - a["low"]))
    return {"value": value, "low": float(low), "high": float(high)}
