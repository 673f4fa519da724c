"""What `unlearn-bench list statistics` shows: the statistics that composites of a suite are made of."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from ...leaderboards.stats.formula import Formula, statistics


@dataclass(frozen=True)
class ListedStatistic:
    """A statistic: its arguments, those that are samples of items marked so, and its settings; where it comes from."""

    name: str
    needs: str
    better: str | None
    about: str
    origin: str


def listed_statistics() -> list[ListedStatistic]:
    """Return what is registered, plugins included."""
    return [_listed(name, statistics.get(name)) for name in statistics.names()]


def _listed(name: str, formula: Formula) -> ListedStatistic:
    many = "*" if formula.variadic else ""
    needs = [f"{many}{key}" + (" (items)" if key in formula.samples else "") for key in formula.arguments]
    needs += [f"{key}=" for key in formula.settings]
    about = inspect.cleandoc(formula.__doc__ or "").partition("\n")[0]
    about = about.removeprefix("Return ").replace(" [b]", "")
    return ListedStatistic(name, ", ".join(needs), formula.better, about, statistics.origin(name))
