"""Hold a registered method or task to its contract and say, rule by rule, what is kept and what is broken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...methods.base import methods
from ...tasks.base import tasks
from ..errors import UserError, suggest
from .rules import Finding

WORDS = {"ok": "ok", "broken": "BROKEN", "unchecked": "-"}


def check(name: str, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what `name` is, where it stands, whether it keeps its contract (`ok`) and a finding a rule.

    Args:
        name: of a method or task, built-in or plugin.
        settings: settings to check it with, its defaults where None.

    Raises:
        UserError: there is nothing of that name, it cannot be loaded, or it refuses the settings.
    """
    registry = next((known for known in (methods, tasks) if name in known.names()), None)
    if registry is None:
        for known in (methods, tasks):
            if any(name in source for source in known.broken):
                known.get(name)
        raise UserError(f"{name!r} is no method or task.{suggest(name, {*methods.names(), *tasks.names()})}")
    kind = registry.get(name)
    if settings:
        kind.Settings.parse(settings, name)
    return {"kind": registry.kind, "name": name, "from": registry.origin(name), **_judged(_examine(name, settings))}


def _examine(name: str, settings: Mapping[str, Any] | None) -> list[Finding]:
    if name in methods.names():
        from ...methods.testing import examine_method

        return list(examine_method(name, settings))
    from ...tasks.testing import examine_task

    return list(examine_task(name, settings))


def _judged(findings: list[Finding]) -> dict[str, Any]:
    rules = [{"rule": found.rule, "state": found.state, "words": found.words} for found in findings]
    return {"ok": all(found.state == "ok" for found in findings), "rules": rules}


def render(checked: Mapping[str, Any]) -> str:
    """Return a check as lines: one a rule, below a broken one what is wrong and what to do."""
    lines = [f"{checked['kind']} {checked['name']} ({checked['from']})"]
    for rule in checked["rules"]:
        unchecked = " (not checked: what is broken above comes first)" if rule["state"] == "unchecked" else ""
        lines.append(f"  {WORDS[rule['state']]:<7} {rule['rule']}{unchecked}")
        lines += [f"          {line}" for line in rule["words"].split("\n") if line]
    count = sum(rule["state"] == "broken" for rule in checked["rules"])
    says = "keeps its contract" if checked["ok"] else f"breaks {count} of {len(checked['rules'])} rules"
    return "\n".join([*lines, f"{checked['name']} {says}."])
