"""The floors of the house: a file imports its own folder and floors below, nothing above, and never in a circle."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

HARNESS = (
    ("errors", "records", "runtime", "rng"),
    ("specs", "registry"),
    ("corpora",),
    ("suite",),
    ("data", "store"),
    ("models",),
    ("engines", "training"),
    ("transforms",),
    ("planning",),
    ("jobs", "results"),
    ("executors",),
    ("runner", "authoring"),
    ("api", "maintenance"),
    ("tuning",),
    ("commands",),
    ("cli",),
)
"""Lowest first; rooms of one floor do not import each other. `suites` are loaded by name, by nobody."""
LEADERBOARDS = (("stats",), ("spec",), ("schema",), ("rows",), ("text",), ("board",))
REPORTS = (("data",), ("figures",), ("document",), ("items", "tables", "comparison"), ("sections",), ("write",))
FLOORS = {"harness": HARNESS, "leaderboards": LEADERBOARDS, "reports": REPORTS}

CONTRACTS = {"harness.errors", "harness.records", "harness.registry", "harness.specs"}
MAY = {
    "methods": {"methods", *CONTRACTS},
    "tasks": {"tasks", "harness.models", *CONTRACTS},
    "leaderboards": {"leaderboards", "harness.rng", *CONTRACTS},
    "reports": {"reports", "leaderboards", "harness.errors", "harness.records", "harness.specs"},
}
"""What a folder may import of others. The test kits (`testing.py`) are code of tests; they may use the harness."""
KITS = {"methods.testing", "tasks.testing"}
KNOW_BOARDS = {"results", "api", "tuning", "commands"}


@pytest.fixture(scope="module")
def arrows(root: Path) -> dict[str, set[str]]:
    """What each module of the product imports of the product."""
    return _arrows(root)


@lru_cache(maxsize=1)
def _arrows(root: Path) -> dict[str, set[str]]:
    files = {_module(file, root): file for folder in ("methods", "tasks", *FLOORS) for file in _code(root / folder)}
    return {name: _imports(file, root, set(files)) for name, file in files.items()}


def _code(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def _module(file: Path, root: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(file: Path, root: Path, modules: set[str]) -> set[str]:
    package = file.relative_to(root).parent.parts
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            source = ".".join([*base, *(node.module or "").split(".")]).rstrip(".")
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                names.add(inner if inner in modules else source)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("unlearn_bench"):
            pytest.fail(f"{file}: siblings import each other relatively, not through {node.module}")
    return names


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_every_module_can_be_imported(arrows: dict[str, set[str]]) -> None:
    for name in arrows:
        importlib.import_module(f"unlearn_bench.{name}")


@pytest.mark.parametrize(
    ("old", "name"),
    [
        ("harness.deltas", "decoding_of"),
        ("harness.plan", "build_task"),
        ("methods.contract", "check_method"),
        ("tasks.contract", "check_task"),
    ],
)
def test_a_module_under_its_old_name_works_and_warns(old: str, name: str) -> None:
    sys.modules.pop(f"unlearn_bench.{old}", None)
    with pytest.warns(DeprecationWarning, match=rf"unlearn_bench\.{old} is now unlearn_bench"):
        assert callable(getattr(importlib.import_module(f"unlearn_bench.{old}"), name))


def test_no_file_imports_itself_in_a_circle(arrows: dict[str, set[str]]) -> None:
    def below(name: str) -> set[str]:
        seen, left = set[str](), [name]
        while left:
            for other in arrows.get(left.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    left.append(other)
        return seen

    circles = sorted(name for name in arrows if name in below(name))
    assert not circles, f"these import themselves, directly or through others: {circles}"


@pytest.mark.parametrize("folder", FLOORS)
def test_every_room_has_its_floor(folder: str, arrows: dict[str, set[str]]) -> None:
    rooms = {_room(name) for name in arrows if name.startswith(f"{folder}.")} - {"suites"}
    assert rooms == {room for floor in FLOORS[folder] for room in floor}


@pytest.mark.parametrize("folder", FLOORS)
def test_no_arrow_runs_up(folder: str, arrows: dict[str, set[str]]) -> None:
    height = {room: number for number, floor in enumerate(FLOORS[folder]) for room in floor}
    for name, imports in arrows.items():
        room = _room(name)
        if not name.startswith(f"{folder}.") or room == "suites":
            continue
        others = {_room(other): other for other in imports if other.startswith(f"{folder}.")}
        wrong = [other for below, other in others.items() if below != room and height[below] >= height[room]]
        assert not wrong, f"{name} imports {wrong}, which is not below it"


@pytest.mark.parametrize("folder", MAY)
def test_a_folder_imports_only_what_it_may(folder: str, arrows: dict[str, set[str]]) -> None:
    for name, imports in arrows.items():
        if name.split(".")[0] == folder and name not in KITS:
            wrong = {other for other in imports if not _allowed(other, MAY[folder])}
            assert not wrong, f"{name} imports {wrong}"


def _allowed(name: str, may: set[str]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in may)


def test_a_method_imports_no_other_method(arrows: dict[str, set[str]]) -> None:
    from unlearn_bench.methods.base import methods

    files = {f"methods.{name}" for name in methods.names()}
    for name in files & arrows.keys():
        assert not (files - {name}) & arrows[name], name


def test_only_what_shows_results_knows_boards(arrows: dict[str, set[str]]) -> None:
    for name, imports in arrows.items():
        if name.startswith("harness.") and _room(name) not in KNOW_BOARDS:
            assert not any(other.startswith(("leaderboards", "reports")) for other in imports), name


def test_the_harness_has_a_dozen_flat_files_at_most(root: Path) -> None:
    assert len(list((root / "harness").glob("*.py"))) <= 12


def test_leaderboards_and_reports_load_no_torch(root: Path) -> None:
    code = "import sys, unlearn_bench.leaderboards.board, unlearn_bench.reports.write; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root.parent)
    assert done.stdout.strip() == "False", done.stderr
