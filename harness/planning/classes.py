"""Classes of a notebook or script: how workers get them, and what of them belongs to a result's identity.

They travel as pickles from the process of the user to its own workers, with the jobs, and are never kept in a file.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import cloudpickle

from ...methods.base import methods
from ...tasks.base import tasks
from ..errors import UserError, first_line
from ..registry import Registry
from ..specs import digest
from .plan import Plan

INSTEAD = "put it into a module that workers can import, or pass executor='inline'"


def pack(plan: Plan) -> dict[str, bytes]:
    """Return the classes of a plan's methods and tasks that are not built in, for workers, by kind and name.

    Those of an importable module go by name, others (a notebook's, a script's) as they are.

    Raises:
        UserError: a class holds what no other process can have.
    """
    trained = {cell.spec.settings["method"] for cell in plan.cells if "method" in cell.spec.settings}
    task_kinds = {task.spec.task for task in plan.tasks.values()}
    return _packed(methods, trained) | _packed(tasks, task_kinds)


def _packed(registry: Registry[Any], names: set[str]) -> dict[str, bytes]:
    packed = {}
    for name in sorted(names):
        if registry.is_own(name):
            continue
        try:
            packed[f"{registry.kind} {name}"] = cloudpickle.dumps(registry.get(name))
        except Exception as error:
            raise UserError(
                f"The {registry.kind} {name!r} cannot be sent to workers: {first_line(error)} Have it hold less, or"
                f" {INSTEAD}."
            ) from error
    return packed


def unpack(classes: Mapping[str, bytes], method: str | None, asked: Iterable[str] = ()) -> None:
    """Register in this process what a job needs of `pack`'s classes: its method and its tasks, and no other's.

    Raises:
        UserError: a class cannot be had here.
    """
    needed: list[tuple[Registry[Any], str]] = [*((tasks, name) for name in asked)]
    needed += [(methods, method)] if method else []
    for registry, name in needed:
        key = f"{registry.kind} {name}"
        if key not in classes:
            continue
        try:
            registry.put(name, _loaded(classes[key]))
        except Exception as error:
            raise UserError(f"A worker cannot load the {key!r}: {first_line(error)} Or {INSTEAD}.") from error


@cache
def _loaded(packed: bytes) -> type[Any]:
    """Return a packed class: one object a process, however many of its jobs bring it."""
    return cloudpickle.loads(packed)


def source_of(kind: type) -> dict[str, str]:
    """Return the digest of the functions of a notebook's or script's class, whose edits no version tells.

    Empty for a class of a module, and where Python has no source.
    """
    own = [vars(base) for base in kind.__mro__ if base.__module__ == "__main__"]
    functions = [member for names in own for member in names.values() if inspect.isroutine(member)]
    try:
        return {"source": digest([inspect.getsource(inspect.unwrap(member)) for member in functions])} if own else {}
    except (OSError, TypeError):
        return {}
