"""The tables of a report: those of its boards, with what a page has room for, and those of the cells of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..leaderboards.board import Board
from ..leaderboards.rows.verdicts import NOT_REPLICATED
from ..leaderboards.schema import Frontier, Row
from ..leaderboards.spec import BoardSpec
from ..leaderboards.text import tables as boards
from ..leaderboards.text.table import Table, Value, count, method, number
from .data import Cell, Run


def _code(text: str) -> Value:
    return Value(text, code=True)


def claims(board: Board) -> Table:
    """Return what is shown of every ranked row, and how sure it is: the board's verdicts and what they go by."""
    rows = {(row["model"], row["track"], row["variant"]): row for row in board.rows}
    several = len({row["model"] for row in board.rows}) > 1
    body = []
    for verdict in board.verdicts:
        base = board.spec.compared(verdict["track"])
        reasons = {
            **dict.fromkeys(verdict["winners"], f"beats {base} and its noise, utility kept"),
            **dict.fromkeys(verdict["leads"], f"lies above {base} and its noise, utility kept; {NOT_REPLICATED}"),
            **verdict["others"],
        }
        for variant, reason in reasons.items():
            row = rows[verdict["model"], verdict["track"], variant]
            together = row["claims"] or {"base": None, "noise": None}
            body.append(
                (
                    f"{verdict['model']} · {verdict['track']}" if several else verdict["track"],
                    method(row),
                    ("✓ " if variant in verdict["winners"] else "") + reason,
                    number(together["base"], sign=True),
                    number(together["noise"], sign=True),
                    _speaks_of(row),
                )
            )
    caption = (
        f"What is claimed, and what it goes by: intervals of S that hold for all rows of a table at "
        f"{board.spec.confidence:.0%}. That a row falls below is told by its own interval, in the leaderboard, which "
        "is narrower."
    )
    compared = board.spec.compared(*(verdict["track"] for verdict in board.verdicts))
    headers = ("board", "method", "what is shown", f"S less {compared}", "S less its noise", "speaks of")
    return Table.of(caption, headers, body)


def _speaks_of(row: Row) -> str:
    seeds = len(row["seeds"])
    if not row["finished"]:
        return "–"
    if row["speaks_of"] == "method":
        return f"the method ({seeds} seeds)"
    return "this checkpoint (1 seed)" if seeds == 1 else "this checkpoint" if not seeds else f"{seeds} checkpoints"


def failures(run: Run) -> Table:
    """Return the cells that failed or were not run, with the cause."""
    body = [
        (cell.model, _code(cell.label), cell.state, cell.cause or "not run yet")
        for cell in run.cells
        if cell.state != "finished"
    ]
    return Table.of("Cells without all their numbers.", ("model", "cell", "state", "cause"), body)


def board(spec: BoardSpec, rows: Sequence[Row], cells: Sequence[Cell]) -> Table:
    """Return the board of a model and track, its two tables as one; a row that failed says why."""
    causes = {cell.id: cell.cause for cell in cells if cell.cause}
    compared = spec.compared(rows[0]["track"])
    main = boards.main_table(rows, causes, compared)
    parts = boards.component_table(spec, rows)
    caption = (
        f"{rows[0]['model']}, {rows[0]['track']}: S-unlearning with {spec.confidence:.0%} intervals, less that of "
        f"{compared} and of noise of the row's own norm; base is not ranked. ↓ less means more forgotten, ↑ more is "
        "better."
    )
    body = [[*row, *part[1:]] for row, part in zip(main.rows, parts.rows, strict=True)]
    return Table(caption, [*main.headers, *parts.headers[1:]], body, main.faint)


def published(spec: BoardSpec, rows: Sequence[Row]) -> Table:
    """Return S and alpha beside what was published."""
    caption = "Ours with intervals; published values are marked so and have none."
    return replace(boards.published_table(spec, rows), caption=caption)


def frontier(found: Frontier, spec: BoardSpec) -> Iterator[Table]:
    """Yield what each swept method forgets at equal utility, and how far they stand apart."""
    compared = spec.compared(found["track"])
    caption = (
        f"Forgetting (Ubar) on each frontier where {found['tolerance']:g} of the retain metric is lost against "
        f"{compared}, with {spec.confidence:.0%} intervals; noise of each setting's norm stands beside."
    )
    yield replace(boards.frontier_table(found, compared), caption=caption)
    caption = f"How much more one forgets there than another; the intervals hold together at {spec.confidence:.0%}."
    yield replace(boards.gains_table(found), caption=caption)


def beside(rows: Sequence[Row], compared: str) -> Iterator[Table]:
    """Yield the tables beside a board: what is relative to base, strata, selectivity, controls; some are empty."""
    relative = boards.beside_table(rows, compared)
    yield replace(relative, caption=f"Beside S: {relative.caption.partition('** ')[2]}")
    task = next((row["forget"]["task"] for row in rows if row["forget"]), "")
    yield replace(boards.strata_table(rows), caption=f"The forget task ({task}) by stratum.")
    task = next((row["selectivity"]["task"] for row in rows if row["selectivity"]), "")
    caption = (
        f"Selectivity: what {task} lost against {compared} on the subjects next to the forget topic and on the others. "
        "A gap below zero: the topic's neighbours lost more."
    )
    yield replace(boards.selectivity_table(rows), caption=caption)
    yield replace(boards.control_table(rows, compared), caption="Control tasks: no say in S, rank or verdict.")


def costs(cells: Sequence[Cell]) -> Table:
    """Return time, memory and bytes of the making and of each measurement of every cell."""
    gpu = any(cost.gpu_memory is not None for cell in cells for cost in cell.costs)
    body = [
        (
            _code(cell.label),
            cost.what,
            count(cost.seconds, ",.1f"),
            count(cost.memory),
            *([count(cost.gpu_memory)] if gpu else []),
            count(cost.bytes / 1024),
        )
        for cell in cells
        for cost in cell.costs
    ]
    headers = ("cell", "what", "seconds", "peak memory, MiB", *(["peak GPU memory, MiB"] if gpu else []), "kept, KiB")
    caption = (
        "As recorded when it ran. The peak is that of the worker process until then, which other cells may have set; "
        "seconds include waiting for processors that others used."
    )
    return Table.of(caption, headers, body)


def provenance(cells: Sequence[Cell]) -> Table:
    """Return ids, digests and settings of all cells."""
    body = [(cell.model, *map(_code, (cell.label, cell.id, (cell.delta or "–")[:16], cell.settings))) for cell in cells]
    return Table.of(
        "Cells: what they are, and what came out.", ("model", "cell", "id", "delta sha256", "settings"), body
    )
