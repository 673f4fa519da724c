"""A run that is killed in the middle loses nothing finished, and the next run ends with the same board.

The undisturbed run and the next one are made in this process, without workers; the board is the same.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

COMMAND = str(Path(sys.executable).with_name("unlearn-bench"))
QUICK = ("--methods", "rmu,adap_rmu", "--tracks", "knowledge", "--limit", "48", "--set", "training.steps=60")
FOUR = "adap_rmu,cosine_meta_rmu,multi_layer_probe,rmu"


def manifests(store: Path) -> list[Path]:
    return sorted(store.glob("*/*/manifest.json"))


def kill_in_the_middle(arguments: tuple[str, ...], store: Path, finished: int) -> tuple[int, int]:
    """Start a run in its own process group and kill the group once `finished` entries are finished.

    Returns:
        The number of processes that were alive, and of finished entries.
    """
    running = subprocess.Popen(
        [COMMAND, "evaluate", *arguments, "--output", str(store), "--workers", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while len(manifests(store)) < finished:
        assert running.poll() is None, f"the run ended with {running.returncode} before it could be killed"
        time.sleep(0.01)
    listed = subprocess.run(["ps", "-o", "pid=", "-g", str(running.pid)], capture_output=True, text=True)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    return len(listed.stdout.split()), len(manifests(store))


def check(cli, arguments: tuple[str, ...], tmp_path: Path, finished: int, suite: str = "micro") -> None:
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    assert cli("evaluate", *arguments, "--output", calm).returncode == 0
    alive, kept = kill_in_the_middle(arguments, killed, finished)
    assert alive >= 2, "the parent and at least one worker were running"
    assert finished <= kept < len(manifests(calm)), "work was in progress"
    assert not (killed / "leaderboards" / f"{suite}.json").exists()
    before = {path: path.stat().st_mtime_ns for path in manifests(killed)}
    assert cli("evaluate", *arguments, "--output", killed).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before, "finished work was not done again"
    for name in (f"{suite}.json", f"{suite}.md"):
        assert (killed / "leaderboards" / name).read_bytes() == (calm / "leaderboards" / name).read_bytes()
    print(f"{alive} processes killed with {kept} of {len(manifests(calm))} entries finished; the board as undisturbed")


def test_a_killed_run_is_finished_by_the_next_with_the_same_board(cli, tmp_path: Path) -> None:
    check(cli, QUICK, tmp_path, finished=5)


@pytest.mark.slow
def test_a_run_from_an_original_is_finished_by_the_next_with_the_same_board(cli, tmp_path: Path) -> None:
    text = {"path": "data/forget_alchemy.jsonl"}
    references = {"original": {"finetune": {"text": text, "training": {"steps": 20}}}, "retain": {"path": "reference"}}
    tracks = {"knowledge": {"references": references}}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"extends": "micro", "name": "mine", "tracks": tracks}))
    arguments = ("--suite", str(file), "--methods", "rmu", "--tracks", "knowledge", "--limit", "24")
    check(cli, (*arguments, "--set", "training.steps=40"), tmp_path, finished=3, suite="mine")


@pytest.mark.slow
@pytest.mark.full
def test_the_papers_methods_survive_a_kill_and_a_second_run_does_no_work(cli, tmp_path: Path) -> None:
    check(cli, ("--methods", FOUR), tmp_path, finished=14)
    started = time.monotonic()
    again = subprocess.run(
        [COMMAND, "evaluate", "--methods", FOUR, "--output", str(tmp_path / "killed")], capture_output=True, text=True
    )
    assert again.returncode == 0
    print(f"second run: {time.monotonic() - started:.1f} s")
