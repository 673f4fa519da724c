"""Errors that a user can mend: one or two lines that say what was asked, what was found and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A wrong input or environment. Shown without a traceback; the command line exits with `status`."""

    def __init__(self, message: str, *, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error as a sentence with one full stop, its type where it says nothing."""
    said = str(error).strip() or type(error).__name__
    return said.splitlines()[0].rstrip(".: ") + "."


def suggest(wrong: str, known: Iterable[str]) -> str:
    """Return ` Did you mean X?` for the nearest known names, else the list of all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(wrong, names, n=3, cutoff=0.5)
    if near:
        return f" Did you mean {' or '.join(repr(name) for name in near)}?"
    return f" Known: {', '.join(names) or 'none'}."
