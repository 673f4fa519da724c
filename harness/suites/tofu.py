"""The suites `tofu01`, `tofu05` and `tofu10`: TOFU's three splits, 1, 5 and 10 % of its authors to forget."""

from __future__ import annotations

from pathlib import Path

from ..suite import suites

HERE = Path(__file__)


@suites.register("tofu10")
def tofu10() -> Path:
    """Return the suite's file."""
    return HERE.with_name("tofu10.yaml")


@suites.register("tofu05")
def tofu05() -> Path:
    """Return the suite's file."""
    return HERE.with_name("tofu05.yaml")


@suites.register("tofu01")
def tofu01() -> Path:
    """Return the suite's file."""
    return HERE.with_name("tofu01.yaml")
