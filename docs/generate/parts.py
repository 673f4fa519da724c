"""The generated parts of the manual: cards of methods and tasks, settings, commands, the Python API."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from unlearn_bench.harness import suite as suites
from unlearn_bench.harness.cli import main
from unlearn_bench.harness.registry import Registry
from unlearn_bench.harness.specs import Spec
from unlearn_bench.methods.base import Depth, Method, Range, methods
from unlearn_bench.tasks.base import Decoding, scorers, tasks

ROOT = Path(__file__).resolve().parents[2]
LIMITS = {Ge: ("≥ {}", "ge"), Gt: ("> {}", "gt"), Le: ("≤ {}", "le"), Lt: ("< {}", "lt")}
API = {
    "Running": [
        "harness.api.evaluate",
        "harness.planning.request.Request",
        "harness.api.Result",
        "harness.api.load_records",
    ],
    "A method": [
        *("methods.base." + name for name in ("Method", "MethodSettings", "Context", "Batch", "Tokens")),
        *("methods.base." + name for name in ("Range", "Depth")),
    ],
    "Its test kit": ["methods.testing." + name for name in ("check_method", "examine_method", "tiny_trainer")],
    "A task": [
        *("tasks.base." + name for name in ("Task", "TaskSettings", "Decoding", "Metric", "ItemWorkload")),
        *("tasks.base." + name for name in ("ChoiceRequest", "GenerationRequest", "Scorer")),
    ],
    "What it makes": ["harness.records." + name for name in ("Item", "Choices", "Generations", "Record")],
    "What is shown of it": ["harness.records." + name for name in ("Preview", "Mark", "LogRole")],
    "A task's test kit": ["tasks.testing.check_task", "tasks.testing.examine_task"],
    "Errors": ["harness.errors.UserError"],
}
"""Public names by section, below `unlearn_bench`."""


def method_cards() -> str:
    """Return a card of every built-in method."""
    return "\n".join(_card(name, methods, "methods") for name in _built_in(methods, "methods"))


def task_cards() -> str:
    """Return a card of every built-in task, and the judges of texts."""
    cards = [_card(name, tasks, "tasks") for name in _built_in(tasks, "tasks")]
    judges = [f"| `{name}` | {scorers.get(name).summary} |" for name in _built_in(scorers, "tasks")]
    return "\n".join([*cards, "## Judges of texts", "", "| kind | what it is |", "| --- | --- |", *judges, ""])


def suite_keys() -> str:
    """Return the keys of a suite file, a table for each of its parts."""
    kinds = [kind for _, kind in inspect.getmembers(suites, _is_spec)]
    order = [suites.SuiteSpec, *(kind for kind in kinds if kind is not suites.SuiteSpec), Decoding]
    return "\n".join(_keys(kind) for kind in order)


def commands() -> str:
    """Return the help of every command."""
    context = click.Context(main, info_name="unlearn-bench")
    parts = []
    for name in main.list_commands(context):
        command = main.commands[name]
        inner = click.Context(command, info_name=name, parent=context, max_content_width=100, terminal_width=100)
        parts.append(f"## `{name}`\n\n```text\n{command.get_help(inner)}\n```\n")
    return "\n".join(parts)


def api() -> str:
    """Return what mkdocstrings makes pages of."""
    return "\n".join(
        f"## {title}\n\n" + "\n".join(f"::: unlearn_bench.{name}\n" for name in names) for title, names in API.items()
    )


PARTS: dict[str, Callable[[], str]] = {
    "methods": method_cards,
    "tasks": task_cards,
    "suites": suite_keys,
    "commands": commands,
    "api": api,
}


def _built_in(registry: Registry[Any], folder: str) -> list[str]:
    return [name for name in registry.names() if registry.origin(name).startswith(f"unlearn_bench.{folder}.")]


def _card(name: str, registry: Registry[Any], folder: str) -> str:
    kind = registry.get(name)
    module = inspect.getmodule(kind)
    file = f"{folder}/{Path(inspect.getfile(kind)).name}"
    facts = {"Code": f"[{file}](../../{file})", "Source": kind.citation, "Version": kind.version}
    facts |= dict(_method_facts(kind)) if registry is methods else dict(_task_facts(kind))
    about = module.__doc__ if module is not None and registry is methods else kind.__doc__
    lines = [f"## `{name}`", "", f"{kind.summary[0].upper()}{kind.summary[1:]}.", ""]
    lines += [*(f"- {key}: {value}" for key, value in facts.items()), ""]
    lines += ["```{ .text .wrap }", inspect.cleandoc(about or ""), "```", ""]
    return "\n".join([*lines, _table(kind.Settings, getattr(kind, "search", {})), ""])


def _method_facts(kind: type[Method]) -> Iterator[tuple[str, str]]:
    yield "Family", kind.family
    yield "Status", kind.status
    yield "Changes", kind.changes
    if kind.auxiliary:
        yield "Needs beside each forget row", ", ".join(f"`{name}`" for name in kind.auxiliary)


def _task_facts(kind: Any) -> Iterator[tuple[str, str]]:
    yield "Needs", f"{kind.needs}{', a judge of texts' if kind.judged else ''}"
    for metric in kind.metrics:
        top = "no upper bound" if metric.largest is None else f"at most {metric.largest:g}"
        yield f"`{metric.score}`", f"chance {metric.chance:g}, {metric.better} is more useful, {top}"


def _is_spec(thing: object) -> bool:
    return (
        inspect.isclass(thing) and issubclass(thing, Spec) and thing is not Spec and thing.__module__ == suites.__name__
    )


def _keys(kind: type[Spec]) -> str:
    name = kind.__name__.removesuffix("Spec")
    return f"## {name}\n\n{inspect.cleandoc(kind.__doc__ or '')}\n\n{_table(kind, {}, kinds=True)}\n"


def _table(settings: type[Spec], search: Mapping[str, Range | Depth], *, kinds: bool = False) -> str:
    last = "is" if kinds else "searched" if search else ""
    head = ["key" if kinds else "setting", "takes", "default", "meaning", *([last] if last else [])]
    rows = []
    for name, info in settings.model_fields.items():
        row = [f"`{name}`", _takes(info), _default(info), (info.description or "").replace("|", "\\|")]
        end = [str(settings.kind_of(name) or "")] if kinds else [_where(search.get(name))] if search else []
        rows.append("| " + " | ".join([*row, *end]) + " |")
    if not rows:
        return "It has no settings.\n"
    return "\n".join([f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *rows, ""])


def _takes(info: Any) -> str:
    """Return type and limits in words."""
    limits = [
        form.format(getattr(rule, key))
        for rule in info.metadata
        for kind, (form, key) in LIMITS.items()
        if isinstance(rule, kind)
    ]
    limits += [
        f"at least {rule.min_length} long"
        for rule in info.metadata
        if isinstance(rule, MinLen) and not isinstance(rule, MaxLen)
    ]
    patterns = [rule.pattern for rule in info.metadata if getattr(rule, "pattern", None)]
    limits += [f"`{pattern}`".replace("|", "\\|") for pattern in patterns]
    return ", ".join([_type(info.annotation), *limits])


def _type(kind: Any) -> str:
    if kind is None or kind is type(None):
        return "null"
    if get_origin(kind) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(kind))
    arguments = [argument for argument in get_args(kind) if argument is not Ellipsis]
    origin = get_origin(kind)
    if origin is not None and origin.__name__ == "Annotated":
        return _type(arguments[0])
    if origin in (tuple, list):
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"mapping to {_type(arguments[1])}"
    if arguments:
        return " or ".join(map(_type, arguments))
    names = {int: "whole number", float: "number", str: "text", bool: "true or false", Any: "anything"}
    if inspect.isclass(kind) and issubclass(kind, Spec):
        return f"[{kind.__name__.removesuffix('Spec')}](suites.md#{kind.__name__.removesuffix('Spec').lower()})"
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def _default(info: Any) -> str:
    if info.is_required():
        return "needed"
    default = info.get_default(call_default_factory=True)
    if isinstance(default, Spec):
        return "its own"
    return f"`{default if isinstance(default, str) and default else json.dumps(default)}`".replace("|", "\\|").replace(
        "\n", "\\n"
    )


def _where(place: Range | Depth | None) -> str:
    if isinstance(place, Depth):
        return f"layers at {place.low:g} to {place.high:g} of the depth"
    if isinstance(place, Range):
        return f"{place.low:g} to {place.high:g}{', evenly over orders of magnitude' if place.log else ''}"
    return ""
