"""What stands beside the main table: other tracks, strata, a topic's neighbours, control tasks, published values."""

from __future__ import annotations

from collections.abc import Sequence

from ..rows.row_warnings import at_chance
from ..schema import Alpha, Component, Goals, Row
from ..spec import BoardSpec
from .format import NAME, interval, name, outcome, shorten, squeeze, table
from .legend import wrapped

HEADER = 18


STRATA = 3
"""Strata side by side in a table."""


def cross_table(rows: Sequence[Row]) -> str | None:
    """Return what unlearning on one track did to the forget task of another, or None where nothing was measured."""
    body = [
        (name(row), shorten(row["track"], 16), squeeze(part["task"], 16), *_against_base(part))
        for row in rows
        if row["kind"] != "base"
        for part in row["cross"]
    ]
    return table(("method", "track", "task", "value", "Δ base"), body) if body else None


def _against_base(part: Component) -> tuple[str, str]:
    return interval(part), interval(part["delta_base"], sign=True)


def strata_tables(rows: Sequence[Row]) -> list[str]:
    """Return the forget metric in each stratum with its interval; nothing where the task has one stratum, or many."""
    parts = [(row, row["forget"]) for row in rows if row["forget"] and row["forget"]["strata_intervals"]]
    if not parts:
        return []
    task, metric = parts[0][1]["task"], parts[0][1]["metric"]
    strata = sorted({stratum for _, part in parts for stratum in part["strata_intervals"]})
    blocks = [wrapped(f"**By stratum.** The forget task ({task}, {metric}), each stratum alone.")]
    for first in range(0, len(strata), STRATA):
        shown = strata[first : first + STRATA]
        body = [(name(row), *(interval(part["strata_intervals"].get(s)) for s in shown)) for row, part in parts]
        blocks.append(table(("method", *(squeeze(stratum, HEADER) for stratum in shown)), body))
    return blocks


def control_tables(spec: BoardSpec, rows: Sequence[Row]) -> list[str]:
    """Return what the control tasks show, and where they are at chance."""
    found = [(row, part) for row in rows for part in row["controls"]]
    tasks = list(dict.fromkeys(part["task"] for _, part in found))
    if not tasks:
        return []
    found.sort(key=lambda pair: tasks.index(pair[1]["task"]))
    body = [
        (name(row), squeeze(part["task"], 20), shorten(part["metric"], 13), *_against_base(part)) for row, part in found
    ]
    blocks = [
        wrapped(f"**Control tasks** ({', '.join(tasks)}) have no say in S, rank or verdict."),
        table(("method", "task", "metric", "value", "Δ base"), body),
    ]
    low = {
        task: [row for row, part in found if part["task"] == task and at_chance(spec, part)]
        for task in tasks
        if spec.tasks[task].chance > 0
    }
    notes = [_at_chance(task, spec.tasks[task].chance, at) for task, at in low.items() if at]
    return [*blocks, "\n".join(notes)] if notes else blocks


def _at_chance(task: str, chance: float, rows: Sequence[Row]) -> str:
    names = ", ".join(f"`{row['variant']}`" for row in rows)
    base = (
        "; base has nothing to lose there, so the task shows nothing" if any(r["kind"] == "base" for r in rows) else ""
    )
    return wrapped(f"{task}: at chance ({chance:g}) or below: {names}{base}.", bullet="- ", indent="  ")


def published_table(spec: BoardSpec, rows: Sequence[Row]) -> list[str]:
    """Return S and alpha beside what was published for the same model and track, or nothing where nothing was."""
    shown = [
        row
        for row in rows
        if row["published"] is not None or (row["alpha"] is not None and row["alpha"]["published"] is not None)
    ]
    if spec.published is None or not shown:
        return []
    body = [
        (
            name(row),
            interval(row["s_unlearning"]) if row["s_unlearning"] else outcome(row),
            "–" if row["published"] is None else f"{row['published']:.2f}",
            shorten(alphas(row["alpha"]), NAME),
            "–" if row["alpha"] is None or row["alpha"]["published"] is None else f"{row['alpha']['published']:g}",
        )
        for row in shown
    ]
    lead = (
        f"**Beside the published values** of {spec.published.source}. Those have no intervals and no seeds, their "
        "shots and decoding are unknown: a difference from them is no finding by itself."
    )
    headers = ("method", "S here", "S published", "final alpha here", "alpha published")
    return [wrapped(lead), table(headers, body)]


