"""The arrows of the house: which folder may import which."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

CONTRACTS = {"harness.errors", "harness.records", "harness.registry", "harness.specs"}
MAY = {
    "methods": {"methods", *CONTRACTS},
    "tasks": {"tasks", "harness.models", *CONTRACTS},
    "leaderboards": {"leaderboards", "harness.errors", "harness.records", "harness.specs"},
    "reports": {"reports", "leaderboards", "harness.errors", "harness.records", "harness.specs"},
}
"""The contract kits (`contract.py`) are test code that plugins import; they may use the harness."""
FROM_COMMAND_LINE = {"board", "api", "cli", "compare", "report", "tune"}


def imports_of(file: Path, root: Path) -> set[str]:
    """Return the project modules that a file imports, as `folder.module`."""
    package = file.relative_to(root).parent.parts
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            found.add(".".join([*base, *(node.module or "").split(".")]).rstrip("."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("unlearn_bench"):
            pytest.fail(f"{file}: siblings import each other relatively, not through {node.module}")
    return found


def allowed(name: str, may: set[str]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in may)


@pytest.mark.parametrize("folder", MAY)
def test_a_folder_imports_only_what_it_may(folder: str, root: Path) -> None:
    for file in (root / folder).rglob("*.py"):
        if file.name == "contract.py":
            continue
        wrong = {name for name in imports_of(file, root) if not allowed(name, MAY[folder])}
        assert not wrong, f"{file.relative_to(root)} imports {wrong}"


def test_a_method_imports_no_other_method(root: Path) -> None:
    from unlearn_bench.methods.base import methods

    names = set(methods.names())
    for file in (root / "methods").glob("*.py"):
        if file.stem in names:
            assert not {f"methods.{name}" for name in names - {file.stem}} & imports_of(file, root)


def test_only_the_command_line_side_of_the_harness_knows_boards(root: Path) -> None:
    for file in (root / "harness").rglob("*.py"):
        if file.stem not in FROM_COMMAND_LINE:
            assert not any(name.startswith(("leaderboards", "reports")) for name in imports_of(file, root)), file


def test_leaderboards_and_reports_load_no_torch(root: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys, unlearn_bench.leaderboards as boards, unlearn_bench.reports;"
        "boards.build_board; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root.parent)
    assert done.stdout.strip() == "False", done.stderr
