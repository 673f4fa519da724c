"""The engine room: specs, plan, runner, store, training loop, engines, command line.

Floors, lowest first; a file imports its own folder and floors below (tests/test_arrows.py):

    errors records runtime rng · specs registry · suite · data store · models · engines training · transforms ·
    planning · jobs results · executors · runner authoring · api maintenance · tuning · commands · cli
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import Result, evaluate, load_records
    from .planning.request import Request

__all__ = ["Request", "Result", "evaluate", "load_records"]

MOVED = {f"{__name__}.deltas": f"{__name__}.store.delta", f"{__name__}.plan": f"{__name__}.planning.plan"}
"""Modules that people import by the names that they had; these still work, and warn."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import api
    from .planning import request

    return getattr(api if hasattr(api, name) else request, name)


class _Moved(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        home = MOVED[module.__name__]
        warnings.warn(f"{module.__name__} is now {home}; import from there.", DeprecationWarning, stacklevel=2)
        moved = import_module(home)
        module.__dict__["__getattr__"] = lambda name: getattr(moved, name)


sys.meta_path.append(_Moved())
