"""What `evaluate` says last: what each track shows, what was done at which cost, and where it is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from ...leaderboards.board import Board
from ...leaderboards.rows.verdicts import NOT_JUDGED, NOT_REPLICATED
from ...leaderboards.schema import Row, Verdict
from ..records import Printable

TABLES = 8
"""Tables whose verdicts are shown."""
NAMED = 6
"""Rows that a verdict names."""


@dataclass(frozen=True)
class RunSummary(Printable):
    """A run in at most 15 lines.

    Attributes:
        verdicts: what each track of each model shows, and whether the best method depends on it, a line each.
        cells: what the plan has; `finished` of them are done, `stored` were done before the run began.
        failed: cells that failed or have no value.
        warnings: those of the board's rows.
        seconds: from the start of the command, on the wall.
        core_seconds: of processors, in this process and its workers; None: not known.
        board, report: where they lie; `no_report` says why there is none.
        store: what `leaderboard` prints the board of.
    """

    suite: str
    verdicts: tuple[str, ...]
    cells: int
    finished: int
    stored: int
    failed: int
    warnings: int
    seconds: float
    core_seconds: float | None
    board: Path
    report: Path | None
    no_report: str | None
    store: Path

    def to_text(self) -> str:
        """Return it in words: verdicts first, the board and how to print it last."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield f"{self.suite}: what it shows"
        yield from (f"  {line}" for line in self.verdicts[:TABLES])
        if len(self.verdicts) > TABLES:
            yield f"  … and {len(self.verdicts) - TABLES} more on the board"
        left = self.cells - self.finished - self.failed
        unfinished = f", {left} not finished" if left > 0 else ""
        why = " (why: above, and in the report)" if self.failed else ""
        yield (
            f"Cells: {self.finished} of {self.cells} finished, {self.stored} of them before this run;"
            f" {self.failed} failed{why}{unfinished}."
        )
        cores = "" if self.core_seconds is None else f", {self.core_seconds:,.0f} core-seconds"
        yield f"Took {timedelta(seconds=round(self.seconds))}{cores}; {self.warnings} warnings on the board."
        yield f"Board: {self.board} and .json; `unlearn-bench leaderboard --output {self.store}` prints it."
        yield f"Report: {self.report}" if self.no_report is None else f"No report: {self.no_report}"


def verdict_lines(board: Board) -> tuple[str, ...]:
    """Return what each table of a board shows, and whether the best method depends on the goal, a line each."""
    several = len({row["model"] for row in board.rows}) > 1
    lines = []
    for verdict in board.verdicts:
        own = [row for row in board.rows if (row["model"], row["track"]) == (verdict["model"], verdict["track"])]
        shown = _shows(verdict, own, board.spec.compared(verdict["track"]))
        lines.append(f"{_where(verdict['model'], verdict['track'], several)}: {shown}")
    for goals in board.goals:
        lines.append(f"{_where(goals['model'], 'best method by goal', several)}: {goals['answer']}")
    return tuple(lines)


def _where(model: str, what: str, several: bool) -> str:
    return f"{model} · {what}" if several else what


def _shows(verdict: Verdict, rows: Sequence[Row], compared: str) -> str:
    """Return which rows of a table lie above base and noise; of methods it speaks where they are replicated."""
    unjudged = [reason for reason in verdict["others"].values() if reason.startswith(NOT_JUDGED)]
    if unjudged:
        return unjudged[0]
    ranked = [*verdict["winners"], *verdict["leads"], *verdict["others"]]
    spoken = any(row["speaks_of"] == "method" for row in rows if row["variant"] in ranked)
    points = "" if spoken else f"points, not methods: {NOT_REPLICATED}; "
    above = f"above {compared} and noise with utility kept"
    parts = [f"{_listed(verdict['winners'])} {above}"] if verdict["winners"] else []
    if verdict["leads"]:
        parts.append(f"{_listed(verdict['leads'])} {above}" + (f", {NOT_REPLICATED}" if spoken else ""))
    return points + ("; ".join(parts) or f"none of {len(ranked)} {above}")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
