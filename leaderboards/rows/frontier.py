"""Methods at equal utility: the frontier that a sweep of settings draws, and what each method forgets on it.

A point is a checkpoint's (Ubar, Rbar), neither cut to [0, 1]. A method's frontier is the upper hull of its swept
checkpoints and base, which every method reaches by doing nothing. Between two checkpoints lies what comes of answering
each request with either of them at random (the hull of Provost and Fawcett 2001), so every point of it can be had:

    F(u) = max over mixtures of two points of their forgetting, where their utility is at least u
    u    = Rbar of base, less the board's margin of the retain metric

Which checkpoints stand on the frontier at u is decided on the data; each resample then moves them, base and u together
(the board's joint draws). An interval is thus that of the chosen settings: choosing the best of many on the items that
are shown flatters a method, the more settings the more. With several training seeds it is a frontier for each seed that
all of the method's settings have, then their mean, with the seeds' noise as on the rest of the board.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from ..schema import Frontier, Gain, Swept
from ..spec import BoardSpec
from ..stats.intervals import SEEDS_FOR_METHOD, SeedMean, contrast, estimate
from ..stats.metrics import Floats
from ..stats.simultaneous import family
from .components import interval
from .groups import Group, base_of
from .resampling import Resamples

SWEEP = 3
"""Settings from which a method counts as swept."""


@dataclass(frozen=True)
class Sweep:
    """Forgetting and utility of some variants by seed, in the data and in each resample [B + 1, k, n]."""

    method: str
    variants: tuple[str, ...]
    points: tuple[Floats, Floats]

    @property
    def seeds(self) -> int:
        """How many seeds all of the variants have."""
        return self.points[0].shape[1]


def forgetting_at(forget: Floats, retain: Floats, level: Floats) -> Floats:
    """Return F(u) of the module's head.

    Args:
        forget, retain: of the points [B, n].
        level: u [B].

    Returns:
        The highest forgetting of a mixture with at least that utility [B]; NaN where no point has it.
    """
    keeps = retain >= level[:, None]
    best = np.where(keeps, forget, -np.inf).max(axis=1)
    for i, j in combinations(range(forget.shape[1]), 2):
        crosses = keeps[:, i] != keeps[:, j]
        gap = np.where(crosses, retain[:, i] - retain[:, j], 1.0)
        share = (level - retain[:, j]) / gap
        mixed = share * forget[:, i] + (1 - share) * forget[:, j]
        best = np.fmax(best, np.where(crosses, mixed, -np.inf))
    return np.where(np.isfinite(best), best, np.nan)


def chosen_at(forget: Floats, retain: Floats, level: float) -> list[int]:
    """Return the one or two points [n] that make F(u)."""
    best, mixture = -np.inf, []
    points = sorted(hull(forget, retain))
    for pair in [*((i,) for i in points), *combinations(points, 2)]:
        value = forgetting_at(forget[None, pair], retain[None, pair], np.array([level]))[0]
        if value > best + 1e-12:
            best, mixture = value, list(pair)
    return mixture


def hull(forget: Floats, retain: Floats) -> list[int]:
    """Return the points [n] on the upper hull, from the highest utility to the most forgotten."""
    on: list[int] = []
    for k in sorted(range(len(forget)), key=lambda k: (-retain[k], -forget[k])):
        if on and forget[k] <= forget[on[-1]]:
            continue
        while len(on) > 1 and _beneath(on[-2], on[-1], k, forget, retain):
            on.pop()
        on.append(k)
    return on


def _beneath(i: int, j: int, k: int, forget: Floats, retain: Floats) -> bool:
    """Tell whether point j lies on or below the line from i to k."""
    return (forget[j] - forget[i]) * (retain[i] - retain[k]) <= (forget[k] - forget[i]) * (retain[i] - retain[j])


def build_frontiers(resamples: Resamples, model: str, groups: Mapping[str, Sequence[Group]]) -> list[Frontier]:
    """Return a frontier for each track on which base and a method with `SWEEP` settings or more are measured.

    Args:
        resamples: of the model.
        model: its name.
        groups: the rows of every track.
    """
    frontiers = []
    for track, rows in groups.items():
        base = base_of(resamples, track, rows)
        by_method: dict[str, list[Group]] = {}
        for group in rows:
            if group.first.kind == "method" and group.ranked:
                by_method.setdefault(group.first.method, []).append(group)
        swept = {name: own for name, own in by_method.items() if len(own) >= SWEEP}
        sweeps = [_sweep(resamples, track, name, own) for name, own in swept.items()]
        sweeps = [sweep for sweep in sweeps if sweep is not None]
        if base is None or not sweeps:
            continue
        noise = _sweep(
            resamples, track, "noise", [_noise_of(group) for own in swept.values() for group in own if group.noise]
        )
        frontiers.append(_frontier(resamples, model, track, base, [*sweeps, *([noise] if noise else [])]))
    return frontiers


def _noise_of(group: Group) -> Group:
    """Return a row's own noise as a row."""
    return replace(group, variant=f"noise({group.variant})", columns=group.noise)


def reading(frontier: Frontier, compared: str = "base") -> str:
    """Return how a frontier's numbers are to be read."""
    return (
        "One setting of a method is one point of the trade-off, and mostly ranks how it was tuned. Swept methods are "
        f"therefore compared where each may lose {frontier['tolerance']:g} of the retain metric against {compared} "
        f"(utility Rbar {frontier['utility']:.3f}), each by the best mixture of two of its checkpoints, or one and "
        f"{compared}: the upper hull of its points. The best of many settings is chosen on the items that are shown, "
        "which flatters, the more settings the more; intervals do not hold that choice."
    )


