"""The suite `real`: real prompts, text and questions from --data-root, for any small local model."""

from __future__ import annotations

from pathlib import Path

from ..suite import suites


@suites.register("real")
def real() -> Path:
    """Return the suite's file."""
    return Path(__file__).with_name("real.yaml")
