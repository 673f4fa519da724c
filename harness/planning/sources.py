"""What a plan reads from outside: a real plan stops at the first thing out of reach, a sketch notes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from ..data import Rows, load_rows
from ..errors import UserError
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
        self._read: dict[SourceSpec, Rows | UserError] = {}

    def __call__(self, read: Callable[[], T], instead: T) -> T:
        """Return what `read` returns, in a sketch `instead` where it raises a `UserError`."""
        try:
            return read()
        except UserError as error:
            if not self.lenient:
                raise
            self.missing.append(str(error))
            return instead

    def rows(self, source: SourceSpec, folder: Path | None) -> Rows:
        """Return a source's rows as `load_rows` does; one that was out of reach is not asked for again."""
        if source not in self._read:
            try:
                self._read[source] = load_rows(source, folder)
            except UserError as error:
                self._read[source] = error
        rows = self._read[source]
        if isinstance(rows, UserError):
            raise rows
        return rows

    def notes(self, sources: Iterable[SourceSpec]) -> Iterator[str]:
        """Give what those of the sources that were read say of themselves."""
        for source in sources:
            rows = self._read.get(source)
            if isinstance(rows, Rows) and rows.note:
                yield rows.note
