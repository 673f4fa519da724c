"""What there is: registered things in lists, and descriptions of them, of suites and of cells."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ...methods.base import methods
from ...tasks.base import scorers, tasks
from ..engines.base import engines
from ..errors import UserError, suggest
from ..executors.base import executors
from ..planning.plan import Plan
from ..planning.status import entries, find_cell, status_of
from ..records import Printable
from ..registry import Registry
from ..results.statistics import ListedStatistic, listed_statistics, statistics
from ..specs import Spec
from ..store.entries import Store
from ..store.files import read_json
from ..suite import SuiteSpec, chosen_suite, load_suite, suites

REGISTRIES: dict[str, Registry[Any]] = {
    f"{registry.kind}s": registry for registry in (methods, tasks, scorers, engines, executors, suites)
}

OF_METHODS = ("family", "status", "changes")


@dataclass(frozen=True)
class Registered:
    """A registered class; its version is empty where it has none, only methods have a family, a status, and changes."""

    family: str | None
    name: str
    version: int | str
    status: str | None
    changes: str | None
    about: str
    origin: str


@dataclass(frozen=True)
class ListedSuite:
    """A suite; its tracks and models are joined by commas, behind a semicolon the tracks that run only where named."""

    name: str
    tracks: str
    models: str
    about: str


@dataclass(frozen=True)
class ListedModel:
    """A model of a suite; `source` is a folder or hub id."""

    name: str
    source: str | None
    dtype: str
    suite: str


@dataclass(frozen=True)
class Catalog(Printable):
    """What there is of a kind, and what is broken with its cause."""

    rows: Sequence[Registered | ListedSuite | ListedModel | ListedStatistic]
    broken: dict[str, str]

    def facts(self) -> dict[str, Any]:
        """Return the rows as `list --json` has them."""
        return {"rows": [_facts(row) for row in self.rows], "broken": self.broken}

    def to_text(self) -> str:
        """Return the rows as a table."""
        return tabulate(self.facts()["rows"], headers="keys", tablefmt="simple", disable_numparse=True) + "\n"


def _facts(row: Any) -> dict[str, Any]:
    """Return a dataclass as plain types: what only methods have, only where it has it, `origin` as `from`."""
    optional = {*OF_METHODS, "beside"}
    facts = {key: value for key, value in asdict(row).items() if value is not None or key not in optional}
    return {"from" if key == "origin" else key: value for key, value in facts.items()}


def catalog(what: str, suite: str | None) -> Catalog:
    """Return what `unlearn-bench list` shows; `suite` is that of models."""
    if what == "models":
        loaded = chosen_suite(suite)
        models = [ListedModel(key, m.path or m.hub, m.dtype, loaded.name) for key, m in loaded.models.items()]
        return Catalog(models, {})
    if what == "suites":
        return Catalog([_suite(name, load_suite(name)) for name in suites.names()], suites.broken)
    if what == "statistics":
        return Catalog(listed_statistics(), statistics.broken)
    registry = REGISTRIES[what]
    rows = sorted((_registered(name, registry) for name in registry.names()), key=lambda row: row.family or "")
    return Catalog(rows, registry.broken)


def _suite(name: str, spec: SuiteSpec) -> ListedSuite:
    about = spec.description.strip().split("\n")[0]
    named = [track for track in spec.tracks if track not in spec.default_tracks]
    tracks = "; ".join(", ".join(group) for group in (spec.default_tracks, named) if group)
    return ListedSuite(name, tracks, ", ".join(spec.models) or "yours", about)


def _registered(name: str, registry: Registry[Any]) -> Registered:
    thing = registry.get(name)
    return Registered(
        name=name,
        version=getattr(thing, "version", ""),
        **_of_method(thing),
        about=thing.summary,
        origin=registry.origin(name),
    )


def _of_method(thing: Any) -> dict[str, str | None]:
    return {key: getattr(thing, key, None) for key in OF_METHODS}


@dataclass(frozen=True)
class Description(Printable):
    """What a name stands for: what a kind of it says is what is shown."""

    ascii = False

    def facts(self) -> dict[str, Any]:
        """Return it as `show --json` has it."""
        return _facts(self)

    def to_text(self) -> str:
        """Return it as indented lines."""
        return _lines(self.facts()) + "\n"


@dataclass(frozen=True)
class Setting:
    """A setting of a method or task, its default as plain JSON types."""

    default: Any
    about: str


@dataclass(frozen=True)
class ClassDescription(Description):
    """A registered class: what its module says, and its settings; `beside`: what a method reads beside forget rows."""

    kind: str
    name: str
    about: str
    citation: str
    version: int | str
    family: str | None
    status: str | None
    changes: str | None
    beside: str | None
    origin: str
    settings: dict[str, Setting]


@dataclass(frozen=True)
class SuiteDescription(Description):
    """A suite: all that its file says."""

    spec: SuiteSpec

    def facts(self) -> dict[str, Any]:
        """Return the suite as plain JSON types."""
        return {"kind": "suite", "name": self.spec.name, **self.spec.model_dump(mode="json", exclude={"folder"})}


@dataclass(frozen=True)
class CellDescription(Description):
    """A cell: what it is, what was done on it, and its ids in the store.

    Attributes:
        state: `finished`, `not finished` or why it failed.
        delta, summary, recorded: of its manifest, None where it has none.
        outcomes, records: task to id.
        identity: what its id stands for.
    """

    kind: str = field(default="cell", init=False)
    id: str
    label: str
    model: str
    suite: str
    state: str
    delta: str | None
    changes: str
    summary: Any
    recorded: Any
    outcomes: dict[str, str]
    records: dict[str, str]
    identity: dict[str, Any]


def describe(name: str, output: Path) -> Description:
    """Describe a method, task, scorer or suite by name, or a cell of the store by id or label."""
    for registry in (methods, tasks, scorers, engines):
        if name in registry.names():
            return _describe_class(name, registry)
    if name in suites.names() or name.endswith((".yaml", ".yml")):
        return SuiteDescription(load_suite(name))
    if not (output / "store.json").is_file():
        known = [known for registry in REGISTRIES.values() for known in registry.names()]
        raise UserError(
            f"{name!r} is no method, task or suite, and {output} is no store to find a cell in.{suggest(name, known)}"
        )
    return _describe_cell(name, output)


def _describe_class(name: str, registry: Registry[Any]) -> ClassDescription:
    thing = registry.get(name)
    settings = thing.Settings.model_fields if hasattr(thing, "Settings") else {}
    return ClassDescription(
        kind=registry.kind,
        name=name,
        about=inspect.cleandoc(inspect.getmodule(thing).__doc__ or thing.__doc__ or ""),
        citation=getattr(thing, "citation", ""),
        version=getattr(thing, "version", ""),
        **_of_method(thing),
        beside=", ".join(thing.auxiliary) if registry is methods else None,
        origin=registry.origin(name),
        settings={key: Setting(_plain(field), field.description or "") for key, field in settings.items()},
    )


def _plain(field: Any) -> Any:
    default = field.get_default(call_default_factory=True)
    if isinstance(default, Spec):
        return default.model_dump(mode="json")
    return str(default) if field.is_required() else default


def _describe_cell(name: str, output: Path) -> CellDescription:
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
        return CellDescription(
            id=cell.id,
            label=cell.spec.label,
            model=cell.model,
            suite=plan.suite.name,
            state="; ".join(filter(None, (state.failure, state.without_value)))
            or ("finished" if state.finished else "not finished"),
            delta=manifest.get("delta"),
            changes=cell.spec.changes,
            summary=manifest.get("summary"),
            recorded=manifest.get("recorded"),
            outcomes={task: outcome.path.name for task, (outcome, _) in wanted.items()},
            records={task: record.path.name for task, (_, record) in wanted.items()},
            identity=cell.spec.identity(),
        )
    raise UserError(
        f"{name!r} is no method, task, suite or single cell of {output}; see `unlearn-bench evaluate --dry-run`."
    )


def _lines(described: dict[str, Any], indent: int = 0) -> str:
    lines = []
    for key, value in described.items():
        lead = " " * indent + f"{key}:"
        if isinstance(value, dict) and value.keys() == {"default", "about"}:
            lines.append(f"{' ' * indent}{key} = {value['default']}  ({value['about']})")
        elif isinstance(value, dict) and value:
            lines += [lead, _lines(value, indent + 2)]
        elif isinstance(value, str) and "\n" in value:
            lines += [lead, *(" " * (indent + 2) + line for line in value.split("\n"))]
        elif value not in ("", None, {}):
            lines.append(f"{lead} {value}")
    return "\n".join(lines)
