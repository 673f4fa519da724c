"""A method added as one new file, in the folder or in a package of its own, is a method like any other."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = re.compile(r"```python\n(from \.base import .*?)```", re.DOTALL)
BROKEN = "raise RuntimeError('this plugin is broken')\n"


def example(name: str, base: str = ".base") -> str:
    """Return the README's example of a method, under another name and base."""
    found = EXAMPLE.search((Path(__file__).parent.parent / "README.md").read_text())
    assert found is not None
    return found.group(1).replace("from .base", f"from {base}").replace('"repel"', f'"{name}"')


def run(paths: list[Path], code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=600)


def command(paths: list[Path], *arguments: object) -> subprocess.CompletedProcess[str]:
    code = f"from unlearn_bench.harness.cli import main; main({[str(a) for a in arguments]!r})"
    return run(paths, code)


def check_method_everywhere(paths: list[Path], name: str, output: Path) -> None:
    listed = command(paths, "list", "methods", "--json")
    assert name in {row["name"] for row in json.loads(listed.stdout)["rows"]}, listed.stderr
    small = ("--tracks", "knowledge", "--limit", 24, "--set", "training.steps=4", "--workers", 1)
    done = command(paths, "evaluate", "--methods", name, *small, "--output", output)
    assert done.returncode == 0, done.stderr
    rows = json.loads((output / "leaderboards" / "micro.json").read_text())["rows"]
    assert {row["method"] for row in rows} >= {"base", name}
    checked = run(paths, f"from unlearn_bench.methods.testing import check_method; check_method({name!r})")
    assert checked.returncode == 0, checked.stderr
    covered = run(paths, "from unlearn_bench.methods.base import methods; print(methods.names())")
    assert name in covered.stdout


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> Path:
    """Two installed packages: one with a method, one that cannot be imported."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name, text in (("repel", example("repel", "unlearn_bench.methods.base")), ("wreck", BROKEN)):
        home = source / name
        home.mkdir()
        (home / f"unlearn_{name}.py").write_text(text)
        (home / "pyproject.toml").write_text(
            f'[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
            f'[project]\nname = "unlearn-{name}"\nversion = "0.1"\n'
            f'[project.entry-points."unlearn_bench.methods"]\n{name} = "unlearn_{name}"\n'
            f'[tool.setuptools]\npy-modules = ["unlearn_{name}"]\n'
        )
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
        done = subprocess.run([*install, "--target", str(target), str(home)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return target


def test_a_method_of_an_installed_package_is_listed_run_and_checked(plugin: Path, tmp_path: Path) -> None:
    check_method_everywhere([plugin], "repel", tmp_path / "out")


def test_a_broken_plugin_is_named_and_the_rest_goes_on(plugin: Path) -> None:
    listed = command([plugin], "list", "methods")
    assert listed.returncode == 0
    assert "rmu" in listed.stdout
    assert "wreck" in listed.stderr
    assert "this plugin is broken" in listed.stderr
    asked = command([plugin], "evaluate", "--methods", "wreck", "--dry-run")
    assert asked.returncode == 2
    assert "cannot be loaded" in asked.stderr


def test_a_method_is_one_new_file_in_the_folder(root: Path, tmp_path: Path) -> None:
    home = tmp_path / "copy" / "unlearn_bench"
    for folder in ("harness", "methods", "tasks", "leaderboards", "reports"):
        shutil.copytree(root / folder, home / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (home / "methods" / "shove.py").write_text(example("shove"))
    check_method_everywhere([home.parent], "shove", tmp_path / "out")


def test_a_name_that_is_taken_is_refused() -> None:
    from unlearn_bench.harness.errors import UserError
    from unlearn_bench.methods.base import Method, methods, register

    assert "rmu" in methods.names()

    class Other(Method):
        pass

    with pytest.raises(UserError, match=r"'rmu' is taken by unlearn_bench\.methods\.rmu\.RMU"):
        register("rmu")(Other)
