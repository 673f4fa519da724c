"""Worlds whose truth is known: laws of items, of clusters and of training seeds, and boards made from them.

Items (each checkpoint's accuracy is p; what makes an item hard is shared by all checkpoints, and half of the luck):

    iid     every item a cluster of its own: a right answer has the probability Phi(mu + z), z normal
    known   clusters are known (97 %) or guessed (25 %); sizes geometric, mean 4, at most 30
    probit  Phi(mu + z - 0.4 (log size - mean)), z the cluster's: larger clusters are harder; strata of 60, 30 and 10 %

Seeds move the accuracies of a checkpoint: not at all, normally (sd 0.03), skewed (exponential, downwards, sd 0.05,
forget and retain together), or by collapses (15 % of seeds fall to 0.26 in forget and lose 0.25 of retain). Whatever
the law, the means of retain and of S over seeds are those that were asked for: forget accuracies are shifted for that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats
from unlearn_bench.leaderboards.spec import BoardSpec, Checkpoint, TaskInfo, TrackRoles
from unlearn_bench.leaderboards.stats.arrays import Answers
from unlearn_bench.leaderboards.stats.metrics import s_unlearning

CHANCE = 0.25
SPREAD = 1.0
HARDER = 0.4
SIZES = np.arange(1, 31)
LUCK = 0.5
"""Share of an item's luck that is the item's, not the checkpoint's."""
LAWS = ("iid", "known", "probit")
SEED_LAWS = ("none", "normal", "skew", "collapse")


def _size_law() -> np.ndarray:
    weights = 0.25 * 0.75 ** (SIZES - 1.0)
    return weights / weights.sum()


def _hardness(sizes: np.ndarray) -> np.ndarray:
    """Return how much harder items of clusters of some sizes are; its mean over items is 0."""
    weights = _size_law() * SIZES
    return HARDER * (np.log(sizes) - (np.log(SIZES) * weights).sum() / weights.sum())


@lru_cache(maxsize=1)
def _probit_centres() -> tuple[np.ndarray, np.ndarray]:
    """Return mu and the accuracy over items that it gives."""
    centres = np.linspace(-5, 6, 2201)
    weights = _size_law() * SIZES / (_size_law() * SIZES).sum()
    shifted = (centres[:, None] - _hardness(SIZES)) / np.sqrt(1 + SPREAD**2)
    return centres, (stats.norm.cdf(shifted) * weights).sum(axis=1)


class Items:
    """The items of a task: about n of them in clusters and strata, as hard for every checkpoint."""

    def __init__(self, law: str, n: int, rng: np.random.Generator, name: str) -> None:
        self.law, self.rng = law, rng
        sizes = np.ones(n, dtype=int)
        if law != "iid":
            sizes = rng.choice(SIZES, n, p=_size_law())
            sizes = sizes[: int(np.searchsorted(sizes.cumsum(), n)) + 1]
        self.sizes = np.repeat(sizes, sizes)
        self.cluster = np.repeat(np.arange(len(sizes)), sizes)
        self.latent = rng.normal(size=len(sizes))[self.cluster]
        strata = rng.choice(3, len(sizes), p=(0.6, 0.3, 0.1)) if law == "probit" else np.zeros(len(sizes), int)
        self.luck = rng.random(len(self.cluster))
        self.ids = tuple(f"{name}{i:05}" for i in range(len(self.cluster)))
        self.places = tuple((f"s{strata[c]}", f"c{c:05}") for c in self.cluster.tolist())

    def chances(self, p: float) -> np.ndarray:
        """Return the probability of a right answer to each item [I] for a checkpoint of accuracy p."""
        if self.law == "known":
            known = stats.norm.cdf(self.latent) < (p - CHANCE) / (0.97 - CHANCE)
            return np.where(known, 0.97, CHANCE)
        if self.law == "iid":
            return stats.norm.cdf(np.sqrt(1 + SPREAD**2) * stats.norm.ppf(p) + SPREAD * self.latent)
        centres, accuracies = _probit_centres()
        return stats.norm.cdf(np.interp(p, accuracies, centres) + SPREAD * self.latent - _hardness(self.sizes))

    def answers(self, p: float) -> Answers:
        """Return the answers of a checkpoint of accuracy p."""
        shared = self.rng.random(len(self.luck)) < LUCK
        luck = np.where(shared, self.luck, self.rng.random(len(self.luck)))
        return Answers(self.ids, self.places, {"acc": (luck < self.chances(p)).astype(float)}, {})


