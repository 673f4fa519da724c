"""From records to rows: metrics, bootstrap, ranking, tables. Free of torch; names are loaded when first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .board import Board, build_board, load_board
    from .bootstrap import bootstrap_means, bootstrap_weights
    from .compare import rank_intervals
    from .details import to_details
    from .inputs import BoardSpec, Checkpoint, Published, TaskInfo, TrackRoles
    from .intervals import Estimate, estimate
    from .metrics import forget_part, retain_part, s_unlearning
    from .render import to_markdown

_HOMES = {
    "Board": "board",
    "BoardSpec": "inputs",
    "Checkpoint": "inputs",
    "Estimate": "intervals",
    "Published": "inputs",
    "TaskInfo": "inputs",
    "TrackRoles": "inputs",
    "bootstrap_means": "bootstrap",
    "bootstrap_weights": "bootstrap",
    "build_board": "board",
    "estimate": "intervals",
    "forget_part": "metrics",
    "load_board": "board",
    "rank_intervals": "compare",
    "retain_part": "metrics",
    "s_unlearning": "metrics",
    "to_details": "details",
    "to_markdown": "render",
}
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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
