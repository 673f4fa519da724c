"""When a training ran away: the signs that its log holds, and those of its replicas with other seeds.

Such a trial stands *at the edge of divergence*: another seed, or the next processor, ends elsewhere. It does not win
against one that does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..records import LogRole

RISE = 2.0
"""How many times the largest total of the first tenth of its steps a training's total may come to."""
SHORTEST = 10
"""Steps from which there is a first tenth."""
GAP = 0.5
"""How far S of the seeds of a finalist may lie apart, in parts of their mean."""


def runaway(log: Sequence[Mapping[str, Any]], schema: Mapping[str, LogRole], vocabulary: int) -> str | None:
    """Return in words what of a training's log says that it ran away, None where nothing does.

    A loss below -ln |V| is the likelihood of a text driven below that of guessing every token evenly: ascent without a
    bound. A total that rises to twice what it began with is no longer being minimised. Losses that are not finite end
    a training and need no sign.

    Args:
        log: a row a step; rows without losses (the set-up's) are passed over.
        schema: what the columns are.
        vocabulary: number of tokens |V|.
    """
    bound = -math.log(vocabulary)
    for column in (name for name, role in schema.items() if role == "loss"):
        lowest = min((row[column] for row in log if column in row), default=0.0)
        if lowest < bound:
            return f"the loss {column!r} fell to {lowest:.1f} nats, past -ln |V| = {bound:.1f}: ascent without a bound"
    for column in (name for name, role in schema.items() if role == "total"):
        totals = [row[column] for row in log if column in row]
        if len(totals) >= SHORTEST:
            first, most = max(map(abs, totals[: len(totals) // 10])), max(totals)
            if most > RISE * first:
                return f"the loss {column!r} rose to {most:.3g}, from at most {first:.3g} in its first tenth"
    return None


def replicas_part(values: Mapping[str, float]) -> str | None:
    """Return in words that S of the seeds of a finalist lies too far apart, None where it does not."""
    spread, mean = float(np.ptp(list(values.values()))), float(np.mean(list(values.values())))
    if spread <= GAP * mean:
        return None
    return f"S of its seeds lies between {min(values.values()):.3f} and {max(values.values()):.3f}"
