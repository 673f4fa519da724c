"""The engine room: specs, plan, runner, store, training loop, engines, command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import Result, evaluate, load_records
    from .planning.request import Request

__all__ = ["Request", "Result", "evaluate", "load_records"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import api
    from .planning import request

    return getattr(api if hasattr(api, name) else request, name)
