"""Collecting garbage: what no saved plan needs, and what killed processes left."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import EntryLocked, UserError
from ..planning.plan import Plan
from ..planning.status import entries, settle
from ..records import Printable
from ..store.entries import PARTIAL_RESULT, SECTIONS, Entry, Store
from ..store.files import PARTIAL


@dataclass(frozen=True)
class Garbage(Printable):
    """What can go of a store, or went: files and folders with their bytes."""

    root: Path
    sizes: dict[Path, int]
    removed: bool = False

    def facts(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        rows = [{"path": path.relative_to(self.root).as_posix(), "bytes": size} for path, size in self.sizes.items()]
        return {"removed": self.removed, "bytes": sum(self.sizes.values()), "found": rows}

    def to_text(self) -> str:
        """Return it as lines, and what to do."""
        lines = [f"{row['path']}  {row['bytes']:,} bytes" for row in self.facts()["found"]]
        idle = "Nothing is removed yet; --delete does it." if lines else "Nothing to remove."
        total = f"{len(lines)} things, {sum(self.sizes.values()):,} bytes."
        return "\n".join([*lines, f"{total} {'Removed.' if self.removed else idle}"]) + "\n"


def needed(plans: Iterable[Plan], store: Store) -> set[str]:
    """Return the names (section/id) of all that plans need: their cells as planned and as settled, answers, scores."""
    names: set[str] = set()
    for plan in plans:
        for cell in plan.cells:
            settled = settle(plan, cell, store)
            names |= {f"cells/{ident}" for ident in (cell.id, settled.id, *cell.spec.parents)}
            names |= {entry.name for pair in entries(plan, settled, store).values() for entry in pair}
    return names


def garbage(store: Store) -> Garbage:
    """Return what can go: entries, scorers' text and logs no plan needs, what killed processes left.

    Raises:
        UserError: the store holds no plan, or one that cannot be read, so that nothing says what is needed.
    """
    names = store.plans()
    if not names:
        raise UserError(f"{store.root} holds no plan that says what is needed; run `unlearn-bench evaluate` first.")
    plans = [Plan.load(store, name) for name in names]
    wanted = needed(plans, store)
    idle = [entry.path for section in SECTIONS for entry in store.entries(section) if entry.name not in wanted]
    scorers = {task.scorer.digest for plan in plans for task in plan.tasks.values() if task.scorer is not None}
    idle += [path for path in sorted(store.root.glob("scorers/*")) if path.is_dir() and path.name not in scorers]
    idle += [path for section in SECTIONS for entry in store.entries(section) for path in _spent(entry, wanted)]
    idle += [path for path in sorted(store.root.glob("logs/*.log")) if f"cells/{path.stem}" not in wanted]
    gone = set(idle)
    idle += [path for path in sorted(store.root.rglob(f".*{PARTIAL}")) if gone.isdisjoint(path.parents)]
    return Garbage(store.root, {path: _bytes(path) for path in idle})


def _spent(entry: Entry, wanted: set[str]) -> list[Path]:
    """Return the partial results of a needed entry that whoever finished it had no time to remove."""
    partials = sorted(entry.path.glob(f".*{PARTIAL_RESULT}")) if entry.name in wanted else []
    return partials if partials and entry.manifest() is not None else []


def collect(store: Store) -> Garbage:
    """Remove what can go and return it; what another process is at stays.

    Raises:
        UserError: another process works on the store; nothing is removed then.
    """
    removed: dict[Path, int] = {}
    with store.used(alone=True):
        for path, size in garbage(store).sizes.items():
            try:
                with Entry(path if path.is_dir() else path.parent).claim(wait=False):
                    _remove(path)
            except EntryLocked:
                continue
            removed[path] = size
    return Garbage(store.root, removed, removed=True)


def _remove(path: Path) -> None:
    try:
        if path.is_dir():
            (path / "manifest.json").unlink(missing_ok=True)
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be removed ({error.strerror}); give access to it and run again.") from error


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if file.is_file())
