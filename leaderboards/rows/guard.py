"""Non-inferiority and equivalence to base: what a row is shown to have kept, one-sided, within the board's margin."""

from __future__ import annotations

from scipy import special

from ..schema import Utility
from ..stats.intervals import exact_reach
from .groups import Group
from .resampling import Resamples, Statistic


def one_sided(resamples: Resamples, statistic: Statistic, group: Group, base: Group) -> tuple[float, float] | None:
    """Return the one-sided limits, low and high, of a statistic of a row less that of base; None without an interval.

    Each holds by itself at the board's confidence. Where resamples agree, clusters that show no difference bound it.
    """
    sides = 2 * resamples.spec.confidence - 1
    gap = resamples.estimate(statistic, group.columns, base.columns, sides)
    if gap is None or gap.low is None or gap.high is None:
        return None
    reach = exact_reach(resamples.clusters(statistic), resamples.spec.confidence) if gap.constant else 0.0
    return gap.low - reach, gap.high + reach


def utility(resamples: Resamples, track: str, group: Group, base: Group | None) -> Utility | None:
    """Return whether a row keeps base's utility, None where that cannot be told.

    `power` is that of a normal lower limit as far from its value as here: Phi(z (margin / arm - 1)).
    """
    if base is None:
        return None
    retain, margin = resamples.metric(resamples.spec.tracks[track].retain_task), resamples.spec.margin
    limits = one_sided(resamples, retain, group, base)
    gap = resamples.estimate(retain, group.columns, base.columns)
    if limits is None or gap is None:
        return None
    low, high = limits
    arm = gap.value - low
    power = float(special.ndtr(special.ndtri(resamples.spec.confidence) * (margin / arm - 1))) if arm > 0 else 1.0
    return {"low": low, "margin": margin, "kept": low > -margin, "lost": high < -margin, "power": power}


def equivalent(resamples: Resamples, track: str, group: Group, base: Group | None) -> bool | None:
    """Return whether S is shown to lie within the margin of base's, by two one-sided tests; None where none can be."""
    limits = one_sided(resamples, resamples.s(track), group, base) if base else None
    return None if limits is None else -resamples.spec.margin < limits[0] and limits[1] < resamples.spec.margin
