"""The store: a folder of finished things, each recognised by its id and a manifest that is written last.

    store.json                      schema of the store
    cells/ID/                       a checkpoint: spec, training log, delta (changed tensors)
    outcomes/ID/                    raw answers of one checkpoint on one task
    records/ID/                     scores of one set of outcomes
    plans/SUITE.json                what the suite's board covers
    leaderboards/SUITE.md, .json    the board

An entry without a manifest, or with files that do not match it, is unfinished and is made again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from .errors import UserError
from .files import file_sha256, read_json, write_json

SCHEMA = 1
Section = Literal["cells", "outcomes", "records"]


@dataclass(frozen=True)
class Entry:
    """One thing of the store, finished or not."""

    path: Path

    def file(self, name: str) -> Path:
        """Return the path of one of its files."""
        return self.path / name

    def manifest(self) -> dict[str, Any] | None:
        """Return the manifest where the entry is finished and every file is as the manifest says, else None."""
        path = self.path / "manifest.json"
        if not path.is_file():
            return None
        try:
            manifest = read_json(path)
            files = manifest["files"]
            whole = all(_matches(self.path / name, facts) for name, facts in files.items())
        except (UserError, KeyError, TypeError, AttributeError):
            return None
        return manifest if whole and manifest.get("schema") == SCHEMA else None

    def commit(self, files: Mapping[str, Callable[[Path], Any]], facts: Mapping[str, Any]) -> dict[str, Any]:
        """Write each file by its writer, then the manifest; the entry is finished from then on."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "manifest.json").unlink(missing_ok=True)
        for name, write in files.items():
            write(self.path / name)
        sums = {
            name: {"sha256": file_sha256(self.path / name), "bytes": (self.path / name).stat().st_size}
            for name in files
        }
        manifest = {"schema": SCHEMA, "files": sums, **facts}
        write_json(self.path / "manifest.json", manifest)
        self.file("failure.json").unlink(missing_ok=True)
        return manifest

    def fail(self, cause: str, trace: str) -> None:
        """Keep the cause of a failure; the entry stays unfinished and is tried again by the next run."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.file("failure.json"), {"schema": SCHEMA, "cause": cause, "traceback": trace})

    def failure(self) -> str | None:
        """Return the cause of the last failure where the entry is not finished."""
        path = self.file("failure.json")
        return str(read_json(path).get("cause")) if path.is_file() else None


def _matches(path: Path, facts: Mapping[str, Any]) -> bool:
    if not path.is_file():
        return False
    stat = path.stat()
    return stat.st_size == facts["bytes"] and _sha256(path, stat.st_size, stat.st_mtime_ns) == facts["sha256"]


@lru_cache(maxsize=65536)
def _sha256(path: Path, size: int, modified: int) -> str:
    """Return a file's sha256, read once a process while its size and time of modification (ns) stay."""
    return file_sha256(path)


@dataclass(frozen=True)
class Store:
    """A folder that holds everything that was made; opened with `create` or `open`."""

    root: Path

    @classmethod
    def create(cls, root: Path) -> Store:
        """Open a store to write to, making it where it is missing; raise a `UserError` where it cannot be written."""
        marker = root / "store.json"
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=root):
                pass
            if not marker.is_file():
                write_json(marker, {"schema": SCHEMA})
            for name in ("cells", "outcomes", "records", "plans", "leaderboards"):
                (root / name).mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(
                f"Output folder {root} cannot be written ({error.strerror}); pass another with --output."
            ) from error
        return cls.open(root)

    @classmethod
    def open(cls, root: Path) -> Store:
        """Open a store that exists; raise a `UserError` where it does not, or is of another schema."""
        marker = root / "store.json"
        if not marker.is_file():
            raise UserError(f"{root} is no store of unlearn-bench; run `unlearn-bench evaluate --output {root}` first.")
        schema = read_json(marker).get("schema")
        if schema != SCHEMA:
            raise UserError(f"{root} has store schema {schema}; this version reads {SCHEMA}. Use another --output.")
        return cls(root)

    def entry(self, section: Section, ident: str) -> Entry:
        """Return an entry by section and id, whether it exists or not."""
        return Entry(self.root / section / ident)

    @property
    def digests(self) -> Path:
        """The cache of file digests, by size and modification time."""
        return self.root / "digests.json"
