"""How a board writes numbers, names and paragraphs: within 120 columns, missing values as words or a dash."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from ..schema import Component, Interval, RankInterval, Row
from ..spec import LOG, NULLS

WIDTH = 120
NAME = 22
"""Columns of a row's name; longer ones are cut and given in full below the table."""
NOTE = 5  # of these for a footnote's number


def wrapped(text: str, *, bullet: str = "", indent: str = "") -> str:
    """Wrap a paragraph or list item at 120 columns, never inside a word."""
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=bullet,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def bullets(texts: Iterable[str]) -> str:
    """Return a markdown list of wrapped items."""
    return "\n".join(wrapped(text, bullet="- ", indent="  ") for text in texts)


def name(row: Row, mark: int | None = None) -> str:
    """Return a row's name within `NAME` columns: null rows in italics, a footnote's number behind it."""
    text = row["variant"] if fits(row) else shorten(row["variant"], NAME - NOTE - _decoration(row))
    text = f"*{text}*" if _null(row) else text
    return f"{text} ({mark})" if mark else text


def _null(row: Row) -> bool:
    return row["kind"] in NULLS


def _decoration(row: Row) -> int:
    return 2 * _null(row) + row["variant"].count("|")


def fits(row: Row) -> bool:
    """Tell whether a row's name stands uncut in a table."""
    return len(row["variant"]) + _decoration(row) + (NOTE if row["warnings"] else 0) <= NAME


def outcome(row: Row) -> str:
    """Return what stands in place of a value."""
    if row["broken"] is not None:
        return "broken"
    if row["method"] == LOG:
        return "not stored"
    return "failed" if row["status"] == "failed" else "not run yet"


def rank(value: RankInterval | None) -> str:
    """Return `2` or `1-3`, a dash where a row is not ranked."""
    if value is None:
        return "–"
    return str(value["low"]) if value["low"] == value["high"] else f"{value['low']}-{value['high']}"


def seeds(row: Row) -> str:
    """Return the number of finished seeds, `2 of 3` where some are lacking, a dash where nothing was trained.

    Behind it stand the smallest and the largest S of a seed.
    """
    count = str(len(row["seeds"])) if row["seeds"] else "–"
    if row["finished"] < row["planned"]:
        count = f"{row['finished']} of {row['planned']}"
    ends = row["seed_range"]
    return f"{count}: {ends[0]:.3f} to {ends[1]:.3f}" if ends else count


def utility(row: Row) -> str:
    """Return whether utility is `kept` or `lost`; else how far it may lie below base: `> -0.063`."""
    kept = row["utility"]
    if kept is None:
        return "–"
    return "kept" if kept["kept"] else "lost" if kept["lost"] else f"> {kept['low']:.3f}"


def interval(value: Interval | Component | None, *, sign: bool = False) -> str:
    """Return `0.412 [0.380, 0.445]`; differences carry their sign; a dash for what does not exist."""
    if value is None:
        return "–"
    text = f"{value['value'] + 0.0:{'+' if sign else ''}.3f}"
    if value["low"] is None or value["high"] is None:
        return f"{text} [no interval]"
    return f"{text} [{value['low']:.3f}, {value['high']:.3f}]"


def shorten(text: str, width: int) -> str:
    """Return a text within a width, cut text ending in `…`."""
    return text if len(text) <= width else text[: width - 1] + "…"


def squeeze(text: str, width: int) -> str:
    """Return a text within a width, cut in its middle: names of tasks differ at both ends."""
    tail = (width - 1) // 2
    return text if len(text) <= width else f"{text[: width - 1 - tail]}…{text[-tail:]}"
