"""A board as markdown: a table a (model, track) with its verdict and footnotes, cross-effects, how to read, facts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from ..rows.frontier import reading
from ..rows.row_warnings import at_chance
from ..schema import BoardData, Frontier, Row
from ..spec import BoardSpec
from . import composites, tables
from .footnotes import at_decoding, footnotes
from .format import bullets, wrapped
from .legend import components_line, facts, how_to_read, points_only

STRATA = 3
"""Strata, or tracks, side by side in a table."""


def to_markdown(board: BoardData) -> str:
    """Return the default view of a board, its tables within 120 columns."""
    spec = board.spec
    blocks = [f"# Leaderboard: {spec.suite} (revision {spec.revision})"]
    if spec.description:
        blocks.append(wrapped(spec.description))
    sentences = board.sentences()
    for (model, track), rows in board.tables():
        measured = any(row["forget"] and row["retain"] for row in rows)
        points = " (points, not methods)" if measured and points_only(rows) else ""
        blocks.append(f"## {model} · {track}{points}")
        blocks.append(tables.main_table(rows, compared=spec.tracks[track].compared).to_markdown())
        blocks.append(tables.component_table(spec, rows).to_markdown() if measured else "_No row has been measured._")
        blocks.append(bullets(tables.broken_rows(rows, numbered=True)))
        if (model, track) in sentences:
            blocks.append(wrapped(f"**Verdict.** {sentences[model, track]}"))
        blocks += [footnotes(rows), wrapped(at_decoding(rows))]
    for goals in board.goals:
        blocks.append(f"## {goals['model']} · does the best method depend on the goal?")
        blocks += [table.to_markdown() for table in tables.goals_table(goals).split(STRATA)]
        blocks.append(wrapped(f"**Goal.** {goals['sentence']}"))
    for frontier in board.frontiers:
        blocks += [f"## {frontier['model']} · {frontier['track']} · at equal utility", *_frontier(spec, frontier)]
    for (model, track), rows in board.tables():
        blocks += [f"## {model} · {track} · beside S", wrapped(components_line(spec, track)), *_beside(spec, rows)]
        blocks += _composites(board, model, track, rows)
    for model, group in groupby(board.rows, key=lambda row: row["model"]):
        cross = tables.cross_table(spec, list(group))
        if cross.rows:
            blocks += [f"## {model} · effect on the other track", replace(cross, caption="").to_markdown()]
    blocks += ["## How to read this", bullets(how_to_read(spec, board.rows))]
    blocks += ["## Facts", bullets(facts(spec, board.rows))]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _frontier(spec: BoardSpec, frontier: Frontier) -> Iterator[str]:
    compared = spec.compared(frontier["track"])
    gains = tables.gains_table(frontier)
    yield wrapped(reading(frontier, compared))
    yield tables.frontier_table(frontier, compared).to_markdown()
    yield gains.to_markdown() if gains.rows else ""
    yield wrapped(frontier["sentence"])


def _composites(board: BoardData, model: str, track: str, rows: Sequence[Row]) -> Iterator[str]:
    for table in board.composites:
        if (table["model"], table["track"]) == (model, track):
            whole = composites.composite_table(board.spec, rows, table)
            yield from (part.to_markdown() for part in whole.fitted())
            yield bullets(composites.composite_notes(table))


def _beside(spec: BoardSpec, rows: Sequence[Row]) -> Iterator[str]:
    """Yield what stands beside the verdict of a (model, track); empty where there is nothing."""
    compared = spec.compared(rows[0]["track"])
    beside = tables.beside_table(rows, compared)
    if beside.rows:
        yield beside.to_markdown()
    strata, selectivity = tables.strata_table(rows), tables.selectivity_table(rows, compared)
    controls, stress = tables.control_table(rows, compared), tables.stress_table(spec, rows)
    published = tables.published_table(spec, rows)
    if strata.rows:
        yield from (table.to_markdown() for table in strata.split(STRATA))
    if selectivity.rows:
        yield selectivity.to_markdown()
    if controls.rows:
        tasks = list(dict.fromkeys(row[1].text for row in controls.rows))
        by_task = sorted(controls.rows, key=lambda row: tasks.index(row[1].text))
        yield replace(controls, rows=by_task).to_markdown()
        yield bullets(_at_chance(spec, rows, tasks))
    if stress.rows:
        yield stress.to_markdown()
        yield bullets(_stress_notes(spec, rows))
    if published.rows:
        yield published.columns(*range(1, 6)).to_markdown()


def _at_chance(spec: BoardSpec, rows: Sequence[Row], tasks: Sequence[str]) -> Iterator[str]:
    for task in tasks:
        chance = spec.tasks[task].chance
        low = [row for row in rows for part in row["controls"] if part["task"] == task and at_chance(spec, part)]
        if chance > 0 and low:
            names = ", ".join(f"`{row['variant']}`" for row in low)
            compared = spec.compared(rows[0]["track"])
            nothing = f"; {compared} has nothing to lose there, so the task shows nothing"
            base = nothing if any(row["variant"] == compared for row in low) else ""
            yield f"{task}: at chance ({chance:g}) or below: {names}{base}."


def _stress_notes(spec: BoardSpec, rows: Sequence[Row]) -> list[str]:
    """Return why shares are missing."""
    notes: dict[tuple[str, str], list[str]] = {}
    for stress in spec.stress:
        for row in rows:
            if stress in row["stress"] and row["stress"][stress]["note"]:
                notes.setdefault((stress, row["stress"][stress]["note"]), []).append(f"`{row['variant']}`")
    return [f"{stress}, {', '.join(variants)}: {note}." for (stress, note), variants in notes.items()]
