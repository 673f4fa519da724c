"""The suites `paper` and `paper-open`: the paper's set-up, and the part of it that needs nobody's permission."""

from __future__ import annotations

from pathlib import Path

from ..suite import suites


@suites.register("paper")
def paper() -> Path:
    """Return the suite's file."""
    return Path(__file__).with_name("paper.yaml")


@suites.register("paper-open")
def paper_open() -> Path:
    """Return the suite's file."""
    return Path(__file__).with_name("paper-open.yaml")
