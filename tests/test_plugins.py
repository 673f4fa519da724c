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


def run(paths: list[Path], code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    line = [sys.executable, "-c", code, *arguments]
    return subprocess.run(line, capture_output=True, text=True, env=environment, timeout=600)


EVERYWHERE = """
import json, sys
from contextlib import redirect_stdout
from unlearn_bench.harness.cli import main
from unlearn_bench.methods.base import methods
from unlearn_bench.methods.testing import check_method

name, output = sys.argv[1:]
assert not main(["list", "methods", "--json"], standalone_mode=False)
small = ["--tracks", "knowledge", "--limit", "24", "--set", "training.steps=4", "--executor", "inline"]
with redirect_stdout(sys.stderr):
    assert not main(["evaluate", "--methods", name, *small, "--output", output], standalone_mode=False)
check_method(name)
assert name in methods.names()
"""


def check_method_everywhere(paths: list[Path], name: str, output: Path) -> None:
    done = run(paths, EVERYWHERE, name, str(output))
    assert done.returncode == 0, done.stderr
    assert name in {row["name"] for row in json.loads(done.stdout)["rows"]}, done.stderr
    rows = json.loads((output / "leaderboards" / "micro.json").read_text())["rows"]
    assert {row["method"] for row in rows} >= {"base", name}


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
    listed = 'assert not main(["list", "methods"], standalone_mode=False)'
    asked = 'main(["evaluate", "--methods", "wreck", "--dry-run"])'
    done = run([plugin], f"from unlearn_bench.harness.cli import main\n{listed}\n{asked}")
    assert "rmu" in done.stdout, done.stderr
    assert "wreck" in done.stderr
    assert "this plugin is broken" in done.stderr
    assert done.returncode == 2
    assert "cannot be loaded" in done.stderr


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