def _points(resamples: Resamples, track: str, columns: Sequence[int]) -> tuple[Floats, Floats]:
    forget, retain = (resamples.values(part, columns) for part in resamples.unclipped(track))
    return forget, retain


def _sweep(resamples: Resamples, track: str, method: str, groups: Sequence[Group]) -> Sweep | None:
    """Return the points of some variants by the seeds that all of them have; None where there is no such seed."""
    places = [{resamples.checkpoints[k].seed: k for k in group.columns} for group in groups]
    shared = set.intersection(*map(set, places)) if places else set()
    seeds = sorted(shared, key=lambda seed: -1 if seed is None else seed)
    if not seeds:
        return None
    points = [_points(resamples, track, [by_seed[seed] for seed in seeds]) for by_seed in places]
    variants = tuple(group.variant for group in groups)
    forget, retain = (np.stack(part, axis=2) for part in zip(*points, strict=True))
    return Sweep(method, variants, (forget, retain))


def _frontier(resamples: Resamples, model: str, track: str, base: Group, sweeps: Sequence[Sweep]) -> Frontier:
    chance = resamples.spec.tasks[resamples.spec.tracks[track].retain_task].chance
    own = [part[:, 0] for part in _points(resamples, track, base.columns)]
    level = own[1] - resamples.spec.margin / (1 - chance)
    confidence = resamples.spec.confidence
    freedom = min(resamples.freedom(part) for part in resamples.unclipped(track))
    methods: list[Swept] = []
    sides = []
    for sweep in sweeps:
        drawn = [_of_seed(sweep, seed, own, level) for seed in range(sweep.seeds)]
        values = np.stack([draws for draws, _ in drawn], axis=1)
        at = {k for _, chosen in drawn for k in chosen}
        value = interval(estimate(values, confidence=confidence, freedom=freedom))
        if value is None:
            continue
        curve = hull(*(np.append(part[0].mean(axis=0), end[0]) for part, end in zip(sweep.points, own, strict=True)))
        methods.append(
            Swept(
                method=sweep.method,
                settings=len(sweep.variants),
                seeds=sweep.seeds,
                curve=[(*sweep.variants, base.variant)[k] for k in curve],
                at=[sweep.variants[k] for k in sorted(at)],
                forgetting=value,
            )
        )
        sides.append((sweep.method, SeedMean.of(values)))
    pairs = list(combinations(sides, 2))
    gains = family((contrast([(1.0, a), (-1.0, b)]) for (_, a), (_, b) in pairs), confidence, freedom)
    listed = [
        Gain(method=a, other=b, value=gain.value, low=gain.low, high=gain.high)
        for ((a, _), (b, _)), gain in zip(pairs, gains, strict=True)
    ]
    return Frontier(
        model=model,
        track=track,
        tolerance=resamples.spec.margin,
        utility=float(level[0]),
        methods=sorted(methods, key=lambda method: (-method["forgetting"]["value"], method["method"])),
        gains=listed,
        sentence=_sentence(methods, listed, resamples.spec, base.variant),
    )


def _of_seed(sweep: Sweep, seed: int, base: Sequence[Floats], level: Floats) -> tuple[Floats, list[int]]:
    """Return F(u) of a seed in the data and in each resample [B + 1], and the variants behind it."""
    forget, retain = (np.column_stack([part[:, seed], own]) for part, own in zip(sweep.points, base, strict=True))
    last = len(sweep.variants)
    chosen = chosen_at(forget[0], retain[0], float(level[0]))
    points = sorted({*chosen, last})
    return forgetting_at(forget[:, points], retain[:, points], level), [k for k in chosen if k < last]


def _sentence(methods: Sequence[Swept], gains: Sequence[Gain], spec: BoardSpec, compared: str) -> str:
    swept = [method for method in methods if method["method"] != "noise"]
    wins = [
        (gain["method"], gain["other"], gain) if gain["value"] > 0 else (gain["other"], gain["method"], gain)
        for gain in gains
        if gain["low"] is not None and gain["high"] is not None and not gain["low"] <= 0 <= gain["high"]
    ]
    few = min((method["seeds"] for method in swept), default=0) < SEEDS_FOR_METHOD
    lead = "Of these checkpoints, not replicated: where" if few else "Where"
    lead += f" each may lose {spec.margin:g} of the retain metric against {compared}, "
    sure = f"at {spec.confidence:.0%} confidence for all comparisons together"
    if not wins:
        who = f"`{swept[0]['method']}` is not" if len(swept) == 1 else "no swept method is"
        others = [*(["another"] if len(swept) > 1 else []), *(["noise"] if len(methods) > len(swept) else [])]
        return f"{lead}{who} shown to forget more than {' or '.join(others)}, {sure}." if others else ""
    parts = []
    for winner, _, _ in wins:
        beaten = [other for first, other, _ in wins if first == winner]
        text = f"`{winner}` forgets more than {', '.join(f'`{name}`' if name != 'noise' else name for name in beaten)}"
        if text not in parts:
            parts.append(text)
    return f"{lead}{'; '.join(parts)}, {sure}."
