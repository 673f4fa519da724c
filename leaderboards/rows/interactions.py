"""Does the best method depend on the goal? Methods by tracks, and how far their differences change between two tracks.

For methods a, b and tracks t, u the interaction is

    (S_a,t - S_b,t) - (S_a,u - S_b,u)

with intervals that hold for all pairs of methods and tracks together (max-t, training seeds as in `intervals`). A
method may be the best of a track where no other stands above it, by pairwise intervals that hold for all tracks
together. The best differs where those sets have no method in common, is the same where they hold one and the same
method, and cannot be told otherwise: an interaction alone says that distances change, not that the order does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal

import numpy as np

from ..schema import Goals, Interaction, Interval
from ..stats.intervals import SEEDS_FOR_METHOD, SeedMean, contrast
from ..stats.metrics import Floats
from ..stats.simultaneous import family, separations
from .components import interval
from .groups import Group
from .resampling import Resamples
from .sentences import names as listed


def build_goals(resamples: Resamples, model: str, groups: Mapping[str, Sequence[Group]]) -> list[Goals]:
    """Return the table of a model; none where fewer than two methods are measured on all of two tracks or more.

    It is a question about methods: it is answered from those with `SEEDS_FOR_METHOD` seeds or more on every track. A
    row whose answers are broken on a track has no place in it.

    Args:
        resamples: of the model.
        model: its name.
        groups: the rows of every track.
    """
    table = {
        track: {group.variant: group for group in rows if group.first.kind == "method" and group.ranked}
        for track, rows in groups.items()
    }
    table = {track: rows for track, rows in table.items() if rows}
    variants = sorted(set.intersection(*(set(rows) for rows in table.values()))) if table else []
    if len(table) < 2 or len(variants) < 2:
        return []
    s: dict[str, dict[str, Interval | None]] = {
        name: {
            track: interval(resamples.estimate(resamples.s(track), rows[name].columns)) for track, rows in table.items()
        }
        for name in variants
    }
    methods = {group.variant for rows in groups.values() for group in rows if group.first.kind == "method"}
    partly = sorted(methods - set(variants))
    omitted = f" Left out, as not measured on every track, or broken: {listed(partly)}." if partly else ""
    judged = [name for name in variants if all(rows[name].replicated for rows in table.values())]
    if len(judged) < 2:
        return [_unjudged(model, list(table), s, omitted)]
    draws = {
        track: [resamples.s_unbounded(track, rows[name].columns) for name in judged] for track, rows in table.items()
    }
    sure = resamples.spec.confidence, min(resamples.freedom(resamples.s(track)) for track in table)
    best = _may_be_best(draws, judged, *sure)
    interactions = _interactions(draws, judged, *sure)
    answer = _answer(list(best.values()))
    return [
        {
            "model": model,
            "tracks": list(table),
            "s": s,
            "interactions": interactions,
            "best": best,
            "differs": _differs(draws, resamples.generator([*table, "best by goal"])),
            "answer": answer,
            "sentence": _sentence(answer, best, interactions, resamples.spec.confidence) + omitted,
        }
    ]


def _unjudged(model: str, tracks: list[str], s: dict[str, dict[str, Interval | None]], omitted: str) -> Goals:
    return {
        "model": model,
        "tracks": tracks,
        "s": s,
        "interactions": [],
        "best": {},
        "differs": None,
        "answer": "cannot tell",
        "sentence": "Not judged: whether the best method depends on the goal is a question about methods, which need "
        f"{SEEDS_FOR_METHOD} training seeds or more each.{omitted}",
    }


def _may_be_best(
    draws: Mapping[str, Sequence[Floats]], names: Sequence[str], confidence: float, freedom: float
) -> dict[str, list[str]]:
    level = 1 - (1 - confidence) / len(draws)
    candidates = {}
    for track, rows in draws.items():
        above = separations(rows, level, freedom)
        candidates[track] = [name for place, name in enumerate(names) if not above[:, place].any()]
    return candidates


def _interactions(
    draws: Mapping[str, Sequence[Floats]], names: Sequence[str], confidence: float, freedom: float
) -> list[Interaction]:
    sides = {track: [SeedMean.of(row) for row in rows] for track, rows in draws.items()}
    keys = [(a, b, t, u) for t, u in combinations(sides, 2) for a, b in combinations(range(len(names)), 2)]
    contrasts = (
        contrast([(1.0, sides[t][a]), (-1.0, sides[t][b]), (-1.0, sides[u][a]), (1.0, sides[u][b])])
        for a, b, t, u in keys
    )
    return [
        {
            "method": names[a],
            "other": names[b],
            "track": t,
            "other_track": u,
            "value": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
        }
        for (a, b, t, u), estimate in zip(keys, family(contrasts, confidence, freedom), strict=True)
    ]


def _differs(draws: Mapping[str, Sequence[Floats]], rng: np.random.Generator) -> float | None:
    """Return the share of resamples, of items and of each row's seeds, in which tracks differ in the best method."""
    firsts = []
    for rows in draws.values():
        means = [row[1:][np.arange(len(row) - 1)[:, None], _seeds(row, rng)].mean(axis=1) for row in rows]
        firsts.append(np.stack(means, axis=1))
    valid = ~np.any([np.isnan(values).any(axis=1) for values in firsts], axis=0)
    if not valid.any():
        return None
    winners = np.stack([values[valid].argmax(axis=1) for values in firsts], axis=1)
    return float((winners != winners[:, :1]).any(axis=1).mean())


def _seeds(row: Floats, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(row.shape[1], size=(len(row) - 1, row.shape[1]))


def _answer(best: Sequence[Sequence[str]]) -> Literal["differs", "same", "cannot tell"]:
    if any(not set(one) & set(other) for one, other in combinations(best, 2)):
        return "differs"
    return "same" if all(len(names) == 1 for names in best) else "cannot tell"


def _sentence(answer: str, best: Mapping[str, Sequence[str]], pairs: Sequence[Interaction], confidence: float) -> str:
    candidates = "; ".join(f"{track}: {listed(names)}" for track, names in best.items())
    sure = f"at {confidence:.0%} confidence for all comparisons together"
    may = f"May be the best of {candidates}."
    lead = {
        "differs": f"The best method differs by goal, {sure}. {may}",
        "same": f"The same method is the best for every goal, {sure}: {candidates}.",
        "cannot tell": f"Whether the best method differs by goal cannot be told {sure}. {may}",
    }[answer]
    apart = [pair for pair in pairs if pair["low"] is not None and pair["high"] is not None]
    apart = [pair for pair in apart if (pair["low"] or 0.0) > 0 or (pair["high"] or 0.0) < 0]
    if not apart:
        return f"{lead} No pair of methods is shown to differ more on one track than on the other."
    most = max(apart, key=lambda pair: abs(pair["value"]))
    return (
        f"{lead} The difference of two methods depends on the goal for {len(apart)} of {len(pairs)} pairs, most for "
        f"`{most['method']}` less `{most['other']}`: {most['value']:+.3f} [{most['low']:.3f}, {most['high']:.3f}] "
        f"higher in S on {most['track']} than on {most['other_track']}."
    )
