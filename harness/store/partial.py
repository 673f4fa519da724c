"""What an interrupted job leaves beside the entry that it was making, so that the next one goes on from there.

It counts only where its bytes have the sha256 that its sealed note names, and where it was made with the same
versions, processor and kernels; any other is as good as absent. Finishing the entry removes them (`Entry.commit`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..errors import UserError
from .entries import PARTIAL_RESULT, Entry
from .files import atomic, file_sha256, read_jsonl, read_sealed, write_jsonl, write_sealed

T = TypeVar("T")


class PartialResults:
    """Partial results of one stage of an unfinished entry, by number, from which an interrupted job is resumed.

    Args:
        entry: it is claimed by this process.
        stage: what they are partial results of.
        maker: what must be the same for one to be gone on from.
    """

    def __init__(self, entry: Entry, stage: str, maker: Mapping[str, Any]) -> None:
        self.entry, self.stage, self.maker = entry, stage, dict(maker)

    def keep(self, number: int, write: Callable[[Path], Any], **facts: Any) -> None:
        """Write one, then its note with the facts; it counts from then on."""
        self.entry.make()
        with atomic(self._file(number)) as staged:
            write(staged)
            sha256 = file_sha256(staged)
        write_sealed(self._note(number), {"sha256": sha256, "maker": self.maker, "facts": facts})

    def get(self, number: int) -> tuple[Path, dict[str, Any]] | None:
        """Return the file and facts of one, None where it does not count."""
        try:
            note = read_sealed(self._note(number))
            if note["maker"] == self.maker and file_sha256(self._file(number)) == note["sha256"]:
                return self._file(number), note["facts"]
        except (UserError, OSError, KeyError):
            pass
        return None

    def last(self) -> tuple[Path, dict[str, Any]] | None:
        """Return the file and facts of the one with the highest number of those that count."""
        return next(filter(None, map(self.get, sorted(self._numbers(), reverse=True))), None)

    def rows(
        self, things: Sequence[T], size: int, make: Callable[[Sequence[T]], list[Any]], skip: Callable[[int], None]
    ) -> tuple[list[Any], float]:
        """Make JSON rows of things, `size` at a time; where that takes several turns, those of each are kept.

        Args:
            skip: told how many things are made already.

        Returns:
            The rows of all things, and the seconds that it took to make those that were there.
        """
        rows, before = [], 0.0
        for start in range(0, len(things), size):
            part = things[start : start + size]
            if (result := self.get(start)) is not None:
                path, facts = result
                made = read_jsonl(path)
                before += facts["seconds"]
                skip(len(part))
            else:
                started = time.perf_counter()
                made = make(part)
                if len(things) > size:
                    self.keep(start, partial(write_jsonl, rows=made), seconds=time.perf_counter() - started)
            rows += made
        return rows, before

    def clear(self, *, below: int | None = None) -> None:
        """Remove all, or those with a lower number."""
        for number in self._numbers():
            if below is None or number < below:
                self._note(number).unlink(missing_ok=True)
                self._file(number).unlink(missing_ok=True)

    def _numbers(self) -> set[int]:
        names = [
            path.name.removesuffix(PARTIAL_RESULT) for path in self.entry.path.glob(f".{self.stage}-*{PARTIAL_RESULT}")
        ]
        numbers = [name.removeprefix(f".{self.stage}-") for name in names]
        return {int(number) for number in numbers if number.isdigit()}

    def _file(self, number: int) -> Path:
        return self.entry.file(f".{self.stage}-{number}{PARTIAL_RESULT}")

    def _note(self, number: int) -> Path:
        return self.entry.file(f".{self.stage}-{number}.json{PARTIAL_RESULT}")
