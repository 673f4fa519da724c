"""The store: a folder of finished things, each recognised by its id and a manifest that is written last.

    store.json                      schema of the store
    cells/ID/                       a checkpoint: spec, training log, delta (changed tensors)
    outcomes/ID/                    raw answers of one checkpoint on one task
    records/ID/                     scores of one set of outcomes
    plans/SUITE.json                what the suite's board covers
    leaderboards/SUITE.md, .json    the board

An entry without a manifest, or with files that do not match it, is unfinished and is made again. Several processes may
work on one store: who makes an entry claims it, and the others take other work or wait.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import EntryLocked, UserError, redacted
from .files import (
    FileDigests,
    Stamp,
    atomic,
    file_sha256,
    is_telling,
    locked,
    read_json,
    read_sealed,
    stamp_of,
    unwritable,
    write_json,
    write_sealed,
)

SCHEMA = 2
StoreSection = Literal["cells", "outcomes", "records"]
SECTIONS: tuple[StoreSection, ...] = get_args(StoreSection)
LOCK = ".lock"
DELTA = "delta.safetensors"
"""The file of a cell's changed tensors (see `delta`)."""
PARTIAL_RESULT = ".piece"
"""How the names of partial results end (see `partial`)."""


@dataclass(frozen=True)
class Entry:
    """One thing of the store, finished or not."""

    path: Path

    @property
    def name(self) -> str:
        """Section and id, as its manifest says them too."""
        return f"{self.path.parent.name}/{self.path.name}"

    def file(self, name: str) -> Path:
        """Return the path of one of its files."""
        return self.path / name

    def manifest(self) -> dict[str, Any] | None:
        """Return the manifest where the entry is finished and every file is as the manifest says, else None."""
        state = self._look()
        return None if isinstance(state, str) else state

    def flaw(self) -> str | None:
        """Return what is wrong with the entry, `unfinished` where it has no manifest, None where it is whole."""
        state = self._look()
        return state if isinstance(state, str) else None

    def _look(self) -> dict[str, Any] | str:
        """Return the manifest, or what is wrong with the entry."""
        path = self.file("manifest.json")
        if not path.is_file():
            return "unfinished"
        try:
            manifest = _sealed(path, stamp) if is_telling(stamp := stamp_of(path)) else read_sealed(path)
        except (OSError, UserError):
            return "manifest.json is not as it was written"
        if (manifest.get("schema"), manifest.get("entry")) != (SCHEMA, self.name):
            return f"manifest.json is that of {manifest.get('entry')}, schema {manifest.get('schema')}"
        try:
            for name, facts in manifest["files"].items():
                if Path(name).name != name:
                    return f"manifest.json names {name!r}, which is no file of the entry"
                if not _matches(self.file(name), facts):
                    return f"{name} is not as it was written"
        except (AttributeError, KeyError, TypeError, ValueError):
            return "manifest.json does not say what its files are"
        return manifest

    def make(self) -> None:
        """Make its folder; raise a `UserError` where it cannot be made."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.path, error) from error

    @contextmanager
    def claim(self, *, wait: bool = True) -> Iterator[None]:
        """Keep other processes off the entry; the claim ends with this process, however that ends.

        Raises:
            EntryLocked: another process holds it and `wait` is not asked.
            UserError: its folder cannot be written.
        """
        self.make()
        with ExitStack() as claims:
            try:
                free = claims.enter_context(locked(self.file(LOCK), wait=wait))
            except OSError as error:
                raise unwritable(self.path, error) from error
            if not free:
                raise EntryLocked(f"{self.name} is in the work of another process.")
            try:
                yield
            finally:
                with suppress(OSError):
                    self.file(LOCK).unlink()

    def commit(self, files: Mapping[str, Callable[[Path], Any] | None], facts: Mapping[str, Any]) -> dict[str, Any]:
        """Write each file by its writer (None: it is there), then the manifest; the entry is finished from then on."""
        self.make()
        sums = {}
        for name, write in files.items():
            if write is not None:
                with atomic(self.file(name)) as staged:
                    write(staged)
            sums[name] = {"sha256": file_sha256(self.file(name)), "bytes": self.file(name).stat().st_size}
        manifest = {"schema": SCHEMA, "entry": self.name, "files": sums, **facts}
        write_sealed(self.file("manifest.json"), manifest)
        for left in (self.file("failure.json"), *self.path.glob(f".*{PARTIAL_RESULT}")):
            left.unlink(missing_ok=True)
        return manifest

    def fail(self, cause: str, trace: str) -> None:
        """Keep the cause of a failure, where it can be written; the entry is tried again by the next run."""
        with suppress(OSError, UserError):
            self.make()
            failure = {"schema": SCHEMA, "cause": redacted(cause), "traceback": redacted(trace)}
            write_json(self.file("failure.json"), failure)

    def failure(self) -> str | None:
        """Return the cause of the last failure where the entry is not finished."""
        path = self.file("failure.json")
        if not path.is_file():
            return None
        try:
            return str(read_json(path)["cause"])
        except (UserError, KeyError, TypeError):
            return "its failure.json is damaged"


def _matches(path: Path, facts: Mapping[str, Any]) -> bool:
    try:
        stamp = stamp_of(path)
        if stamp[0] != facts["bytes"]:
            return False
        return facts["sha256"] == (_sha256(path, stamp) if is_telling(stamp) else file_sha256(path))
    except OSError:
        return False


@lru_cache(maxsize=65536)
def _sealed(path: Path, stamp: Stamp) -> dict[str, Any]:
    """Return a manifest, read once a process while its stamp stays; not to be changed."""
    return read_sealed(path)


@lru_cache(maxsize=65536)
def _sha256(path: Path, stamp: Stamp) -> str:
    """Return a file's sha256, read once a process while its stamp stays."""
    return file_sha256(path)


