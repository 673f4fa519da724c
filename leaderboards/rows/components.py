"""The parts of a row: a task's number, its tests against base and noise, selectivity, in the shape of `schema`."""

from __future__ import annotations

from collections.abc import Sequence

from ..schema import SMALLEST, Component, Interval, NoiseShares, PairedTest, Selectivity
from ..stats.arrays import mean_scores
from ..stats.intervals import Estimate, exact_reach, noise_shares
from ..stats.metrics import Floats
from .groups import Group
from .resampling import Resamples, Statistic

STRATA = range(2, 7)
"""Numbers of strata of a forget task of which each gets an interval of its own."""


def interval(found: Estimate | None) -> Interval | None:
    """Return an estimate as the board holds it."""
    return None if found is None else {"value": found.value, "low": found.low, "high": found.high}


def difference(resamples: Resamples, statistic: Statistic, group: Group, other: Group | None) -> Interval | None:
    """Return a statistic of a row less that of another, None where there is no other."""
    return interval(resamples.estimate(statistic, group.columns, other.columns)) if other else None


def from_noise(resamples: Resamples, statistic: Statistic, group: Group) -> Interval | None:
    """Return a statistic of a row less that of its own noise, None where it has none."""
    return interval(resamples.estimate(statistic, group.columns, group.noise)) if group.noise else None


def component(
    resamples: Resamples, task: str, group: Group, base: Group | None, *, strata: bool = False
) -> Component | None:
    """Return a task's number of a row, None where it has none; `base` is None for the base's own row."""
    spec, info, table = resamples.spec, resamples.spec.tasks[task], resamples.tables[task]
    columns, metric = resamples.scored(task, group.columns), resamples.metric(task)
    mean = resamples.estimate(metric, columns)
    if mean is None:
        return None
    n, clusters, missing = table.complete(columns)
    exact = mean.constant and clusters > 1 and info.largest == 1 and mean.value in (0.0, 1.0)
    low, high = mean.low, mean.high
    if exact:
        reach = exact_reach(clusters, spec.confidence)
        low, high = (0.0, reach) if mean.value == 0.0 else (1.0 - reach, 1.0)
    also = mean_scores([resamples.answers[task][k] for k in columns])
    also.pop(info.metric, None)
    return {
        "task": task,
        "metric": info.metric,
        "value": mean.value,
        "low": low,
        "high": high,
        "interval": "exact" if exact else "bootstrap",
        "n": n,
        "n_clusters": clusters,
        "missing": missing,
        "delta_base": difference(resamples, metric, group, base),
        "delta_noise": from_noise(resamples, metric, group),
        "also": also,
        "strata": table.stratum_means(columns) if strata and len(table.names) > 1 else {},
        "strata_intervals": _strata(resamples, task, columns) if strata and len(table.names) in STRATA else {},
    }


def _strata(resamples: Resamples, task: str, columns: Sequence[int]) -> dict[str, Interval]:
    means = {
        name: interval(resamples.estimate(resamples.metric(task, name), columns)) for name in resamples.strata(task)
    }
    return {name: mean for name, mean in means.items() if mean is not None}


def comparison(
    resamples: Resamples, task: str, group: Group, against: str, columns: Sequence[int]
) -> PairedTest | None:
    """Return the test that a row's metric is that of other checkpoints, before Holm's correction; None without any."""
    test = resamples.compare(task, group.columns, columns) if columns else None
    if test is None:
        return None
    p = max(test.p, SMALLEST)
    return {
        "against": against,
        "test": test.test,
        "n": test.n,
        "p": p,
        "p_holm": p,
        "minimum_detectable": test.detectable,
    }


def shares(draws: Floats) -> NoiseShares | None:
    """Return what of the variance of S comes from items and from seeds."""
    parts = noise_shares(draws)
    return {"items": parts[0], "seeds": parts[1]} if parts else None


def selectivity(resamples: Resamples, track: str, group: Group, base: Group | None) -> Selectivity | None:
    """Return utility on the subjects next to the forget topic against the rest, None where there are not both."""
    roles = resamples.spec.tracks[track]
    names = resamples.strata(roles.retain_task)
    near = [name for name in names if name in roles.neighbours]
    rest = [name for name in names if name not in roles.neighbours]
    if not near or not rest:
        return None
    quantities = [resamples.metric(roles.retain_task, *strata) for strata in (near, rest)]
    beside, others = (interval(resamples.estimate(statistic, group.columns)) for statistic in quantities)
    gap = Statistic((quantities[0].parts[0], quantities[1].parts[0]), lambda a, b: a - b, (-1.0, 1.0))
    if beside is None or others is None:
        return None
    return {
        "task": roles.retain_task,
        "neighbours": near,
        "near": beside,
        "rest": others,
        "near_delta": difference(resamples, quantities[0], group, base),
        "rest_delta": difference(resamples, quantities[1], group, base),
        "gap": difference(resamples, gap, group, base),
    }
