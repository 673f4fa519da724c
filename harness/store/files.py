"""Files that are whole or absent: written beside, then renamed; sealed JSON, locks, digests of files and folders."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
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
FRESH = 2.0
"""Seconds for which a file's time of change may stay the same while it changes again, whatever the filesystem."""
KEPT = 8
"""Stamps of a file whose digests are kept: machines with disks of their own see one path as different files."""
Stamp = tuple[int, int, int, int]
"""Size in bytes, times of modification and of change (ns), inode."""


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


def stamp_of(path: Path) -> Stamp:
    """Return what a file's digest is remembered by: every way of changing it but a write to mapped memory moves it."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def is_telling(stamp: Stamp) -> bool:
    """Return whether a file with this stamp cannot change any more without another stamp: it is older than `FRESH`."""
    return time.time() - stamp[2] / 1e9 > FRESH


@dataclass(frozen=True)
class FileDigests:
    """Digests of files that were read before, by path and stamp, in a sealed JSON file.

    One that is damaged, or cannot be written, is none. With `anew` nothing that was remembered counts.
    """

    path: Path
    anew: bool = False

    def load(self) -> dict[str, list[list[Any]]]:
        """Return the stamps of each path with the digest that each stands for."""
        known: dict[str, Any] = {}
        with suppress(UserError):
            known = {} if self.anew else read_sealed(self.path)
        return {path: stamps for path, stamps in known.items() if all(isinstance(stamp, list) for stamp in stamps)}

    def save(self, known: Mapping[str, Any]) -> None:
        """Write what is known."""
        with suppress(UserError):
            write_sealed(self.path, known)


def folder_files(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """Return the files of a folder that match one of the patterns, sorted."""
    return sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})


def folder_digest(folder: Path, patterns: Iterable[str], cache: FileDigests | None = None) -> str:
    """Return the digest of the files in `folder` that match the patterns: their names and contents.

    With `cache` a file's sha256 is taken from there while its stamp stays the same.

    Raises:
        UserError: there is no such file, or one changes while it is read.
    """
    files = folder_files(folder, patterns)
    if not files:
        raise UserError(f"{folder} holds none of {', '.join(patterns)}; is it the right folder?")
    known = cache.load() if cache is not None else {}
    sums, news = {}, False
    for file in files:
        key, stamp = str(file.resolve()), stamp_of(file)
        remembered = next((entry[-1] for entry in known.get(key, ()) if entry[:-1] == [*stamp]), None)
        sums[file.name] = remembered or _sha256(file, stamp)
        if remembered is None and is_telling(stamp):
            known[key] = [[*stamp, sums[file.name]], *known.get(key, ())][:KEPT]
            news = True
    if cache is not None and news:
        cache.save(known)
    return digest(sums)


def _sha256(file: Path, stamp: Stamp) -> str:
    """Return the sha256 of a file that has this stamp, before and after it is read."""
    sha256 = file_sha256(file)
    if stamp_of(file) != stamp:
        raise UserError(f"{file} changed while it was read; wait until it is written, and run again.")
    return sha256
