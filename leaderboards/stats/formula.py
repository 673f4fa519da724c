"""Statistics that a suite's composites are made of: one function each, registered by name.

    @statistic("auc", bounds=(0.0, 1.0))
    def auc(forget: Sample, holdout: Sample) -> Floats: ...

    @statistic("harmonic_mean", bounds=(0.0, np.inf), better="higher")
    def harmonic_mean(*parts: Floats) -> Floats: ...

An argument annotated `Sample` is given the values of items with the weights of a resample each; any other is given
numbers, a resample each. Keyword-only arguments are settings. A function knows nothing of checkpoints, clusters or
seeds: the board asks it once for the data and once for all resamples.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, update_wrapper
from typing import Any, Literal, get_type_hints

import numpy as np

from ...harness.registry import Registry
from .metrics import Floats

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Sample:
    """The values of n items and their weights in b resamples.

    Attributes:
        values: [n], none of them missing.
        weights: [b, n], at least 0; all 1 in the data themselves.
    """

    values: Floats
    weights: Floats

    @classmethod
    def of(cls, values: Any) -> Sample:
        """Return the data themselves as a sample: every value once [n]."""
        array = np.asarray(values, dtype=np.float64)
        return cls(array, np.ones((1, len(array))))

    @property
    def total(self) -> Floats:
        """The sum of the weights [b]; NaN where it is 0: the resample holds no item."""
        total = self.weights.sum(axis=1)
        return np.where(total > 0, total, np.nan)

    def mean(self, values: Floats | None = None) -> Floats:
        """Return the weighted mean [b] of its values, or of others of the same items [n]."""
        return self.weights @ (self.values if values is None else values) / self.total

    def up_to(self, points: Floats, *, itself: bool = True) -> Floats:
        """Return the weight of the values at most each point [b, t]; `itself` False: of those below it."""
        order = np.argsort(self.values, kind="stable")
        added = np.zeros((len(self.weights), len(order) + 1))
        np.cumsum(self.weights[:, order], axis=1, out=added[:, 1:])
        return added[:, np.searchsorted(self.values[order], points, side="right" if itself else "left")]


class Formula:
    """A registered statistic: a function with what a board must know of it.

    Attributes:
        bounds: what its values cannot leave; intervals are cut there.
        better: which way a row is better; None: neither.
        p: returns a p of the data, from the same arguments; None: it has none.
        paired: whether resamples of two rows, drawn alike, differ as their values would; boards give differences then.
        arguments: names of what it is computed of, in order; a `*name` takes any number.
        samples: those that are samples of items.
        settings: names of the keyword-only arguments.
        required: names of the arguments that must be given.
    """

    def __init__(
        self,
        function: Callable[..., Floats],
        bounds: tuple[float, float],
        better: Better | None,
        p: Callable[..., float] | None,
        paired: bool,
    ) -> None:
        self.function, self.bounds, self.p, self.paired = function, bounds, p, paired
        self.better: Better | None = better
        update_wrapper(self, function)

    def __call__(self, *arguments: Any, **settings: Any) -> Floats:
        """Return the statistic, a value a resample."""
        return self.function(*arguments, **settings)

    @cached_property
    def _parameters(self) -> dict[str, inspect.Parameter]:
        return dict(inspect.signature(self.function).parameters)

    @cached_property
    def arguments(self) -> tuple[str, ...]:
        """Names of what it is computed of."""
        return tuple(name for name, one in self._parameters.items() if one.kind is not one.KEYWORD_ONLY)

    @cached_property
    def variadic(self) -> bool:
        """Whether it takes any number of one argument."""
        return any(one.kind is one.VAR_POSITIONAL for one in self._parameters.values())

    @cached_property
    def required(self) -> tuple[str, ...]:
        """Names of the arguments without a default."""
        named = (name for name in self.arguments if self._parameters[name].kind is not inspect.Parameter.VAR_POSITIONAL)
        return tuple(name for name in named if self._parameters[name].default is inspect.Parameter.empty)

    @cached_property
    def settings(self) -> tuple[str, ...]:
        """Names of the keyword-only arguments."""
        return tuple(name for name in self._parameters if name not in self.arguments)

    @cached_property
    def samples(self) -> frozenset[str]:
        """Names of the arguments that are samples of items."""
        hints = get_type_hints(self.function)
        return frozenset(name for name in self.arguments if hints.get(name) is Sample)


statistics: Registry[Formula] = Registry("statistic", "unlearn_bench.leaderboards.stats", "unlearn_bench.statistics")


def statistic(
    name: str,
    *,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    better: Better | None = None,
    p: Callable[..., float] | None = None,
    paired: bool = True,
) -> Callable[[Callable[..., Floats]], Formula]:
    """Return a decorator that registers a function as the statistic `name`; see the head of this file."""

    def decorate(function: Callable[..., Floats]) -> Formula:
        return statistics.register(name)(Formula(function, bounds, better, p, paired))

    return decorate
