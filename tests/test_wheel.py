"""The wheel holds what git holds: a forgotten sub-package or data file shows only there."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

FOLDERS = ("harness", "methods", "tasks", "leaderboards", "reports")


@pytest.mark.slow
def test_the_wheel_holds_every_tracked_file_of_the_five_folders(root: Path, tmp_path: Path) -> None:
    listed = subprocess.run(["git", "ls-files", *FOLDERS], cwd=root, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    tracked = set(listed.stdout.split("\n")) - {""}
    copy = tmp_path / "copy"
    for name in tracked | {"pyproject.toml", "README.md", "LICENSE"}:
        if (root / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((root / name).read_bytes())
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(copy)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    wheel = next(tmp_path.glob("*.whl"))
    inside = {
        name.removeprefix("unlearn_bench/")
        for name in zipfile.ZipFile(wheel).namelist()
        if name.startswith("unlearn_bench/")
    }
    assert inside == tracked
