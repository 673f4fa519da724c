"""A new method or task: files that work as they are, to be changed into one's own."""

from __future__ import annotations

import keyword
import re
import tomllib
from pathlib import Path
from typing import Any

import jinja2

from ... import methods as method_package
from ... import tasks as task_package
from ...methods.base import methods
from ...tasks.base import tasks
from ..errors import UserError
from ..registry import Registry
from ..store.identity import NULLS

HOME = Path(__file__).parent
REGISTRIES: dict[str, Registry[Any]] = {"method": methods, "task": tasks}
RESERVED = {"all", "none", "base", "noise", "training", *NULLS}
"""Words that `--methods`, `--set` and boards have a meaning for."""


def write(what: str, name: str, package: Path | None = None) -> str:
    """Write the files of a new method or task and return what was written and what to do next.

    Args:
        what: `method` or `task`.
        name: what it will be called in commands and on boards.
        package: folder for a plugin package of its own; None: into the checkout that the command runs in.

    Raises:
        UserError: a name that cannot be used, no checkout to write into, or a file that is there already.
    """
    _check_name(what, name)
    home = package if package is not None else _checkout()
    files = _packaged(what, name) if package is not None else _inside(what, name)
    there = [file for file in files if (home / file).exists()]
    if there:
        raise UserError(f"{_shown(home / there[0])} is there already; nothing was written. Take another name.")
    words = {
        "what": what,
        "name": name,
        "title": "".join(part.capitalize() for part in name.split("_")),
        "module": _module(name),
        "packaged": package is not None,
        "contract": f"unlearn_bench.{what}s." if package is not None else ".",
        "harness": "unlearn_bench.harness." if package is not None else "..harness.",
    }
    loader = jinja2.FileSystemLoader(HOME / "templates")
    # Templates write Python and YAML, no HTML: nothing is escaped.
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    for file, template in files.items():
        (home / file).parent.mkdir(parents=True, exist_ok=True)
        (home / file).write_text(environment.get_template(template).render(words), encoding="utf-8")
    return "\n".join([*(f"Wrote {_shown(home / file)}" for file in files), "Next:", *_next(what, name, home, package)])


def _inside(what: str, name: str) -> dict[str, str]:
    """Return the files of a checkout by path, with their templates."""
    files = {f"{what}s/{name}.py": f"{what}.py.jinja", f"tests/{what}s/test_{name}.py": f"test_{what}.py.jinja"}
    return files | ({f"tests/tasks/{name}.yaml": "suite.yaml.jinja"} if what == "task" else {})


def _packaged(what: str, name: str) -> dict[str, str]:
    """Return the files of a plugin package by path, with their templates."""
    files = {
        f"{_module(name)}.py": f"{what}.py.jinja",
        f"tests/test_{name}.py": f"test_{what}.py.jinja",
        "pyproject.toml": "pyproject.toml.jinja",
        "README.md": "readme.md.jinja",
    }
    return files | ({f"{name}.yaml": "suite.yaml.jinja"} if what == "task" else {})


def _next(what: str, name: str, home: Path, package: Path | None) -> list[str]:
    suite = _shown(home / (f"{name}.yaml" if package is not None else f"tests/tasks/{name}.yaml"))
    run = f"--methods {name}" if what == "method" else f"--suite {suite} --methods rmu"
    steps = [f"unlearn-bench check {name}", f"unlearn-bench evaluate {run} --limit 40"]
    return ["  " + step for step in ([f"pip install --editable {_shown(home)}"] if package is not None else []) + steps]


def _check_name(what: str, name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UserError(
            f"{name!r} cannot name a {what}: take lower-case letters, digits and underscores, as in 'my_{what}'."
        )
    if name in RESERVED:
        raise UserError(f"{name!r} has a meaning of its own in `evaluate`; take another name for the {what}.")
    for kind, registry in REGISTRIES.items():
        if name in registry.names():
            raise UserError(f"The name {name!r} is taken by the {kind} {registry.origin(name)}; take another one.")


def _module(name: str) -> str:
    return f"unlearn_bench_{name}"


def _checkout() -> Path:
    """Return the checkout that this command runs in and whose code it runs."""
    [methods_home], [tasks_home] = map(list, (method_package.__path__, task_package.__path__))
    home = Path(methods_home).parent
    try:
        project = tomllib.loads((home / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
    except (OSError, KeyError):
        project = None
    if project != "unlearn-bench" or Path(tasks_home).parent != home:
        raise UserError("unlearn-bench is not installed from a checkout; pass --package DIR for a plugin package.")
    if not Path.cwd().resolve().is_relative_to(home.resolve()):
        raise UserError(f"Run this in the checkout {home}, or pass --package DIR for a plugin package.")
    return home


def _shown(path: Path) -> Path:
    """Return a path as one would type it here."""
    path = path.resolve()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
