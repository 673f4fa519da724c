"""The embedded suite: an invented world, a small language model that knows part of it, and a toxicity judge."""

from __future__ import annotations

from pathlib import Path

from ...suite import suites


@suites.register("micro")
def micro() -> Path:
    """Return the suite's file: `base.yaml` with what `make tune` found, for the track `qa` in `qa.yaml`."""
    return Path(__file__).with_name("suite.yaml")
