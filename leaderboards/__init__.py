"""Leaderboards: from records to rows to text. `stats` counts, `rows` builds, `text` writes. Free of torch."""

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
