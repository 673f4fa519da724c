"""What the commands cost on a suite of thousands of cells: processor time and peak memory of each, as a user runs it.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_load.py [VARIANTS] [SEEDS] [LIMIT]

The cells are simulated: 100 variants, ten seeds and two tracks of `micro`, each with its noise (4,001 cells), 100 items
a task.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from simulated import Simulated

RUN = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(status, used.ru_utime + used.ru_stime, used.ru_maxrss)
"""
"""A small process that runs a command: a child's peak memory is never less than what its parent held."""


@dataclass(frozen=True)
class Cost:
    """What a command took: processor time, seconds; peak memory, bytes; its exit status and what it printed."""

    seconds: float
    memory: int
    status: int
    printed: str


def cost(*arguments: object) -> Cost:
    """Run `unlearn-bench` with these arguments and return what it took."""
    command = [str(Path(sys.executable).with_name("unlearn-bench")), *map(str, arguments)]
    done = subprocess.run([sys.executable, "-c", RUN, *command], capture_output=True, text=True, check=True)
    status, seconds, memory = done.stdout.split()
    return Cost(float(seconds), int(memory) * 1024, int(status), done.stderr)


def main(variants: int = 100, seeds: int = 10, limit: int = 100) -> None:
    """Print a row a command."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulated = Simulated.planned(folder, variants, seeds, limit)
        empty, full = folder / "empty", folder / "full"
        commands = {
            "evaluate --dry-run, nothing done": ["evaluate", *simulated.arguments, "--dry-run", "--output", empty],
            "evaluate --dry-run, all done": ["evaluate", *simulated.arguments, "--dry-run", "--output", full],
            "leaderboard": ["leaderboard", "--output", full],
            "compare two cells": ["compare", "knowledge/v003#2", "knowledge/v004#2", "--output", full],
            "gc": ["gc", "--output", full],
        }
        simulated.finish(full)
        print(f"{len(simulated.plan.cells):,} cells x {limit} items a task")
        for what, arguments in commands.items():
            took = cost(*arguments)
            said = "" if took.status == 0 else f" (exit status {took.status})"
            print(f"{what}: {took.seconds:.1f} s of processor time, {took.memory / 1e6:.0f} MB{said}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
