"""Where the settings of a method are looked for, and which of them are tried next: Optuna's TPE sampler."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from ...methods.base import Depth, Range, methods
from ..errors import UserError, suggest
from ..planning.variants import TRAINING, Values
from ..rng import search_seed
from ..specs import digest
from ..suite import SuiteSpec, TrainingSpec

LEARNING_RATE = Range(5e-6, 5e-4)
"""Where every method's learning rate is looked for, unless the suite's `search` says otherwise."""
STARTUP = 4
"""Trials of a search before the sampler learns from results: the defaults, then random points."""
BATCH = 3
"""Trials that are asked for at once after them."""
DIGITS = 3
"""Significant digits of a value that is tried."""
SAMPLER = f"TPE, Optuna {optuna.__version__}"
Space = dict[str, IntDistribution | FloatDistribution]
"""Setting, or `training.KEY`, to where it is looked for."""


def space_of(method: str, suite: SuiteSpec, depth: int, fixed: Values) -> Space:
    """Return what of a method is searched: what it names itself, the learning rate, and what the suite adds or changes.

    Args:
        method: registered name.
        suite: its `search` goes before the method's own ranges.
        depth: decoder layers of the model.
        fixed: what the user set, by method (or `training`) and key; it is not searched.

    Raises:
        UserError: the suite names a setting that the method does not have.
    """
    kind = methods.get(method)
    ranges: dict[str, Range | Depth] = dict(kind.search)
    ranges |= _named(method, suite, kind.Settings.model_fields)
    ranges = {key: where for key, where in ranges.items() if key not in fixed.get(method, {})}
    training = {"learning_rate": LEARNING_RATE, **_named("training", suite, TrainingSpec.model_fields)}
    ranges |= {TRAINING + key: where for key, where in training.items() if key not in fixed.get("training", {})}
    return {key: _distribution(where, depth) for key, where in sorted(ranges.items())}


def _named(name: str, suite: SuiteSpec, known: Mapping[str, Any]) -> dict[str, Range]:
    ranges = suite.search.get(name, {})
    for key in ranges:
        if key not in known:
            raise UserError(f"search.{name} of suite {suite.name}: unknown setting {key!r}.{suggest(key, known)}")
    return {key: Range(where.low, where.high, where.log) for key, where in ranges.items()}


def _distribution(where: Range | Depth, depth: int) -> IntDistribution | FloatDistribution:
    if isinstance(where, Depth):
        low, high = math.ceil(where.low * depth), math.floor(where.high * depth)
        low, high = min(low, depth - 1), min(high, depth - 1)
        return IntDistribution(min(low, high), max(low, high))
    if isinstance(where.low, int) and isinstance(where.high, int):
        return IntDistribution(where.low, where.high, log=where.log)
    return FloatDistribution(where.low, where.high, log=where.log)


def described(space: Space) -> dict[str, dict[str, Any]]:
    """Return a space as plain JSON types: both ends (included), whether in logarithms, whether whole numbers."""
    return {
        key: {"low": d.low, "high": d.high, "log": d.log, "whole": isinstance(d, IntDistribution)}
        for key, d in space.items()
    }


@dataclass(frozen=True)
class Params:
    """Values to try; `trial` is Optuna's, None where the values lie outside of the space."""

    values: dict[str, Any]
    trial: optuna.Trial | None


class Sampler:
    """The search of a method's settings: a pure function of the seed and of what its trials came to.

    The first point are the defaults. What is asked does not depend on how many points are asked for in all, so a longer
    search begins with a shorter one.
    """

    def __init__(self, space: Space, defaults: Mapping[str, Any], *seed: Any) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=search_seed(digest(seed)))
        self.space = space
        self.distributions: dict[str, BaseDistribution] = dict(space)
        self.study = optuna.create_study(direction="maximize", sampler=sampler)
        self.defaults = {key: defaults[key] for key in space}
        self.asked = 0

    def ask(self) -> Params:
        """Return the next point to try."""
        self.asked += 1
        if self.asked == 1:
            if not all(map(_within, self.defaults.values(), self.space.values())):
                return Params(self.defaults, None)
            self.study.enqueue_trial(self.defaults)
            return Params(self.defaults, self.study.ask(self.distributions))
        trial = self.study.ask(self.distributions)
        return Params({key: _rounded(value, self.space[key]) for key, value in trial.params.items()}, trial)

    def tell(self, point: Params, score: float | None, excess: float) -> None:
        """Say what a point came to.

        Args:
            point: as it was asked.
            score: the more the better; None: it failed, which teaches the sampler nothing.
            excess: how far it breaks the bound on broken answers; above 0 it is worse than any that does not.
        """
        if point.trial is None:
            return
        if score is None:
            self.study.tell(point.trial, state=optuna.trial.TrialState.FAIL)
            return
        point.trial.set_constraint("broken", excess)
        self.study.tell(point.trial, score)


def _within(value: Any, where: IntDistribution | FloatDistribution) -> bool:
    kinds = int if isinstance(where, IntDistribution) else int | float
    return isinstance(value, kinds) and where.low <= value <= where.high


def _rounded(value: float, where: IntDistribution | FloatDistribution) -> float:
    if isinstance(where, IntDistribution):
        return value
    return min(max(float(f"{value:.{DIGITS}g}"), where.low), where.high)
