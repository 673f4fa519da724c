"""What a plan reads from outside: a real plan stops at the first thing out of reach, a sketch notes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from pathlib import Path
from typing import TypeVar

from ..data import Rows, ask_hub_again, load_rows
from ..errors import DataError, UserError
from ..specs import RowSpec
from ..suite import SourceSpec

T = TypeVar("T")


class SourceReader:
    """What a plan reads from outside: a real plan stops at the first thing out of reach, a sketch notes it.

    Attributes:
        lenient: whether to go on.
        missing: what could not be reached and what to do.
    """

    def __init__(self, lenient: bool = False) -> None:
        self.lenient = lenient
        self.missing: list[str] = []
        self._read: dict[tuple[SourceSpec, Path | None, type[RowSpec] | None], Rows | UserError] = {}
        ask_hub_again()

    def __call__(self, read: Callable[[], T], instead: T) -> T:
        """Return what `read` returns, in a sketch `instead` where something is out of reach; damaged data stop both."""
        try:
            return read()
        except UserError as error:
            if not self.lenient or isinstance(error, DataError):
                raise
            self.missing.append(str(error))
            return instead

    def strict(self) -> SourceReader:
        """Return a reader that stops at what is out of reach, and has read what this one has."""
        reader = copy(self)
        reader.lenient = False
        return reader

    def rows(self, source: SourceSpec, folder: Path | None, schema: type[RowSpec] | None = None) -> Rows:
        """Return a source's rows as `load_rows` does; one that was out of reach is not asked for again."""
        key = source, folder, schema
        if key not in self._read:
            try:
                self._read[key] = load_rows(source, folder, schema)
            except UserError as error:
                self._read[key] = error
        rows = self._read[key]
        if isinstance(rows, UserError):
            raise rows
        return rows

    def below(self, folder: Path | None) -> Callable[[SourceSpec, type[RowSpec]], Rows]:
        """Return what reads the rows of sources of one folder, as `rows` does."""
        return lambda source, schema: self.rows(source, folder, schema)

    def notes(self, sources: Iterable[SourceSpec]) -> Iterator[str]:
        """Give what those of the sources that were read say of themselves."""
        wanted = set(sources)
        for (source, *_), rows in self._read.items():
            if source in wanted and isinstance(rows, Rows) and rows.note:
                yield rows.note
