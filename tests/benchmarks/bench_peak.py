"""The peak memory of a command and of all processes that it starts, shared pages counted once.

    python tests/benchmarks/bench_peak.py unlearn-bench evaluate --methods rmu --limit 24 --output build/peak

Twice a second the proportional set sizes of the process tree are added up (Linux); the largest sum is printed with what
each process held then.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

EVERY = 0.5
"""Seconds between two looks."""


def sizes(root: psutil.Process) -> dict[str, int]:
    """Return the proportional set size of each process of a tree, in MiB, by its id and name."""
    held = {}
    try:
        tree = [root, *root.children(recursive=True)]
    except psutil.Error:
        return held
    for process in tree:
        try:
            text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            held[f"{process.pid} {process.name()}"] = int(re.findall(r"^Pss:\s+(\d+)", text, re.MULTILINE)[0]) // 1024
        except (OSError, psutil.Error, IndexError):
            continue
    return held


def main(command: Sequence[str]) -> int:
    """Run a command, print the peak, and return its exit status."""
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    root, peak = psutil.Process(running.pid), {}
    while running.poll() is None:
        peak = max(peak, sizes(root), key=lambda held: sum(held.values()))
        time.sleep(EVERY)
    print(f"{sum(peak.values())} MiB at most: " + ", ".join(f"{name} {size}" for name, size in peak.items()))
    return running.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
