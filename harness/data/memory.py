"""What a process keeps of data that it read: by the content of the files that they are in, never by their place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from ..errors import DataError, UserError

T = TypeVar("T")
Content = tuple[tuple[str, str], ...]
"""Names and sha256 of files; empty for what the hub gives, which is asked once a plan."""
KEPT = 64
"""Sources whose rows a process keeps."""
_memory: dict[tuple[Any, Content], Any] = {}
"""What was read, by the source and the content that it was read from; of the hub also why it gave nothing."""


def ask_hub_again() -> None:
    """Forget what the hub gave, or did not give: the next plan asks it anew, as one of another process would."""
    for key in [key for key in _memory if not key[1]]:
        del _memory[key]


def content_of(files: Iterable[Path]) -> Content:
    """Return the names and digests of files; of one that cannot be read, why."""
    return tuple((str(file), _sha256(file)) for file in files if not file.is_dir())


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        return str(error)


def remembered(source: Any, name: str, content: Callable[[], Content], read: Callable[[], T], *, hub: bool) -> T:
    """Return what `read` returns, from memory where that was read from files with the same content.

    Args:
        source: what is read, and how.
        name: what messages call it.
        content: looks at the files; asked before and after they are read.
        read: reads them.
        hub: whether a source without files is one of the hub.

    Raises:
        DataError: a file changed while it was read.
        UserError: as `read` does.
    """
    before = content()
    key = source, before
    if key not in _memory:
        try:
            thing: Any = read()
        except UserError as error:
            if before or not hub:
                raise
            thing = error
        if content() != before:
            raise DataError(f"{name} changed while it was read; wait until it is written, and run again.")
        while len(_memory) >= KEPT:
            del _memory[next(iter(_memory))]
        _memory[key] = thing
    thing = _memory[key]
    if isinstance(thing, UserError):
        raise thing
    return thing
