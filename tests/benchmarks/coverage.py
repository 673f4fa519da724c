"""How often the intervals and claims of a board are right, in worlds whose truth is known.

    python tests/benchmarks/coverage.py [--worlds 700] [--part intervals|tables] [--law LAW] [--items N]

A world draws clusters of items (beta-binomial: the probability of a right answer is a Beta quantile at the cluster's
easiness, which all checkpoints share; half of an item's luck is shared too) and training seeds, which move the
accuracy of a checkpoint. It then asks the board's own functions. `worlds` has further laws of items and seeds.
A checkpoint's truth is S at its own accuracies, a method's the mean of S over seeds.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats
from tabulate import tabulate
from unlearn_bench.leaderboards.rows.build import claims_of
from unlearn_bench.leaderboards.rows.components import difference, from_noise
from unlearn_bench.leaderboards.rows.groups import Group, groups_of
from unlearn_bench.leaderboards.rows.guard import limits
from unlearn_bench.leaderboards.rows.resampling import Resamples, Statistic
from unlearn_bench.leaderboards.rows.verdicts import above_zero
from unlearn_bench.leaderboards.spec import BoardSpec, Checkpoint, TaskInfo, TrackRoles
from unlearn_bench.leaderboards.stats.arrays import ScoreMatrix
from unlearn_bench.leaderboards.stats.intervals import estimate
from unlearn_bench.leaderboards.stats.metrics import forget_part, retain_part
from worlds import LAWS, SEED_LAWS, Truth, board_spec, checkpoints

CONCENTRATION = 4.0
"""Of the Beta distribution of a cluster's probability: its variance is p (1 - p) / 5."""
LUCK = 0.5
"""Share of an item's luck that is the item's, not the checkpoint's."""
ANSWERS = 5
"""Continuations of a prompt, whose share is the score where the forget metric is a rate."""
GRID = (np.arange(4000) + 0.5) / 4000
SEEDS = (1, 3, 5)
CLUSTERS = (1, 5)
ITEMS = (100, 300, 1000)
ROWS = 11
MARGINS = (0.02, 0.05)


@dataclass(frozen=True)
class Profile:
    """The accuracies of a method: forget and retain, the chance level of forget, and how far seeds move them."""

    name: str
    forget: float
    retain: float
    chance: float = 0.25

    @property
    def task(self) -> str:
        """The forget task: of questions, or of continuations where the metric is a rate."""
        return "u" if self.chance == 0 else "f"

    def moved(self, p: float, sd: float) -> np.ndarray:
        """Return the accuracies that seeds may have: mean p, equally probable."""
        shift = stats.norm.ppf(GRID[::8] + GRID[0] * 7) * min(sd, p / 4, (1 - p) / 4)
        return p + shift - shift.mean()

    def s(self, forget: np.ndarray | float, retain: np.ndarray | float) -> np.ndarray:
        """Return S at some accuracies."""
        return forget_part(forget, self.chance) * retain_part(retain, 0.25)


PROFILES = (
    Profile("middle", 0.55, 0.60),
    Profile("forget near chance", 0.29, 0.60),
    Profile("retain near chance", 0.50, 0.32),
    Profile("rate near 0", 0.04, 0.60, 0.0),
    Profile("both near 1", 0.95, 0.97),
)


