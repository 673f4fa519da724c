"""The suites `paper`, `paper-open` and `paper-stress`: the paper's set-up, its open part, and text to relearn."""

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


@suites.register("paper-stress")
def paper_stress() -> Path:
    """Return the suite's file."""
    return Path(__file__).with_name("paper-stress.yaml")
