"""A trial of a study: one choice of settings and what it came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..records import MANY


@dataclass(frozen=True)
class Trial:
    """Settings that were tried, and what came out on validation items.

    Attributes:
        track, method, trial: where it belongs, and its name as a variant of the validation suite.
        settings, training: all that differs from the method's and the suite's defaults.
        status: `ok` or `failed`; a failed trial has no values.
        s_unlearning, forget, retain: the metrics' values.
        broken: share of the answers to the forget task that are none.
        cells: ids in the store; those of an earlier trial where the same settings were tried before.
        failure: why it failed.
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

    @property
    def order(self) -> tuple[bool, bool, float]:
        """Sorts trials, the best first: finished, not broken, high S."""
        return self.s_unlearning is None, self.is_broken, -(self.s_unlearning or 0.0)

    @property
    def is_broken(self) -> bool:
        """Whether too many answers are none for S to mean anything."""
        return (self.broken or 0.0) > MANY
