"""A trial of a study: one choice of settings and what it came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..records import MANY
from ..specs import canonical

FINALISTS = 3
"""Trials of each method and track between which further seeds decide."""


@dataclass(frozen=True)
class Trial:
    """Settings that were tried, and what came out on validation items.

    Attributes:
        track, method, trial: where it belongs, and its name as a variant of the validation suite.
        settings, training: all that differs from the method's and the suite's defaults.
        status: `ok` or `failed`; a failed trial has no values.
        s_unlearning, forget, retain: the metrics' values, of a finalist their means over its seeds.
        broken: share of the answers to the forget task that are none, of a finalist the largest of its seeds.
        cells: ids in the store; those of an earlier trial where the same settings were tried before.
        failure: why it failed.
        gain: S less that of base on the same validation items.
        loss: retain of base on them less that of the trial.
        edge: why it stands at the edge of divergence (see `divergence`); None: it does not.
        seeds: S by training seed, where it is a finalist.
    """

    track: str
    method: str
    trial: str
    settings: dict[str, Any]
    training: dict[str, Any]
    status: str
    s_unlearning: float | None = None
    forget: float | None = None
    retain: float | None = None
    broken: float | None = None
    cells: list[str] = field(default_factory=list)
    failure: str | None = None
    gain: float | None = None
    loss: float | None = None
    edge: str | None = None
    seeds: dict[str, float] = field(default_factory=dict)

    @property
    def order(self) -> tuple[bool, bool, bool, float, float]:
        """Sorts trials, the best first: finished, not at the edge of divergence, not broken, high S.

        Among those that are broken, or at the edge, S means nothing: the least broken comes first, of equal ones that
        with the most utility.
        """
        last = self.s_unlearning is None, self.edge is not None, self.is_broken
        if self.is_feasible:
            return *last, 0.0, -(self.s_unlearning or 0.0)
        return *last, self.broken or 0.0, -(self.retain or 0.0)

    @property
    def key(self) -> bytes:
        """Its settings, as bytes that equal ones share."""
        return canonical((self.method, self.settings, self.training))

    @property
    def excess(self) -> float:
        """How far it breaks the bound on broken answers; one at the edge of divergence breaks it wholly."""
        return (1.0 if self.edge else self.broken or 0.0) - MANY

    @property
    def is_feasible(self) -> bool:
        """Whether S says something of it: it finished, speaks, and did not run away."""
        return self.s_unlearning is not None and self.edge is None and not self.is_broken

    @property
    def is_broken(self) -> bool:
        """Whether too many answers are none for S to mean anything."""
        return (self.broken or 0.0) > MANY