@dataclass(frozen=True)
class Store:
    """A folder that holds everything that was made; opened with `create` or `open`.

    With `verify_inputs` no digest of a model's, checkpoint's or scorer's file is taken from memory.
    """

    root: Path
    verify_inputs: bool = False

    @classmethod
    def create(cls, root: Path, *, verify_inputs: bool = False) -> Store:
        """Open a store to write to, making it where it is missing; raise a `UserError` where it cannot be written."""
        marker = root / "store.json"
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=root):
                pass
            if not marker.is_file():
                write_json(marker, {"schema": SCHEMA})
            for name in (*SECTIONS, "plans", "leaderboards"):
                (root / name).mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(
                f"Output folder {root} cannot be written ({error.strerror}); pass another with --output."
            ) from error
        return cls.open(root, verify_inputs=verify_inputs)

    @classmethod
    def open(cls, root: Path, *, verify_inputs: bool = False) -> Store:
        """Open a store that exists; raise a `UserError` where it does not, or is of another schema."""
        marker = root / "store.json"
        if not marker.is_file():
            raise UserError(f"{root} is no store of unlearn-bench; run `unlearn-bench evaluate --output {root}` first.")
        try:
            schema = read_json(marker)["schema"]
        except (UserError, KeyError, TypeError):
            raise UserError(
                f"{marker} is damaged. If this version made the store, remove that file and run `unlearn-bench evaluate"
                f" --output {root}`: it is written again, and nothing else is lost."
            ) from None
        if schema != SCHEMA:
            raise UserError(f"{root} has store schema {schema}; this version reads {SCHEMA}. Use another --output.")
        return cls(root, verify_inputs)

    @contextmanager
    def used(self, *, alone: bool = False) -> Iterator[None]:
        """Say that this process works on the store, beside others or `alone`.

        Raises:
            UserError: alone is asked and others work on it, or a file of it cannot be opened.
        """
        try:
            with locked(self.root / "store.json", shared=not alone, wait=not alone) as free:
                if not free:
                    raise UserError(f"Another process works on {self.root}; wait until it ends.")
                yield
        except PermissionError as error:
            name = error.filename or self.root
            raise UserError(f"{name} cannot be opened ({error.strerror}); give access to it, or replace it.") from error

    def entry(self, section: StoreSection, ident: str) -> Entry:
        """Return an entry by section and id, whether it exists or not; refuse what is no id."""
        if not re.fullmatch(r"[A-Za-z0-9]+", ident):
            raise UserError(
                f"{ident!r} is no id of an entry: a file of {self.root} is not ours; `unlearn-bench verify` checks"
                " them."
            )
        return Entry(self.root.joinpath(section, ident))

    def entries(self, section: StoreSection) -> list[Entry]:
        """Return the entries of a section that exist, finished or not."""
        folder = self.root / section
        return [Entry(path) for path in sorted(folder.iterdir()) if path.is_dir()] if folder.is_dir() else []

    def plans(self) -> list[str]:
        """Return the suites whose plans the store holds, sorted by name."""
        return sorted(path.stem for path in (self.root / "plans").glob("*.json"))

    def plan_file(self, suite: str) -> Path:
        """Return the file of a suite's plan, whether it exists or not."""
        return self.root / "plans" / f"{suite}.json"

    @property
    def digests(self) -> FileDigests:
        """The digests of files that runs read: models, checkpoints, scorers."""
        return FileDigests(self.root / "digests.json", self.verify_inputs)
