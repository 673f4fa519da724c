"""Leaderboards: from records to rows to text. `stats` counts, `rows` builds, `text` writes. Free of torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .board import Board, build_board, load_board
    from .spec import BoardSpec, Checkpoint, Published, TaskInfo, TrackRoles
    from .stats.bootstrap import bootstrap_means, bootstrap_weights
    from .stats.intervals import Estimate, estimate
    from .stats.metrics import forget_part, retain_part, s_unlearning
    from .stats.simultaneous import rank_intervals
    from .text.details import to_details
    from .text.markdown import to_markdown

__all__ = [
    "Board",
    "BoardSpec",
    "Checkpoint",
    "Estimate",
    "Published",
    "TaskInfo",
    "TrackRoles",
    "bootstrap_means",
    "bootstrap_weights",
    "build_board",
    "estimate",
    "forget_part",
    "load_board",
    "rank_intervals",
    "retain_part",
    "s_unlearning",
    "to_details",
    "to_markdown",
]

HOMES = (
    "board",
    "spec",
    "stats.bootstrap",
    "stats.intervals",
    "stats.metrics",
    "stats.simultaneous",
    "text.details",
    "text.markdown",
)
"""Where these names are; each is imported when one is asked for, so that planning imports no more than it needs."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    modules = (import_module(f".{home}", __name__) for home in HOMES)
    return next(getattr(module, name) for module in modules if hasattr(module, name))
