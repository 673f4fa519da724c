"""A board as markdown: a table a (model, track) with its verdict and footnotes, cross-effects, how to read, facts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from ..schema import Row
from .footnotes import at_decoding, footnotes, note_numbers
from .format import interval, name, outcome, rank, seeds, shorten, table
from .legend import components_line, facts, how_to_read, wrapped
from .tables import (
    HEADER,
    control_tables,
    cross_table,
    goals_table,
    published_table,
    selectivity_table,
    strata_tables,
    stress_tables,
)

if TYPE_CHECKING:
    from ..board import Board


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
        if at_decoding(rows):
            blocks.append(wrapped(at_decoding(rows)))
        blocks += [*strata_tables(rows), *selectivity_table(rows)]
        blocks += [*control_tables(spec, rows), *stress_tables(spec, rows), *published_table(spec, rows)]
    for model, group in groupby(board.rows, key=lambda row: row["model"]):
        cross = cross_table(list(group))
        if cross:
            blocks.append(f"## {model} · effect on the other track")
            blocks.append(cross)
    for goals in board.goals:
        blocks.append(f"## {goals['model']} · does the best method depend on the goal?")
        blocks += goals_table(goals)
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
    numbers = note_numbers(rows)
    return table(
        ("rank", "method", "S", "Δ base", "Δ noise"),
        [
            (
                rank(row["rank"]),
                name(row, mark=numbers.get(row["variant"])),
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
