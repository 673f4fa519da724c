"""Load: what commands import before they work, and what they take on a suite of 4,000 cells.

Processor time is held to three times what is promised (5 s for a dry run, 20 s for a board): on a machine with other
work it grows too. So does what the libraries take of memory from machine to machine: a dry run is held to what the
cells add to it.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from bench_load import cost
from simulated import Simulated

HEAVY = ("torch", "transformers", "datasets", "pandas", "sklearn", "vllm", "ray", "lm_eval", "matplotlib", "scipy")
LISTS = (["--help"], ["evaluate", "--help"], *(["list", what] for what in ("suites", "models", "tasks", "scorers")))
PROBE = """
import contextlib, io, json, sys
from unlearn_bench.harness.cli import main
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()):
        main(arguments, standalone_mode=False)
print(json.dumps([name for name in json.loads(sys.argv[2]) if name in sys.modules]))
"""


def imported(*commands: list[str]) -> set[str]:
    """Return which heavy packages the commands imported, one after the other in one process."""
    line = [sys.executable, "-c", PROBE, json.dumps(commands), json.dumps(HEAVY)]
    return set(json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A finished store of a few simulated cells."""
    folder = tmp_path_factory.mktemp("few")
    return str(Simulated.planned(folder, 2, 1, 8).finish(folder / "store").root)


def test_help_and_lists_import_nothing_heavy():
    assert imported(*LISTS) == set()


def test_stores_are_looked_at_without_a_model_library(store):
    assert imported(["gc", "--output", store], ["merge", store, "--output", f"{store}-2"]) == set()
    looks = (["leaderboard"], ["compare", "knowledge/v000#0", "knowledge/v001#0"], ["verify"], ["show", "base"])
    assert imported(*([*look, "--output", store] for look in looks[:3])) <= {"scipy"}
    assert imported([*looks[3], "--output", store]) <= {"torch"}


def test_a_dry_run_imports_of_the_heavy_only_what_methods_are_written_in(tmp_path, store):
    """But for trainings that are still to be done: they are tried on a model without weights."""
    nothing = ["evaluate", "--suite", "micro", "--methods", "none", "--dry-run", "--output", str(tmp_path)]
    assert imported(nothing, ["list", "methods"], ["list", "engines"]) == {"torch"}


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """4,001 simulated cells: 100 variants, ten seeds, two tracks, noise of each, the base; 60 items a task."""
    return Simulated.planned(tmp_path_factory.mktemp("many"), 100, 10, 60)


@pytest.mark.slow
def test_a_dry_run_of_4000_cells_is_short(many, tmp_path):
    few = Simulated.planned(tmp_path, 2, 1, 8)
    least = cost("evaluate", *few.arguments, "--dry-run", "--output", tmp_path / "empty")
    took = cost("evaluate", *many.arguments, "--dry-run", "--output", tmp_path / "empty")
    assert "4001 cells on suite many: 0 finished, 4001 remain." in took.printed
    assert took.seconds < 15, took
    assert took.memory - least.memory < 100e6, (took, least)


@pytest.mark.slow
def test_a_board_of_4000_cells_is_soon_there(many, tmp_path):
    root = tmp_path / "full"
    many.finish(root)
    planned = cost("evaluate", *many.arguments, "--dry-run", "--output", root)
    assert "4001 cells on suite many: 4001 finished, 0 remain." in planned.printed
    assert planned.seconds < 15
    assert planned.memory < 500e6
    board = cost("leaderboard", "--output", root)
    assert board.status == 0, board.printed[-2000:]
    assert board.printed.count("| v0") >= 200
    assert board.seconds < 60
    assert board.memory < 7e9
    swept = cost("gc", "--output", root)
    assert "0 things" in swept.printed
    assert swept.seconds < 15
    assert swept.memory < 200e6
