"""What tuned settings gained on validation items beside what they gain on a board: the optimism of the search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from ...leaderboards.schema import Row
from ..planning.plan import Plan
from .provenance import as_tuned


def optimism_facts(plan: Plan, rows: Sequence[Row]) -> dict[str, str]:
    """Return what a board says of it: the gains in S over base of the rows whose settings are what a search found.

    Nothing where no search recorded a gain, as older suite files did not.
    """
    gains = list(_gains(plan, rows))
    if not gains:
        return {}
    rest = [f"{name} {before:+.3f} → {after:+.3f}" for name, before, after in gains]
    before, after = fmean(gain for _, gain, _ in gains), fmean(gain for _, _, gain in gains)
    mean = f"mean {before:+.3f} → {after:+.3f}, optimism {before - after:+.3f}; " if len(gains) > 1 else ""
    return {"tuning optimism": f"S less S of base, on validation items → here: {mean}{', '.join(rest)}"}


def _gains(plan: Plan, rows: Sequence[Row]) -> Iterator[tuple[str, float, float]]:
    specs = {(cell.model, cell.spec.track, cell.spec.variant): cell.spec for cell in plan.cells if not cell.spec.stress}
    for row in rows:
        spec = specs.get((row["model"], row["track"], row["variant"]))
        tuned = as_tuned(plan.suite, spec) if spec is not None and row["kind"] == "method" else None
        if tuned is not None and "gain" in tuned.validation and row["delta_base"] is not None:
            model = f"{row['model']} " if len(plan.models) > 1 else ""
            name = f"{model}{row['track']} {row['variant']}"
            yield name, tuned.validation["gain"], row["delta_base"]["value"]
