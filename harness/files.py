"""Files that are whole or absent: written beside, then renamed; digests of files and folders."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import UserError
from .specs import digest


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and renamed to `path`."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
        raise UserError(f"{path} is damaged or unreadable: {error}") from error


def read_jsonl(path: Path) -> list[Any]:
    """Read one JSON value a line; raise a `UserError` that names the file where it is damaged."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line]
        rows = json.loads(f"[{','.join(lines)}]")
        if len(rows) != len(lines):
            raise ValueError("a line is not one JSON value")
        return rows
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is damaged or unreadable: {error}") from error


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_digest(folder: Path, patterns: Iterable[str], cache: Path | None = None) -> str:
    """Return the digest of the files in `folder` that match the patterns: their names and contents.

    With `cache` (a JSON file), a file's sha256 is taken from there while its size and modification time stay the same.
    """
    known: dict[str, list[Any]] = {}
    if cache is not None and cache.is_file():
        try:
            known = json.loads(cache.read_text())
        except ValueError:
            known = {}
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
        write_json(cache, known)
    return digest(sums)
