"""Files that are whole or absent: written beside, then renamed; sealed JSON, locks, digests of files and folders."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from ..errors import UserError, first_line
from ..specs import digest

PARTIAL = ".partial"
"""How the names of temporary files end; those of `atomic` start with a dot too."""
REPLACE = "Replace it; what belongs to a store is made anew by the same `unlearn-bench evaluate`."
UNLOCKABLE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a filesystem without locks answers."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and renamed to `path`.

    Raises:
        UserError: the file cannot be written: no space, no permission, a failing disk.
    """
    temporary = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError) -> UserError:
    """Return what to say where a file or folder of a store cannot be written."""
    return UserError(
        f"{path} cannot be written ({error.strerror or error}). Make room or give access there, or pass another"
        " --output, and run the same command again: what is finished is kept."
    )


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people and programs: sorted keys, indented, atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON object a line, atomically."""
    write_text(path, "".join(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n" for row in rows))


def read_json(path: Path) -> Any:
    """Read JSON; raise a `UserError` that names the file where it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is damaged or unreadable: {first_line(error)} {REPLACE}") from error


def read_jsonl(path: Path) -> list[Any]:
    """Read one JSON value a line; raise a `UserError` that names the file where it is damaged."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line]
        rows = _parse(f"[{','.join(lines)}]")
        if len(rows) != len(lines):
            raise ValueError("a line is not one JSON value")
        return rows
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is damaged or unreadable: {first_line(error)} {REPLACE}") from error


def _parse(text: str) -> Any:
    """Parse JSON, NaN and infinities too, which it does not have and Python writes; integers are of 64 bits."""
    try:
        return orjson.loads(text)
    except ValueError:
        return json.loads(text)


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object with its own sha256 as `seal`, so that no change of it goes unnoticed."""
    plain = json.loads(json.dumps(value))
    write_json(path, {**plain, "seal": _seal(plain)})


def read_sealed(path: Path) -> dict[str, Any]:
    """Read a JSON object that was written sealed, `seal` left out; raise a `UserError` where it is not as written."""
    value = read_json(path)
    if not isinstance(value, dict) or value.pop("seal", None) != _seal(value):
        raise UserError(f"{path} is damaged: it is not as it was written. {REPLACE}")
    return value


def _seal(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a file, made where it is missing; yield False where others hold it and `wait` is not asked.

    The kernel keeps it, so it ends with the process, however that ends. A filesystem without locks locks nothing.
    """
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            free = _lock(handle, how)
            if not free or _is_at(handle, path):
                yield free
                return
        finally:
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)


def _lock(handle: int, how: int) -> bool:
    try:
        fcntl.flock(handle, how)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in UNLOCKABLE:
            raise
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Return whether an open file still is the one of that name: who waited for a lock may hold a removed file."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_digest(folder: Path, patterns: Iterable[str], cache: Path | None = None) -> str:
    """Return the digest of the files in `folder` that match the patterns: their names and contents.

    With `cache` (a sealed JSON file), a file's sha256 is taken from there while its size and modification time stay the
    same. A cache that is damaged, or cannot be written, is none.
    """
    known: dict[str, list[Any]] = {}
    if cache is not None:
        with suppress(UserError):
            known = read_sealed(cache)
    files = sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})
    if not files:
        raise UserError(f"{folder} holds none of {', '.join(patterns)}; is it the right folder?")
    sums, changed = {}, False
    for file in files:
        stat, key = file.stat(), str(file.resolve())
        stamp = [stat.st_size, stat.st_mtime_ns]
        if known.get(key, [None])[:2] != stamp:
            known[key] = [*stamp, file_sha256(file)]
            changed = True
        sums[file.name] = known[key][2]
    if cache is not None and changed:
        with suppress(UserError):
            write_sealed(cache, known)
    return digest(sums)
