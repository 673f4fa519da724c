"""Every write may fail, and the process may die in it: the next run ends with the undisturbed board."""

from __future__ import annotations

import random
import signal
from collections import Counter
from pathlib import Path

import pytest
from unlearn_bench.harness.maintenance.verify import verify
from unlearn_bench.harness.store.entries import Store

HOW = ("ENOSPC", "EIO", "KILL")
EVERY = 8
"""The gate strikes every eighth step of writing, with each kind of fault in turn; `make test-full` all with all."""


def strike(warm, tmp_path: Path, at: int, how: str) -> str:
    """Strike one write; what it leaves is sound or named, and a second run finishes it with the undisturbed board.

    Returns:
        How the struck run ended: killed, a message, a failed cell, or as if nothing had been.
    """
    store = tmp_path / f"{how}{at}"
    status = warm.run(store, primitive="any", at=at, how=how)
    if how == "KILL":
        assert status == -signal.SIGKILL, "a write was in progress"
    elif status:
        assert status in (1, 2), f"neither a failed cell nor a message: {warm.said(store)}"
        assert "cannot be written" in warm.said(store)
    if (store / "store.json").is_file():
        assert not verify(Store.open(store)).damaged
    assert warm.run(store) == 0, warm.said(store)
    assert warm.boards(store) == warm.boards(warm.calm)
    found = verify(Store.open(store))
    assert (found.damaged, found.lacking, found.unneeded) == ([], [], 0)
    return {0: "not hurt", 1: "a cell failed", 2: "refused with a message"}.get(status, "killed")


def tell(ended: Counter[str], total: int) -> None:
    """Print what came of faults."""
    causes = ", ".join(f"{count} {cause}" for cause, count in sorted(ended.items()))
    print(f"{ended.total()} faults in {total} steps of writing: {causes}; every board as undisturbed")


def writes(warm, tmp_path: Path) -> int:
    assert warm.run(tmp_path / "counted", count=True) == 0
    (calls,) = warm.calls(tmp_path / "counted")
    assert calls["replace"] == calls["mkstemp"] == calls["fsync"], "all is written by the same few steps"
    assert calls["replace"] > 40
    return calls["any"]


def test_a_full_disk_a_bad_disk_and_a_kill_in_a_write_lose_nothing(warm, tmp_path: Path) -> None:
    total = writes(warm, tmp_path)
    places = enumerate((2, total // 3, total // 2, total - 1))
    tell(Counter(strike(warm, tmp_path, at, HOW[number % len(HOW)]) for number, at in places), total)


@pytest.mark.slow
def test_every_eighth_step_of_writing_fails_in_turn(warm, tmp_path: Path) -> None:
    total = writes(warm, tmp_path)
    places = enumerate(range(1, total + 1, EVERY))
    tell(Counter(strike(warm, tmp_path, at, HOW[number % len(HOW)]) for number, at in places), total)


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.parametrize("how", HOW)
def test_every_step_of_writing_fails_in_every_way(warm, tmp_path: Path, how: str) -> None:
    total = writes(warm, tmp_path)
    tell(Counter(strike(warm, tmp_path, at, how) for at in range(1, total + 1)), total)


def test_a_file_that_does_not_fit_fails_its_cell_and_the_next_run_makes_it(warm, tmp_path: Path) -> None:
    store = tmp_path / "small"
    assert warm.run(store, largest=100_000) == 1
    assert "delta.safetensors cannot be written" in warm.said(store)
    found = verify(Store.open(store))
    assert not found.damaged
    assert {frozenset(each.lacks) for each in found.lacking} == {frozenset(("checkpoint", "wmdp", "mmlu"))}
    assert not list(store.rglob("*.partial"))
    assert warm.run(store) == 0, warm.said(store)
    assert warm.boards(store) == warm.boards(warm.calm)


def kill_at_random(warm, tmp_path: Path, times: int, seed: int) -> None:
    """Kill runs at random moments, each in the store that the one before it left, until one ends; then begin anew."""
    draw = random.Random(seed)
    whole = warm.seconds(tmp_path / "timed")
    before, number, killed = warm.ended, 0, 0
    while killed < times:
        store = tmp_path / f"killed{number}"
        alive = True
        while alive and killed < times:
            status = warm.run(store, seconds=draw.uniform(0, whole))
            alive = status == -signal.SIGKILL
            killed += alive
            assert alive or status == 0, warm.said(store)
        assert warm.run(store) == 0, warm.said(store)
        assert warm.boards(store) == warm.boards(warm.calm)
        number += 1
    assert warm.ended - before == times
    print(f"{times} processes killed at work in {number} stores; every board as undisturbed")


@pytest.mark.slow
def test_twenty_random_kills_lose_nothing(warm, tmp_path: Path) -> None:
    kill_at_random(warm, tmp_path, 20, seed=0)


@pytest.mark.slow
@pytest.mark.full
def test_two_hundred_random_kills_lose_nothing(warm, tmp_path: Path) -> None:
    kill_at_random(warm, tmp_path, 200, seed=1)
