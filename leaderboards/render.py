"""A board as markdown: a table a (model, track) with its verdict and footnotes, cross-effects, how to read, facts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from tabulate import tabulate

from .doubts import at_chance
from .explain import components_line, facts, how_to_read, wrapped
from .inputs import BoardSpec
from .schema import Alpha, Component, Interval, RankInterval, Row

if TYPE_CHECKING:
    from .board import Board

NAME = 28  # columns of a row's name; longer ones are cut and given in full below the table
NOTE = 5  # of these for a footnote's number
HEADER = 18
STRATA = 3  # strata side by side in a table


def to_markdown(board: Board) -> str:
    """Return the default view of a board, its tables within 120 columns."""
    spec = board.spec
    blocks = [f"# Leaderboard: {spec.suite} (revision {spec.revision})"]
    if spec.description:
        blocks.append(wrapped(spec.description))
    sentences = {(verdict["model"], verdict["track"]): verdict["sentence"] for verdict in board.verdicts}
    for (model, track), rows in tables(board):
        blocks.append(f"## {model} · {track}")
        blocks.append(main_table(rows))
        blocks.append(component_table(rows))
        blocks.append(wrapped(components_line(spec, track)))
        if (model, track) in sentences:
            blocks.append(wrapped(f"**Verdict.** {sentences[model, track]}"))
        notes = footnotes(rows)
        if notes:
            blocks.append(notes)
        blocks += [*strata_tables(rows), *control_tables(spec, rows), *published_table(spec, rows)]
    for model, group in groupby(board.rows, key=lambda row: row["model"]):
        cross = cross_table(list(group))
        if cross:
            blocks.append(f"## {model} · effect on the other track")
            blocks.append(cross)
    blocks.append("## How to read this")
    blocks.append(how_to_read(spec, board.rows))
    blocks.append("## Facts")
    blocks.append(facts(spec, board.rows))
    return "\n\n".join(blocks) + "\n"


def tables(board: Board) -> Iterator[tuple[tuple[str, str], list[Row]]]:
    """Yield (model, track) with its rows, in the order of the board."""
    for key, group in groupby(board.rows, key=lambda row: (row["model"], row["track"])):
        yield key, list(group)


def main_table(rows: Sequence[Row]) -> str:
    """Return rank, S and its differences from base and noise. Base and noise are in italics and not ranked."""
    return table(
        ("rank", "method", "S", "Δ base", "Δ noise"),
        [
            (
                rank(row["rank"]),
                name(row, mark=note_number(rows, row)),
                interval(row["s_unlearning"]) if row["s_unlearning"] else outcome(row),
                interval(row["delta_base"], sign=True),
                interval(row["delta_noise"], sign=True),
            )
            for row in rows
        ],
    )


def component_table(rows: Sequence[Row]) -> str:
    """Return the forget and retain metrics with intervals, and counts of items and training seeds."""
    first = next((row for row in rows if row["forget"] and row["retain"]), None)
    if first is None or first["forget"] is None or first["retain"] is None:
        return "_No row has been measured._"
    headers = (
        "method",
        shorten(f"forget: {first['forget']['task']}", HEADER),
        shorten(f"retain: {first['retain']['task']}", HEADER),
        "n",
        "missing",
        "seeds",
    )
    body = []
    for row in rows:
        pair = (row["forget"], row["retain"])
        counts = " / ".join(str(part["n"]) if part else "–" for part in pair)
        missing = " / ".join(str(part["missing"]) if part else "–" for part in pair)
        body.append((name(row), *(interval(part) for part in pair), counts, missing, seeds(row)))
    return table(headers, body)


def cross_table(rows: Sequence[Row]) -> str | None:
    """Return what unlearning on one track did to the forget task of another, or None where nothing was measured."""
    body = [
        (
            name(row),
            shorten(row["track"], 16),
            squeeze(part["task"], 16),
            interval(part),
            interval(part["delta_base"], sign=True),
        )
        for row in rows
        if row["kind"] != "base"
        for part in row["cross"]
    ]
    return table(("method", "track", "task", "value", "Δ base"), body) if body else None


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
        (
            name(row),
            squeeze(part["task"], 20),
            shorten(part["metric"], 13),
            interval(part),
            interval(part["delta_base"], sign=True),
        )
        for row, part in found
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


def footnotes(rows: Sequence[Row]) -> str:
    """Return the warnings of the rows in words, numbered as in the table, and names that were cut there."""
    lines = []
    for row in rows:
        number = note_number(rows, row)
        if number:
            texts = [*([] if _fits(row) else ["name cut in the table"]), *row["warnings"]]
            lines.append(wrapped(f"({number}) `{row['variant']}`: {'; '.join(texts)}.", bullet="- ", indent="  "))
    return "\n".join(lines)


def note_number(rows: Sequence[Row], row: Row) -> int | None:
    """Return the number of a row's footnote, None where it has none."""
    noted = [other["variant"] for other in rows if other["warnings"] or not _fits(other)]
    return noted.index(row["variant"]) + 1 if row["variant"] in noted else None


def table(headers: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a markdown table of ready strings."""
    return tabulate(body, headers=headers, tablefmt="pipe", disable_numparse=True, colalign=("left",) * len(headers))


def name(row: Row, mark: int | None = None) -> str:
    """Return a row's name within `NAME` columns: null rows in italics, a footnote's number behind it."""
    text = row["variant"] if _fits(row) else shorten(row["variant"], NAME - NOTE - _decoration(row))
    text = text.replace("|", "\\|")
    text = f"*{text}*" if _null(row) else text
    return f"{text} ({mark})" if mark else text


def _null(row: Row) -> bool:
    return row["kind"] in ("base", "noise")


def _decoration(row: Row) -> int:
    return 2 * _null(row) + row["variant"].count("|")


def _fits(row: Row) -> bool:
    return len(row["variant"]) + _decoration(row) + (NOTE if row["warnings"] else 0) <= NAME


def outcome(row: Row) -> str:
    """Return what stands in place of a value."""
    return "failed" if row["status"] == "failed" else "not run yet"


def rank(value: RankInterval | None) -> str:
    """Return `2` or `1-3`, a dash where a row is not ranked."""
    if value is None:
        return "–"
    return str(value["low"]) if value["low"] == value["high"] else f"{value['low']}-{value['high']}"


def seeds(row: Row) -> str:
    """Return the number of finished seeds, `2 of 3` where some are lacking, a dash where nothing was trained."""
    if row["finished"] < row["planned"]:
        return f"{row['finished']} of {row['planned']}"
    return str(len(row["seeds"])) if row["seeds"] else "–"


def interval(value: Interval | Component | None, *, sign: bool = False) -> str:
    """Return `0.412 [0.380, 0.445]`; differences carry their sign; a dash for what does not exist."""
    if value is None:
        return "–"
    text = f"{value['value'] + 0.0:{'+' if sign else ''}.3f}"
    if value["low"] is None or value["high"] is None:
        return f"{text} [no interval]"
    return f"{text} [{value['low']:.3f}, {value['high']:.3f}]".replace("-0.000", "0.000")


def shorten(text: str, width: int) -> str:
    """Return a text within a width, cut text ending in `…`."""
    return text if len(text) <= width else text[: width - 1] + "…"


def squeeze(text: str, width: int) -> str:
    """Return a text within a width, cut in its middle: names of tasks differ at both ends."""
    tail = (width - 1) // 2
    return text if len(text) <= width else f"{text[: width - 1 - tail]}…{text[-tail:]}"
