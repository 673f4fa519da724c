"""What `unlearn-bench list statistics` shows: the statistics that composites of a suite are made of."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tabulate import tabulate

from ...leaderboards.stats.formula import Formula, statistics
from ..records import Printable


@dataclass(frozen=True)
class ListedStatistic:
    """A statistic: its arguments, those that are samples of items marked so, and its settings; where it comes from."""

    name: str
    needs: str
    better: str | None
    about: str
    origin: str


@dataclass(frozen=True)
class ListedStatistics(Printable):
    """The registered statistics, and what is broken with its cause."""

    rows: Sequence[ListedStatistic]
    broken: dict[str, str]

    def facts(self) -> dict[str, Any]:
        """Return the rows as `list --json` has them."""
        rows = [{"from" if key == "origin" else key: value for key, value in asdict(row).items()} for row in self.rows]
        return {"rows": rows, "broken": self.broken}

    def to_text(self) -> str:
        """Return the rows as a table."""
        return tabulate(self.facts()["rows"], headers="keys", tablefmt="simple", disable_numparse=True) + "\n"


def listed_statistics() -> ListedStatistics:
    """Return what is registered, plugins included."""
    return ListedStatistics([_listed(name, statistics.get(name)) for name in statistics.names()], statistics.broken)


def _listed(name: str, formula: Formula) -> ListedStatistic:
    many = "*" if formula.variadic else ""
    needs = [f"{many}{key}" + (" (items)" if key in formula.samples else "") for key in formula.arguments]
    needs += [f"{key}=" for key in formula.settings]
    about = inspect.cleandoc(formula.__doc__ or "").partition("\n")[0]
    about = about.removeprefix("Return ").replace(" [b]", "")
    return ListedStatistic(name, ", ".join(needs), formula.better, about, statistics.origin(name))