@dataclass(frozen=True)
class Truth:
    """What a row truly is: mean accuracies over seeds, and how seeds move them."""

    forget: float
    retain: float
    seeds: str = "none"

    def drawn(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return the accuracies (forget, retain) of some seeds [count, 2]; the mean of S over all is S of the means."""
        drawn = self._moved(count, rng)
        drawn[:, 0] += _correction(self)
        return np.clip(drawn, 0.01, 0.99)

    def _moved(self, count: int, rng: np.random.Generator) -> np.ndarray:
        centre = np.tile((self.forget, self.retain), (count, 1))
        if self.seeds == "normal":
            return centre + rng.normal(0, 0.03, (count, 2))
        if self.seeds == "skew":
            together, own = rng.exponential(size=(count, 1)), rng.exponential(size=(count, 2))
            return centre - 0.05 * (np.sqrt(0.9) * (together - 1) + np.sqrt(0.1) * (own - 1))
        if self.seeds == "collapse":
            fell = rng.random((count, 1)) < 0.15
            return np.where(fell, (0.26, self.retain - 0.85 * 0.25), centre + np.array((0.0, 0.15 * 0.25)))
        return centre

    @property
    def s(self) -> float:
        """S of the mean accuracies, which is the mean of S over seeds."""
        return float(_s(np.array([[self.forget, self.retain]]))[0])


def _s(accuracies: np.ndarray) -> np.ndarray:
    return s_unlearning(accuracies[:, 0], accuracies[:, 1], forget_chance=CHANCE, retain_chance=CHANCE)


@lru_cache(maxsize=64)
def _correction(truth: Truth) -> float:
    """Return the shift of forget accuracies that makes the mean of S over seeds S of the means."""
    moved = truth._moved(200_000, np.random.default_rng(0))
    low, high = -0.2, 0.2
    for _ in range(40):
        middle = (low + high) / 2
        mean = _s(np.clip(moved + np.array((middle, 0.0)), 0.01, 0.99)).mean()
        low, high = (middle, high) if mean > truth.s else (low, middle)
    return (low + high) / 2


def board_spec(resamples: int, margin: float, seed: int) -> BoardSpec:
    """Return the spec of a board of one track of questions."""
    tasks = {name: TaskInfo(name, "acc", CHANCE, "higher", 1) for name in ("f", "r")}
    tracks = {"t": TrackRoles("f", "r")}
    return BoardSpec("worlds", 1, "", tracks, tasks, resamples=resamples, seed=seed, margin=margin)


def checkpoints(
    base: Truth, rows: Mapping[str, Truth], seeds: int, law: str, n: int, rng: np.random.Generator
) -> Iterator[Checkpoint]:
    """Give base and, of each row, so many seeds, each with noise of its own that is as good as base."""
    items = {task: Items(law, n, rng, task) for task in ("f", "r")}

    def asked(own: Sequence[float]) -> dict[str, Answers]:
        return {task: items[task].answers(p) for task, p in zip(items, own, strict=True)}

    untouched = (base.forget, base.retain)
    yield Checkpoint("m", None, "base", "base", "base", None, "base", records=asked(untouched))
    for name, truth in rows.items():
        for seed, own in enumerate(truth.drawn(seeds, rng).tolist()):
            cell, noise = f"{name}-{seed}", asked(untouched)
            yield Checkpoint("m", "t", name, name, "method", seed, cell, records=asked(own))
            yield Checkpoint(
                "m", "t", "noise", f"noise({name})", "noise", seed, f"{cell}-n", records=noise, beside="noise", of=cell
            )
