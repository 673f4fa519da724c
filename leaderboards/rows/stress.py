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
from .groups import Group
from .resampling import Evidence


def stressed(evidence: Evidence, track: str, group: Group, base: Group | None) -> dict[str, Stressed]:
    """Return what a row comes to under every stress of the board; `base` is None for the base's own row."""
    return {stress: _under(evidence, track, group, base, stress) for stress in evidence.spec.stress}


def _derived(evidence: Evidence, track: str, group: Group, stress: str) -> list[int]:
    """Return the columns of a row's checkpoints after a stress, measured or not."""
    return [
        k
        for k, checkpoint in enumerate(evidence.checkpoints)
        if checkpoint.stress == stress
        and checkpoint.variant == f"{group.variant}+{stress}"
        and checkpoint.track in (None, track)
    ]


def _measured(evidence: Evidence, track: str, columns: Sequence[int]) -> list[int]:
    return [k for k in columns if evidence.checkpoints[k].status == "ok" and not evidence.lacking(track, k)]


def _under(evidence: Evidence, track: str, group: Group, base: Group | None, stress: str) -> Stressed:
    roles = evidence.spec.tracks[track]
    planned = _derived(evidence, track, group, stress)
    columns = _measured(evidence, track, planned)
    beside = _measured(evidence, track, _derived(evidence, track, base, stress)) if base else []
    s, forget, retain = evidence.s(track), evidence.metric(roles.forget_task), evidence.metric(roles.retain_task)
    remaining, note = None, _unmeasured(evidence, planned)
    if not note and base is not None:
        remaining, note = _remaining(evidence, track, group, base, columns, beside)
    return {
        "s_unlearning": interval(evidence.estimate(s, columns)),
        "forget": interval(evidence.estimate(forget, columns)),
        "retain": interval(evidence.estimate(retain, columns)),
        "s_delta_base": interval(evidence.estimate(s, columns, beside)),
        "forget_delta_base": interval(evidence.estimate(forget, columns, beside)),
        "retain_delta_base": interval(evidence.estimate(retain, columns, beside)),
        "remaining": remaining,
        "note": note,
        "planned": len(planned),
        "finished": len(columns),
        "cells": sorted(evidence.checkpoints[k].cell for k in planned),
    }


def _unmeasured(evidence: Evidence, planned: Sequence[int]) -> str:
    """Say why nothing is known of a row under a stress, empty where all of it is."""
    if not planned:
        return "not applicable: it changes no weights"
    found = [evidence.checkpoints[k] for k in planned]
    failed = [checkpoint.failure or "no cause was recorded" for checkpoint in found if checkpoint.status == "failed"]
    if failed:
        return f"failed: {failed[0]}"
    return "not run yet" if any(checkpoint.status == "pending" for checkpoint in found) else ""


def _remaining(
    evidence: Evidence, track: str, group: Group, base: Group, columns: Sequence[int], beside: Sequence[int]
) -> tuple[Interval | None, str]:
    """Return the share of the forgetting that is left, or None and why.

    With several seeds each gives R + (a - R b) / mean b, with a and b its forgetting after and before and R the ratio
    of their means: the mean over seeds is R, and how seeds differ is what makes a ratio of means uncertain.
    """
    task = evidence.spec.tracks[track].forget_task
    chance, metric = evidence.spec.tasks[task].chance, evidence.metric(task)
    parent = {evidence.checkpoints[k].seed: k for k in group.columns}
    pairs = [(parent[seed], k) for k in columns if (seed := evidence.checkpoints[k].seed) in parent]
    if not pairs or not beside:
        return None, "base or the row lacks a score before or after it"
    before = evidence.estimate(metric, base.columns, [k for k, _ in pairs])
    if before is None or before.low is None or before.low <= 0:
        return None, "the forgetting before it is not separable from zero"
    itself = evidence.estimate(metric, beside)
    if itself is None or itself.low is None or itself.low <= chance:
        return None, "base itself is at chance after it: nothing is left to tell them apart"
    means = evidence.part((task,))
    was = means[:, list(base.columns)].mean(axis=1, keepdims=True) - means[:, [k for k, _ in pairs]]
    left = means[:, list(beside)].mean(axis=1, keepdims=True) - means[:, [k for _, k in pairs]]
    mean = was.mean(axis=1, keepdims=True)
    mean[mean == 0] = np.nan
    ratio = left.mean(axis=1, keepdims=True) / mean
    draws = ratio + (left - ratio * was) / mean
    found = estimate(draws, confidence=evidence.spec.confidence, freedom=evidence.freedom(metric))
    return interval(found), ""
