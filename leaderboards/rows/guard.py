"""Non-inferiority and equivalence to base: what a row is shown to have kept, within the board's margin.

Both go by the board's own two-sided interval, so that a loss of the margin passes in half of its error (2.5 % at 95 %),
as is usual in trials (Piaggio et al. 2012, doi 10.1001/jama.2012.87802): few seeds with a skewed law need that reserve.
"""

from __future__ import annotations

from typing import NamedTuple

from scipy import special

from ..schema import Utility
from ..stats.intervals import exact_reach
from .groups import Group
from .resampling import Resamples, Statistic


class Limits(NamedTuple):
    """A difference and the ends of its interval."""

    value: float
    low: float
    high: float


def limits(resamples: Resamples, statistic: Statistic, group: Group, base: Group | None) -> Limits | None:
    """Return a statistic of a row less that of base with its limits; None without a base or an interval.

    Where resamples agree, clusters that show no difference bound it.
    """
    gap = resamples.estimate(statistic, group.columns, base.columns) if base else None
    if gap is None or gap.low is None or gap.high is None:
        return None
    reach = exact_reach(resamples.clusters(statistic), resamples.spec.confidence) if gap.constant else 0.0
    return Limits(gap.value, gap.low - reach, gap.high + reach)


def utility(resamples: Resamples, track: str, group: Group, base: Group | None) -> Utility | None:
    """Return whether a row keeps base's utility, None where that cannot be told.

    `power` is that of a normal lower limit as far from its value as here: Phi(z (margin / arm - 1)).
    """
    retain, margin = resamples.metric(resamples.spec.tracks[track].retain_task), resamples.spec.margin
    gap = limits(resamples, retain, group, base)
    if gap is None:
        return None
    arm, z = gap.value - gap.low, special.ndtri((1 + resamples.spec.confidence) / 2)
    power = float(special.ndtr(z * (margin / arm - 1))) if arm > 0 else 1.0
    return {"low": gap.low, "margin": margin, "kept": gap.low > -margin, "lost": gap.high < -margin, "power": power}


def equivalent(resamples: Resamples, track: str, group: Group, base: Group | None) -> bool | None:
    """Return whether S is shown to lie within the margin of base's; None where that cannot be told."""
    gap = limits(resamples, resamples.s(track), group, base)
    return None if gap is None else -resamples.spec.margin < gap.low and gap.high < resamples.spec.margin
