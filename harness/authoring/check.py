"""Hold a registered method or task to its contract and say, rule by rule, what is kept and what is broken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ...methods.base import methods
from ...tasks.base import tasks
from ..errors import UserError, suggest
from ..records import Printable
from .rules import Finding

WORDS = {"ok": "ok", "broken": "BROKEN", "unchecked": "-"}


@dataclass(frozen=True)
class ContractCheck(Printable):
    """A method or task held to its contract, and where it stands."""

    kind: str
    name: str
    origin: str
    rules: list[Finding]

    @property
    def ok(self) -> bool:
        """Whether every rule is kept."""
        return all(finding.state == "ok" for finding in self.rules)

    def facts(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        rules = [asdict(finding) for finding in self.rules]
        return {"kind": self.kind, "name": self.name, "from": self.origin, "ok": self.ok, "rules": rules}

    def to_text(self) -> str:
        """Return it as lines: one a rule, below a broken one what is wrong and what to do."""
        lines = [f"{self.kind} {self.name} ({self.origin})"]
        for finding in self.rules:
            unchecked = " (not checked: what is broken above comes first)" if finding.state == "unchecked" else ""
            lines.append(f"  {WORDS[finding.state]:<7} {finding.rule}{unchecked}")
            lines += [f"          {line}" for line in finding.words.split("\n") if line]
        count = sum(finding.state == "broken" for finding in self.rules)
        verdict = "keeps its contract" if self.ok else f"breaks {count} of {len(self.rules)} rules"
        return "\n".join([*lines, f"{self.name} {verdict}."]) + "\n"


def check(name: str, settings: Mapping[str, Any] | None = None) -> ContractCheck:
    """Hold a method or task to its contract.

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
    if registry is methods:
        from ...methods.testing import examine_method as examine
    else:
        from ...tasks.testing import examine_task as examine
    return ContractCheck(registry.kind, name, registry.origin(name), list(examine(name, settings)))
