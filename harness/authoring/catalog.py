"""What there is: registered things, their descriptions, and the items behind a number."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from ...methods.base import methods
from ...tasks.base import scorers, tasks
from ..engines.base import engines
from ..errors import UserError, suggest
from ..executors.base import executors
from ..planning.plan import Plan
from ..planning.status import entries, find_cell, status_of
from ..registry import Registry
from ..specs import Spec
from ..store.entries import Store
from ..store.files import read_json
from ..suite import chosen_suite, load_suite, suites

REGISTRIES: dict[str, Registry[Any]] = {
    "methods": methods,
    "tasks": tasks,
    "scorers": scorers,
    "engines": engines,
    "executors": executors,
    "suites": suites,
}


def catalog(what: str, suite: str | None) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return rows for `unlearn-bench list`, and what is broken with its cause."""
    if what == "models":
        loaded = chosen_suite(suite)
        rows = [
            {"name": name, "source": model.path or model.hub, "dtype": model.dtype, "suite": loaded.name}
            for name, model in loaded.models.items()
        ]
        return rows, {}
    registry = REGISTRIES[what]
    return [_row(what, name, registry) for name in registry.names()], registry.broken


def _row(what: str, name: str, registry: Registry[Any]) -> dict[str, Any]:
    if what == "suites":
        spec = load_suite(name)
        return {
            "name": name,
            "tracks": ", ".join(spec.tracks),
            "models": ", ".join(spec.models) or "yours",
            "about": spec.description.strip().split("\n")[0],
        }
    thing = registry.get(name)
    return {
        "name": name,
        "version": getattr(thing, "version", ""),
        **({"changes": thing.changes} if hasattr(thing, "changes") else {}),
        "about": thing.summary,
        "from": registry.origin(name),
    }


def describe(name: str, output: Path) -> dict[str, Any]:
    """Describe a method, task, scorer or suite by name, or a cell of the store by id or label."""
    for what in ("methods", "tasks", "scorers", "engines"):
        registry = REGISTRIES[what]
        if name in registry.names():
            return _describe_class(what, name, registry)
    if name in suites.names() or name.endswith((".yaml", ".yml")):
        spec = load_suite(name)
        return {"kind": "suite", "name": spec.name, **spec.model_dump(mode="json", exclude={"folder"})}
    if not (output / "store.json").is_file():
        known = [known for registry in REGISTRIES.values() for known in registry.names()]
        raise UserError(
            f"{name!r} is no method, task or suite, and {output} is no store to find a cell in.{suggest(name, known)}"
        )
    return _describe_cell(name, output)


def _describe_class(what: str, name: str, registry: Registry[Any]) -> dict[str, Any]:
    thing = registry.get(name)
    settings = thing.Settings.model_fields if hasattr(thing, "Settings") else {}
    return {
        "kind": what.rstrip("s"),
        "name": name,
        "about": inspect.cleandoc(inspect.getmodule(thing).__doc__ or thing.__doc__ or ""),
        "citation": getattr(thing, "citation", ""),
        "version": getattr(thing, "version", ""),
        **({"changes": thing.changes} if hasattr(thing, "changes") else {}),
        "from": registry.origin(name),
        "settings": {
            key: {"default": _plain(field), "about": field.description or ""} for key, field in settings.items()
        },
    }


def _plain(field: Any) -> Any:
    default = field.get_default(call_default_factory=True)
    return (
        default.model_dump(mode="json")
        if isinstance(default, Spec)
        else str(default)
        if field.is_required()
        else default
    )


def _describe_cell(name: str, output: Path) -> dict[str, Any]:
    store = Store.open(output)
    for plan in (Plan.load(store, suite) for suite in store.plans()):
        try:
            cell = find_cell(plan, store, name)
        except UserError:
            continue
        state = status_of(plan, cell, store)
        entry = store.entry("cells", cell.id)
        manifest = read_json(entry.file("manifest.json")) if entry.manifest() else {}
        wanted = entries(plan, cell, store)
        return {
            "kind": "cell",
            "id": cell.id,
            "label": cell.spec.label,
            "model": cell.model,
            "suite": plan.suite.name,
            "state": "finished" if state.finished else state.failure or "not finished",
            "delta": manifest.get("delta"),
            "changes": cell.spec.changes,
            "summary": manifest.get("summary"),
            "recorded": manifest.get("recorded"),
            "outcomes": {task: outcome.path.name for task, (outcome, _) in wanted.items()},
            "records": {task: record.path.name for task, (_, record) in wanted.items()},
            "identity": cell.spec.identity(),
        }
    raise UserError(
        f"{name!r} is no method, task, suite or single cell of {output}; see `unlearn-bench evaluate --dry-run`."
    )


def render(described: dict[str, Any], indent: int = 0) -> str:
    """Return a description as indented lines."""
    lines = []
    for key, value in described.items():
        lead = " " * indent + f"{key}:"
        if isinstance(value, dict) and value.keys() == {"default", "about"}:
            lines.append(f"{' ' * indent}{key} = {value['default']}  ({value['about']})")
        elif isinstance(value, dict) and value:
            lines += [lead, render(value, indent + 2)]
        elif isinstance(value, str) and "\n" in value:
            lines += [lead, *(" " * (indent + 2) + line for line in value.split("\n"))]
        elif value not in ("", None, {}):
            lines.append(f"{lead} {value}")
    return "\n".join(lines)
