"""Two stores, boards or cells side by side: what they are made from, what came out, and what is more than noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ...leaderboards.schema import Interval
from ...leaderboards.spec import NULLS
from ...leaderboards.stats.intervals import Estimate
from .model import Change, Comparison, Difference, Facts, Quantity, RowComparison, Side
from .paired import Boards, Draft, Paired


def compare_sides(a: Side, b: Side) -> Comparison:
    """Compare two sides of one suite: paired where both have records, else from their boards."""
    paired = a.checkpoints is not None and b.checkpoints is not None
    found = Paired(a, b) if paired else Boards(a, b)
    keys_a, keys_b = found.keys(0), found.keys(1)
    drafts = [found.draft(key) for key in keys_a if key in keys_b]
    values = [each for _, quantities in drafts for each in quantities]
    estimates = iter(found.estimates(values))
    rows = [
        replace(row, quantities=[_quantity(row, each, next(estimates)) for each in quantities])
        for row, quantities in drafts
    ]
    return Comparison(
        suite=a.spec.suite,
        paired=paired,
        confidence=a.spec.confidence,
        identity=identity_changes(a.identity, b.identity),
        rows=rows,
        only_a=[" · ".join(key) for key in keys_a if key not in keys_b],
        only_b=[" · ".join(key) for key in keys_b if key not in keys_a],
    )


def identity_changes(a: Mapping[str, Facts], b: Mapping[str, Facts]) -> list[Difference]:
    """Return the facts that differ, of the subjects that both sides have; equal changes of several are one."""
    found: dict[tuple[str, str | None, str | None], list[str]] = {}
    for subject in sorted(set(a) & set(b)):
        for what in sorted(set(a[subject]) | set(b[subject])):
            before, after = a[subject].get(what), b[subject].get(what)
            if before != after:
                found.setdefault((what, before, after), []).append(subject)
    return [Difference(what, where, before, after) for (what, before, after), where in found.items()]


def _quantity(row: RowComparison, draft: Draft, found: Estimate) -> Quantity:
    difference: Interval = {"value": found.value, "low": found.low, "high": found.high}
    change = _change(draft, found, null=row.kind in NULLS)
    return Quantity(draft.name, draft.task, draft.a, draft.b, difference, change, draft.items, draft.changed)


def _change(draft: Draft, found: Estimate, *, null: bool) -> Change:
    if draft.equal:
        return "same"
    if found.low is None or found.high is None:
        return "no interval"
    if found.low <= 0 <= found.high:
        return "within noise"
    if null and draft.name != "retain":
        return "moved"
    return "better" if (found.value < 0) == (draft.name == "forget") else "worse"
