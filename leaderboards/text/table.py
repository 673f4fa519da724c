"""The one table: boards write it as markdown within 120 columns and as LaTeX, reports as HTML and markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from tabulate import tabulate

from ..schema import Component, Interval, Row
from ..spec import NULLS
from . import latex
from .format import WIDTH, interval, name, outcome, shorten, squeeze, wrapped


@dataclass(frozen=True)
class Value:
    """What stands in a cell or a head.

    Attributes:
        text: in full.
        sort: what a number is sorted by; what has none comes last.
        numeric: whether it is a number, or stands where one is missing.
        code: whether it is a name of the program.
        strong: whether LaTeX sets it bold.
        narrow: as a board's markdown has it, where that is not `text`: cut, in italics, or with a footnote's number.
    """

    text: str
    sort: float | None = None
    numeric: bool = False
    code: bool = False
    narrow: str | None = None
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A caption (`code` and **strong** are marked so), heads and rows; `faint` rows recede."""

    caption: str
    headers: Sequence[Value]
    rows: Sequence[Sequence[Value]]
    faint: frozenset[int] = frozenset()

    @classmethod
    def of(
        cls,
        caption: str,
        headers: Iterable[Value | str],
        rows: Iterable[Iterable[Value | str]],
        faint: frozenset[int] = frozenset(),
    ) -> Table:
        """Return a table in which plain words may stand as they are."""
        return cls(caption, _values(headers), [_values(row) for row in rows], faint)

    @cached_property
    def numeric(self) -> frozenset[int]:
        """The columns of numbers."""
        return frozenset(column for row in self.rows for column, value in enumerate(row) if value.numeric)

    def columns(self, *places: int) -> Table:
        """Return the table of some columns."""
        headers = [self.headers[place] for place in places]
        return replace(self, headers=headers, rows=[[row[place] for place in places] for row in self.rows])

    def split(self, most: int) -> list[Table]:
        """Return tables of at most so many columns, each behind the first column; the first keeps the caption."""
        count = len(self.headers)
        return self._behind_first([range(at, min(at + most, count)) for at in range(1, count, most)])

    def fitted(self, width: int = WIDTH) -> list[Table]:
        """Return tables whose markdown is no wider, each behind the first column; the first keeps the caption."""
        cells = zip(self.headers, *self.rows, strict=True)
        first, *others = (3 + max(len(_narrow(value)) for value in column) for column in cells)
        parts: list[list[int]] = [[]]
        room = width - 1 - first
        for place, size in enumerate(others, start=1):
            if parts[-1] and size > room:
                parts.append([])
                room = width - 1 - first
            parts[-1].append(place)
            room -= size
        return self._behind_first(parts)

    def _behind_first(self, groups: Iterable[Iterable[int]]) -> list[Table]:
        tables = [self.columns(0, *group) for group in groups]
        return [*tables[:1], *(replace(table, caption="") for table in tables[1:])]

    def to_markdown(self) -> str:
        """Return the caption as a paragraph, if there is one, and the table below it."""
        headers, *body = ([_narrow(value).replace("|", "\\|") for value in row] for row in (self.headers, *self.rows))
        text = _pipes(headers, body)
        return f"{wrapped(self.caption)}\n\n{text}" if self.caption else text

    def to_latex(self, label: str) -> str:
        """Return a float with booktabs' rules that is made no wider than the text; many rows become several floats."""
        return latex.floats(
            self.caption,
            label,
            "".join("r" if place in self.numeric else "l" for place in range(len(self.headers))),
            latex.line([latex.escape(header.text) for header in self.headers]),
            [latex.line([_latex(value, at in self.faint) for value in row]) for at, row in enumerate(self.rows)],
        )


def _narrow(value: Value) -> str:
    return value.text if value.narrow is None else value.narrow


def _pipes(headers: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a markdown table; the air beside its heads goes where it would be wider than `WIDTH`."""
    pipe = partial(tabulate, tablefmt="pipe", disable_numparse=True, colalign=("left",) * len(headers))
    text = pipe(body, headers=headers)
    if len(text.partition("\n")[0]) <= WIDTH:
        return text
    rule, head, *rest = pipe([headers, *body]).split("\n")
    return "\n".join([head, rule, *rest])


def _values(values: Iterable[Value | str]) -> list[Value]:
    return [Value(value) if isinstance(value, str) else value for value in values]


def _latex(value: Value, faint: bool) -> str:
    if value.numeric:
        return latex.number(value.text, strong=value.strong)
    if not value.code:
        return latex.escape(value.text)
    code = latex.code(squeeze(value.text, latex.NAME))
    return rf"\textit{{{code}}}" if faint else code


def number(value: Interval | Component | None, *, sign: bool = False) -> Value:
    """Return a value with its interval."""
    return Value(interval(value, sign=sign), value["value"] if value else None, numeric=True)


def count(value: float | None, form: str = ",.0f") -> Value:
    """Return a number without an interval; a dash for what does not exist."""
    return Value("–" if value is None else format(value, form), value, numeric=True)


def score(row: Row, why: str = "") -> Value:
    """Return a row's S; where there is none, what came instead and `why`."""
    s = row["s_unlearning"]
    return number(s) if s else Value(outcome(row) + why, numeric=True)


def method(row: Row, mark: int | None = None) -> Value:
    """Return a row's name, with the number of its footnote."""
    return Value(row["variant"], code=True, narrow=name(row, mark))


def shortened(text: str, width: int, *, code: bool = False) -> Value:
    """Return a text that a narrow table cuts at its end."""
    return Value(text, code=code, narrow=shorten(text, width))


def squeezed(text: str, width: int) -> Value:
    """Return a text that a narrow table cuts in its middle."""
    return Value(text, narrow=squeeze(text, width))


def nulls(rows: Sequence[Row]) -> frozenset[int]:
    """Return the places of the rows in which nothing was unlearned."""
    return frozenset(place for place, row in enumerate(rows) if row["kind"] in NULLS)
