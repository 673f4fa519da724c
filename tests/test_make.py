"""`make board`: three seeds into a store of its own, whose board becomes the published one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = "--tracks knowledge --tasks wmdp,mmlu --limit 8 --set training.steps=2 --workers 1"


def made(root: Path, tmp_path: Path, *options: str) -> str:
    """Return what `make board` prints with this interpreter's environment in place of one of its own."""
    (tmp_path / ".installed").touch()
    where = [f"VENV={tmp_path}", f"BIN={Path(sys.executable).parent}", f"BOARD={tmp_path / 'store'}"]
    line = ["make", "-C", str(root), "board", *where, f"PUBLISHED={tmp_path / 'published'}", *options]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_published_board_has_three_seeds_and_takes_more_options(root: Path, tmp_path: Path) -> None:
    commands = made(root, tmp_path, "--dry-run", "OPTIONS=--stress relearn")
    assert "evaluate --methods rmu,adap_rmu," in commands
    assert "--seeds 0,1,2 --stress relearn --output" in commands
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_the_board_of_a_store_becomes_the_published_one(root: Path, tmp_path: Path) -> None:
    (tmp_path / "published").mkdir()
    made(root, tmp_path, "METHODS=rmu", f"OPTIONS={SMALL}")
    for name in ("micro.md", "micro.json"):
        assert (tmp_path / "published" / name).read_bytes() == (tmp_path / "store/leaderboards" / name).read_bytes()
    board = json.loads((tmp_path / "published" / "micro.json").read_text())
    assert {tuple(row["seeds"]) for row in board["rows"] if row["kind"] == "method"} == {(0, 1, 2)}
    made_cells = [json.loads(path.read_text())["cell"] for path in tmp_path.glob("store/cells/*/manifest.json")]
    assert len(made_cells) == 6, "three trainings, each with its noise; base is measured once"
    assert len(list(tmp_path.glob("store/outcomes/*/manifest.json"))) == 14