def alphas(alpha: Alpha | None) -> str:
    """Return the final alpha of each seed, from four seeds on their mean and range."""
    values = alpha["values"] if alpha else []
    if len(values) < 4:
        return ", ".join(f"{value:.3g}" for value in values) or "–"
    return f"{sum(values) / len(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def selectivity_table(rows: Sequence[Row]) -> list[str]:
    """Return utility next to the forget topic against the rest, or nothing where the suite names no such subjects."""
    found = [(row, row["selectivity"]) for row in rows if row["selectivity"]]
    if not found:
        return []
    first = found[0][1]
    lead = (
        f"**Selectivity.** What {first['task']} lost against base on the subjects next to the forget topic "
        f"({', '.join(first['neighbours'])}) and on the others. A gap below zero: the topic's neighbours lost more."
    )
    body = [
        (name(row), *(interval(part[key], sign=True) for key in ("near_delta", "rest_delta", "gap")))
        for row, part in found
        if row["kind"] != "base"
    ]
    return [wrapped(lead), table(("method", "Δ next to it", "Δ rest", "gap"), body)] if body else []


def goals_table(goals: Goals) -> list[str]:
    """Return S of every method by track, and whether the best method depends on the track."""
    tracks = goals["tracks"]
    blocks = []
    for first in range(0, len(tracks), STRATA):
        shown = tracks[first : first + STRATA]
        body = [(shorten(variant, NAME), *(interval(s[track]) for track in shown)) for variant, s in goals["s"].items()]
        blocks.append(table(("method", *(shorten(f"S: {track}", HEADER) for track in shown)), body))
    return [*blocks, wrapped(f"**Goal.** {goals['sentence']}")]


NARROW = 12


def stress_tables(spec: BoardSpec, rows: Sequence[Row]) -> list[str]:
    """Return the rows of a track under every stress, and why a share is missing."""
    found = [(stress, row, row["stress"][stress]) for stress in spec.stress for row in rows if stress in row["stress"]]
    if not found:
        return []
    what = "; ".join(f"{stress}: {words}" for stress, words in spec.stress.items())
    lead = (
        f"**After stress.** {what}. What remains is the forgetting after it as a share of that before, each against "
        "base put through the same: 1 all, 0 none; its interval stands for itself. No say in S or rank."
    )
    body = [
        (
            name(row),
            squeeze(stress, NARROW),
            interval(part["forget"]),
            interval(part["retain"]),
            interval(part["remaining"]),
        )
        for stress, row, part in found
    ]
    notes: dict[tuple[str, str], list[str]] = {}
    for stress, row, part in found:
        if part["note"]:
            notes.setdefault((stress, part["note"]), []).append(f"`{row['variant']}`")
    lines = [f"{stress}, {', '.join(variants)}: {note}." for (stress, note), variants in notes.items()]
    return [
        wrapped(lead),
        table(("method", "stress", "forget", "retain", "remains"), body),
        *(["\n".join(wrapped(line, bullet="- ", indent="  ") for line in lines)] if lines else []),
    ]


def stress_details(rows: Sequence[Row]) -> str | None:
    """Return S after each stress and how it differs from base after the same."""
    body = [
        (name(row), squeeze(stress, NARROW), interval(part["s_unlearning"]), interval(part["s_delta_base"], sign=True))
        for row in rows
        for stress, part in row["stress"].items()
        if part["finished"]
    ]
    lead = "S after each stress, and less that of base after the same (paired)."
    return f"{lead}\n\n" + table(("method", "stress", "S", "Δ base"), body) if body else None
