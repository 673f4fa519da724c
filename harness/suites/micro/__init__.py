"""The embedded suite: an invented world, a small language model that knows part of it, and a toxicity judge."""

from __future__ import annotations

from pathlib import Path

from ...suite import suites


@suites.register("micro")
def micro() -> Path:
    """Return the suite's file: `base.yaml` with the settings that `make tune` found."""
    return Path(__file__).with_name("suite.yaml")