class World:
    """Some items and checkpoints; `tables` holds the answers of every checkpoint, in the order of `columns`."""

    def __init__(self, n: int, cluster: int, rng: np.random.Generator) -> None:
        self.n, self.cluster, self.rng = n, cluster, rng
        self.items = tuple(f"{i:05}" for i in range(n))
        self.easy = {task: np.repeat(rng.integers(len(GRID), size=n // cluster), cluster) for task in ("f", "u", "r")}
        self.luck = {task: rng.random((n, ANSWERS)) for task in self.easy}

    def answers(self, task: str, p: float, own: np.ndarray) -> np.ndarray:
        """Return the scores [n, k] of checkpoints whose accuracy is `own` [k], around p."""
        base = _quantiles(p)[self.easy[task]][:, None]
        chance = np.where(own <= p, base * (own / p), 1 - (1 - base) * (1 - own) / (1 - p))
        draws = ANSWERS if task == "u" else 1
        shape = (self.n, len(own), draws)
        shared = self.rng.random(shape, dtype=np.float32) < LUCK
        luck = np.where(shared, self.luck[task][:, None, :draws], self.rng.random(shape, dtype=np.float32))
        return (luck < chance[:, :, None]).mean(axis=2)

    def table(self, values: np.ndarray) -> ScoreMatrix:
        """Return scores as a board's table, in one stratum."""
        starts = np.arange(0, self.n, self.cluster)
        return ScoreMatrix(self.items, values, starts, np.zeros_like(starts), ("all",))


_KNOWN: dict[float, np.ndarray] = {}


def _quantiles(p: float) -> np.ndarray:
    if p not in _KNOWN:
        _KNOWN[p] = stats.beta.ppf(GRID, p * CONCENTRATION, (1 - p) * CONCENTRATION)
        _KNOWN[p] *= p / _KNOWN[p].mean()
    return _KNOWN[p]


def evidence_of(tables: Mapping[str, ScoreMatrix], resamples: int, seed: int) -> Resamples:
    """Return the board's evidence; the tracks `f` and `u` ask the forget tasks of those names and the same retain."""
    chances = {"f": 0.25, "u": 0.0, "r": 0.25}
    tasks = {name: TaskInfo(name, "acc", chances[name], "higher", 1) for name in tables}
    tracks = {name: TrackRoles(name, "r") for name in tables if name != "r"}
    columns = tables["r"].values.shape[1]
    cells = [Checkpoint("m", None, "x", str(k), "method", k, str(k)) for k in range(columns)]
    spec = BoardSpec("coverage", 1, "", tracks, tasks, resamples=resamples, seed=seed)
    return Resamples.of_tables(spec, cells, tables)


def intervals(n: int, cluster: int, worlds: int, resamples: int, start: int) -> Iterator[tuple[tuple, bool]]:
    """Yield (setting, whether its interval holds the truth) for checkpoints and methods of all profiles."""
    kinds = [(profile, sd) for profile in PROFILES for sd in (0.0, 0.03)]
    for world_seed in range(worlds):
        rng = np.random.default_rng([start, n, cluster, world_seed])
        world = World(n, cluster, rng)
        truths, values = [], {"f": [], "u": [], "r": []}
        for profile, sd in kinds:
            possible = [profile.moved(p, sd) for p in (profile.forget, profile.retain)]
            own = [rng.choice(each, max(SEEDS)) for each in possible]
            mean = float(np.mean(profile.s(possible[0], 1.0)) * np.mean(retain_part(possible[1], 0.25)))
            truths.append((mean, float(profile.s(own[0][0], own[1][0]))))
            forget = profile.task
            values[forget].append(world.answers(forget, profile.forget, own[0]))
            values["uf".replace(forget, "")].append(np.zeros((n, max(SEEDS))))
            values["r"].append(world.answers("r", profile.retain, own[1]))
        tables = {task: world.table(np.concatenate(found, axis=1)) for task, found in values.items()}
        evidence = evidence_of(tables, resamples, world_seed)
        for place, ((profile, sd), truth) in enumerate(zip(kinds, truths, strict=True)):
            quantity = evidence.s(profile.task)
            freedom = evidence.freedom(quantity)
            for seeds in SEEDS:
                columns = range(place * max(SEEDS), place * max(SEEDS) + seeds)
                draws = evidence.values(quantity, columns)
                for kind in ("percentile", "bca"):
                    bend = evidence.acceleration(quantity, columns) if kind == "bca" else None
                    found = estimate(draws, confidence=0.95, bounds=(0, 1), acceleration=bend, freedom=freedom)
                    assert found is not None
                    aim = truth[seeds == 1]
                    covered = found.low is not None and found.high is not None and found.low <= aim <= found.high
                    yield (profile.name, n, cluster, seeds, sd, kind), covered


def tables(n: int, law: str, worlds: int, resamples: int, start: int) -> Iterator[tuple[tuple, bool]]:
    """Yield (setting, whether it happens) for boards of rows that are all exactly as good as base, by law of seeds.

    `alone`: a row lies above base by its own interval; `claim`: by the one that holds for the table; `named`: it also
    lies above its noise and keeps utility, so that from three seeds on it is a false winner (one seed: what reading
    its checkpoint as the method would be). `S`: the interval of S holds the method's S, row by row. `kept at m`: a row
    whose retain metric truly lies m below base is found to keep it; `equal at m`: one that equals base is.
    """
    for seed_law in SEED_LAWS:
        base = Truth(0.62, 0.65)
        rows = {f"m{i:02}": Truth(base.forget, base.retain, seed_law) for i in range(ROWS)}
        worse = {f"w{margin}": Truth(base.forget, base.retain - margin, seed_law) for margin in MARGINS}
        for world in range(worlds):
            rng = np.random.default_rng([start, n, LAWS.index(law), SEED_LAWS.index(seed_law), world])
            given = list(checkpoints(base, rows | worse, max(SEEDS), law, n, rng))
            evidence = Resamples(board_spec(resamples, max(MARGINS), world), given)
            groups = {group.variant: group for group in groups_of(evidence, "t")}
            for seeds in SEEDS:
                for event, happens in _events(evidence, groups, list(rows), seeds, base.s):
                    yield (law, n, seed_law, seeds, event), happens


def _events(
    evidence: Resamples, groups: Mapping[str, Group], names: Sequence[str], seeds: int, truth: float
) -> Iterator[tuple[str, bool]]:
    few = {name: replace(row, columns=row.columns[:seeds], noise=row.noise[:seeds]) for name, row in groups.items()}
    base, rows = few["base"], [few[name] for name in names]
    s, retain = evidence.s("t"), evidence.metric("r")
    claims = claims_of(evidence, "t", rows, base)
    alone = [above_zero(difference(evidence, s, row, base)) for row in rows]
    claim = [above_zero(claims[row.variant]["base"]) for row in rows]
    kept = {row.variant: _lost(evidence, retain, row, base) for row in few.values() if row is not base}
    yield "alone", any(alone)
    yield "claim", any(a and c for a, c in zip(alone, claim, strict=True))
    yield (
        "named",
        any(
            alone[i]
            and claim[i]
            and kept[row.variant] < max(MARGINS)
            and above_zero(from_noise(evidence, s, row))
            and above_zero(claims[row.variant]["noise"])
            for i, row in enumerate(rows)
        ),
    )
    for row in rows:
        own = evidence.estimate(s, row.columns)
        yield "S", own is not None and own.low is not None and own.high is not None and own.low <= truth <= own.high
    for margin in MARGINS:
        yield f"kept at {margin}", kept[f"w{margin}"] < margin
        yield f"equal at {margin}", kept[names[0]] < margin


def _lost(evidence: Resamples, retain: Statistic, row: Group, base: Group) -> float:
    """Return how much of the retain metric a row may have lost."""
    gap = limits(evidence, retain, row, base)
    return math.inf if gap is None else -gap.low


def rates(
    part: Callable[..., Iterator[tuple[tuple, bool]]],
    worlds: int,
    *,
    items: Sequence[int] = ITEMS,
    kinds: Sequence[Any] = CLUSTERS,
    resamples: int = 1000,
    start: int = 0,
) -> dict[tuple, float]:
    """Return the share of worlds in which something holds, by setting; `kinds` are cluster sizes or laws."""
    happened: dict[tuple, list[bool]] = {}
    for n in items:
        for kind in kinds:
            for key, value in part(n, kind, worlds, resamples, start):
                happened.setdefault(key, []).append(value)
    return {key: float(np.mean(values)) for key, values in happened.items()}


def pivot(found: Mapping[tuple, float], headers: Sequence[str], digits: int = 1) -> str:
    """Return rates in per cent as markdown: the last part of a key goes across, the others down."""
    across = list(dict.fromkeys(key[-1] for key in found))
    down = list(dict.fromkeys(key[:-1] for key in found))
    body = [[*map(str, key), *(f"{100 * found[(*key, name)]:.{digits}f}" for name in across)] for key in down]
    return tabulate(body, [*headers, *across], tablefmt="pipe", disable_numparse=True)


def main(arguments: Sequence[str]) -> None:
    """Print the tables of docs/statistics.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=700)
    parser.add_argument("--part", choices=("intervals", "tables"), default="intervals")
    parser.add_argument("--law", choices=LAWS, action="append")
    parser.add_argument("--items", type=int, action="append")
    parser.add_argument("--resamples", type=int, default=1000)
    asked = parser.parse_args(arguments)
    given = {"items": asked.items or ITEMS, "resamples": asked.resamples}
    if asked.part == "intervals":
        found = rates(intervals, asked.worlds, **given)
        print(pivot(found, ("accuracies", "n", "cluster", "seeds", "seed sd")))
    else:
        found = rates(tables, asked.worlds, kinds=asked.law or LAWS, **given)
        print(pivot(found, ("items", "n", "seed law", "seeds")))


if __name__ == "__main__":
    main(sys.argv[1:])
