"""What remains of a row's forgetting after a stress (relearning, quantisation), against base under the same stress.

    remaining = (base' - row') / (base - row)      in the forget metric, primes: after the stress

1: all of it, 0: none of it, above 1: more than before. What the stress alone does to the base is in both terms of its
numerator. Base, row and both after the stress share their resamples, seed by seed where a row has several. It is
missing where the forgetting before is not separable from zero: a share of what may be nothing means nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..schema import Interval, Stressed
from ..stats.intervals import estimate
from .components import interval
from .groups import Group, measured
from .resampling import Resamples


def stressed(resamples: Resamples, track: str, group: Group, base: Group | None) -> dict[str, Stressed]:
    """Return what a row comes to under every stress of the board; `base` is None for the base's own row."""
    return {stress: _under(resamples, track, group, base, stress) for stress in resamples.spec.stress}


def _derived(resamples: Resamples, track: str, group: Group, stress: str) -> list[int]:
    """Return the columns of a row's checkpoints after a stress, measured or not."""
    return [
        k
        for k, checkpoint in enumerate(resamples.checkpoints)
        if checkpoint.stress == stress
        and checkpoint.variant == f"{group.variant}+{stress}"
        and checkpoint.track in (None, track)
    ]


def _under(resamples: Resamples, track: str, group: Group, base: Group | None, stress: str) -> Stressed:
    roles = resamples.spec.tracks[track]
    planned = _derived(resamples, track, group, stress)
    columns = [k for k in planned if measured(resamples, track, k)]
    beside = [k for k in _derived(resamples, track, base, stress) if measured(resamples, track, k)] if base else []
    s, forget, retain = resamples.s(track), resamples.metric(roles.forget_task), resamples.metric(roles.retain_task)
    remaining, note = None, _unmeasured(resamples, track, planned)
    if not note and base is not None:
        remaining, note = _remaining(resamples, track, group, base, columns, beside)
    return {
        "s_unlearning": interval(resamples.estimate(s, columns)),
        "forget": interval(resamples.estimate(forget, columns)),
        "retain": interval(resamples.estimate(retain, columns)),
        "s_delta_base": interval(resamples.estimate(s, columns, beside)),
        "forget_delta_base": interval(resamples.estimate(forget, columns, beside)),
        "retain_delta_base": interval(resamples.estimate(retain, columns, beside)),
        "remaining": remaining,
        "note": note,
        "planned": len(planned),
        "finished": len(columns),
        "cells": sorted(resamples.checkpoints[k].cell for k in planned),
    }


def _unmeasured(resamples: Resamples, track: str, planned: Sequence[int]) -> str:
    """Say why nothing is known of a row under a stress, empty where all of it is."""
    if not planned:
        return "not applicable: it changes no weights"
    members = [resamples.checkpoints[k] for k in planned]
    failed = [checkpoint.failure or "no cause was recorded" for checkpoint in members if checkpoint.status == "failed"]
    if failed:
        return f"failed: {failed[0]}"
    if any(checkpoint.status == "pending" for checkpoint in members):
        return "not run yet"
    lacking = {k: task for k in planned if (task := resamples.lacking(track, k))}
    causes = [
        f"no score of {task}: {resamples.checkpoints[k].missing.get(task, 'no cause was recorded')}"
        for k, task in lacking.items()
    ]
    return causes[0] if causes and len(causes) == len(planned) else ""


def _remaining(
    resamples: Resamples, track: str, group: Group, base: Group, columns: Sequence[int], beside: Sequence[int]
) -> tuple[Interval | None, str]:
    """Return the share of the forgetting that is left, or None and why.

    With several seeds each gives R + (a - R b) / mean b, with a and b its forgetting after and before and R the ratio
    of their means: the mean over seeds is R, and how seeds differ is what makes a ratio of means uncertain.
    """
    task = resamples.spec.tracks[track].forget_task
    chance, metric = resamples.spec.tasks[task].chance, resamples.metric(task)
    parent = {resamples.checkpoints[k].seed: k for k in group.columns}
    pairs = [(parent[seed], k) for k in columns if (seed := resamples.checkpoints[k].seed) in parent]
    if not pairs or not beside:
        return None, f"{base.variant} or the row lacks a score before or after it"
    before = resamples.estimate(metric, base.columns, [k for k, _ in pairs])
    if before is None or before.low is None or before.low <= 0:
        return None, "the forgetting before it is not separable from zero"
    itself = resamples.estimate(metric, beside)
    if itself is None or itself.low is None or itself.low <= chance:
        return None, f"{base.variant} itself is at chance after it: nothing is left to tell them apart"
    means = resamples.part((task,))
    was = means[:, list(base.columns)].mean(axis=1, keepdims=True) - means[:, [k for k, _ in pairs]]
    left = means[:, list(beside)].mean(axis=1, keepdims=True) - means[:, [k for _, k in pairs]]
    mean = was.mean(axis=1, keepdims=True)
    mean[mean == 0] = np.nan
    ratio = left.mean(axis=1, keepdims=True) / mean
    draws = ratio + (left - ratio * was) / mean
    share = estimate(draws, confidence=resamples.spec.confidence, freedom=resamples.freedom(metric))
    return interval(share), ""
