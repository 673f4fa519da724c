"""The old name of `testing`: it works, and warns."""

from __future__ import annotations

import warnings
from typing import Any

from . import testing


def __getattr__(name: str) -> Any:
    value = getattr(testing, name)
    if not name.startswith("__"):
        message = f"{__name__} is now {testing.__name__}; import {name} from there."
        warnings.warn(message, DeprecationWarning, stacklevel=2)
    return value
