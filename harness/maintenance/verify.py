"""Verifying a store: files against manifests, ids against what they stand for, plans against what is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from ..errors import UserError, first_line
from ..planning.plan import Plan
from ..planning.status import status_of
from ..records import Printable, Record, outcome_of
from ..results.board import board_of
from ..store.entries import DELTA, SECTIONS, Entry, Store, StoreSection
from ..store.files import PARTIAL, read_jsonl, read_sealed
from ..store.identity import CellSpec, OutcomeSpec, RecordSpec
from .garbage import needed

SPECS: dict[StoreSection, tuple[str, type[CellSpec | OutcomeSpec | RecordSpec]]] = {
    "cells": ("cell", CellSpec),
    "outcomes": ("outcome", OutcomeSpec),
    "records": ("record", RecordSpec),
}
"""Where a section's manifests keep the spec whose digest is the entry's id."""
REDO = "run the same `unlearn-bench evaluate` again: it is made anew"


@dataclass(frozen=True)
class Damage:
    """What is not as it was written, or not what its name says, with what to do."""

    what: str
    flaw: str
    do: str


@dataclass(frozen=True)
class Lack:
    """What a saved plan wants of a cell and the store has not: `checkpoint` and tasks; why it failed, where it did."""

    suite: str
    cell: str
    name: str
    lacks: list[str]
    failure: str | None


@dataclass(frozen=True)
class Verification(Printable):
    """What a store was found to be.

    Attributes:
        unneeded: whole entries that no plan names.
        unfinished: entries without a manifest.
        partial: temporary files that a killed process left.
        checked: entries that are whole.
    """

    root: Path
    damaged: list[Damage]
    lacking: list[Lack]
    unneeded: int
    unfinished: int
    partial: int
    checked: dict[StoreSection, int]
    plans: list[str]

    @property
    def whole(self) -> bool:
        """Whether nothing is damaged and nothing is lacking."""
        return not self.damaged and not self.lacking

    def to_text(self) -> str:
        """Return it in words."""
        checked = ", ".join(f"{count} {section}" for section, count in self.checked.items())
        lines = [f"{self.root}: {checked} are whole; plans of {', '.join(self.plans) or 'no suite'}."]
        lines += [f"Damaged: {damage.what}: {damage.flaw}; {damage.do}." for damage in self.damaged]
        for lack in self.lacking:
            cause = f" (failed: {lack.failure})" if lack.failure else ""
            lines.append(f"Lacking for {lack.suite}: {lack.name}: {', '.join(lack.lacks)}{cause}.")
        if self.lacking:
            lines.append("What is lacking is made by running the same `unlearn-bench evaluate` again.")
        counts = {
            "entries that no plan names": self.unneeded,
            "unfinished entries": self.unfinished,
            "partial files": self.partial,
        }
        idle = ", ".join(f"{count} {words}" for words, count in counts.items() if count)
        lines += [f"Besides: {idle}; `unlearn-bench gc` says what can go."] if idle else []
        lines += ["Nothing is damaged, nothing is lacking."] if self.whole else []
        return "\n".join(lines) + "\n"


def verify(store: Store) -> Verification:
    """Check a store: every entry, every plan, what the plans lack, and boards against records."""
    damaged: list[Damage] = []
    checked, unfinished = dict.fromkeys(SECTIONS, 0), 0
    for section in SECTIONS:
        for entry in store.entries(section):
            flaw = entry.flaw() or _misnamed(section, entry)
            if flaw is None:
                checked[section] += 1
            elif flaw == "unfinished":
                unfinished += 1
            else:
                damaged.append(Damage(entry.name, flaw, REDO))
    plans, broken = _plans(store)
    damaged += broken
    lacking = [lack for plan in plans for lack in _lacking(plan, store)]
    damaged += [damage for plan in plans for damage in _board(plan, store)]
    wanted = needed(plans, store)
    unneeded = [entry for section in SECTIONS for entry in store.entries(section) if entry.name not in wanted]
    return Verification(
        root=store.root,
        damaged=damaged,
        lacking=lacking,
        unneeded=sum(entry.flaw() is None for entry in unneeded),
        unfinished=unfinished,
        partial=sum(1 for _ in store.root.rglob(f"*{PARTIAL}")),
        checked=checked,
        plans=[plan.suite.name for plan in plans],
    )


def _misnamed(section: StoreSection, entry: Entry) -> str | None:
    """Return what is wrong with the contents of a whole entry: its id, its delta, its rows."""
    key, kind = SPECS[section]
    try:
        manifest = read_sealed(entry.file("manifest.json"))
        spec: Any = kind.parse(manifest[key], f"{entry.name}: {key}")
        rows = [] if section == "cells" else read_jsonl(entry.file(f"{section}.jsonl"))
    except UserError as error:
        return first_line(error)
    except (KeyError, TypeError, ValueError):
        return f"its manifest has no {key}"
    if spec.id != entry.path.name:
        return f"its manifest describes {spec.id}"
    if DELTA in manifest["files"] and manifest["files"][DELTA]["sha256"] != manifest.get("delta"):
        return f"its manifest names another delta than {DELTA}"
    return _rows(section, rows)


def _rows(section: StoreSection, rows: Sequence[Any]) -> str | None:
    try:
        for row in rows:
            Record(**row) if section == "records" else outcome_of(row)
            if section == "records" and not all(map(isfinite, (row["scores"] or {}).values())):
                return f"the score of {row['item']} is no finite number"
    except (TypeError, KeyError, AttributeError) as error:
        return f"a row is not of this version: {error}"
    items = [row["item"] for row in rows]
    return "an item stands in it twice" if len(set(items)) < len(items) else None


def _plans(store: Store) -> tuple[list[Plan], list[Damage]]:
    plans, broken = [], []
    for suite in store.plans():
        try:
            plans.append(Plan.load(store, suite))
        except UserError as error:
            do = "run the same `unlearn-bench evaluate` again: it plans anew, and what is finished is kept"
            broken.append(Damage(f"plans/{suite}.json", first_line(error), do))
    return plans, broken


def _lacking(plan: Plan, store: Store) -> Iterator[Lack]:
    for cell in plan.cells:
        status = status_of(plan, cell, store)
        if not status.finished:
            lacks = [*([] if status.made else ["checkpoint"]), *status.missing]
            yield Lack(plan.suite.name, status.cell.id, f"{cell.model} {cell.spec.label}", lacks, status.failure)


def _board(plan: Plan, store: Store) -> Iterator[Damage]:
    """Compare a plan's board, where it is written, with the one that the records give."""
    name = f"leaderboards/{plan.suite.name}"
    written = [store.root / f"{name}{suffix}" for suffix in (".json", ".md")]
    if not any(map(Path.is_file, written)):
        return
    try:
        board = board_of(plan, store)
    except UserError as error:
        yield Damage(name, f"cannot be built again: {first_line(error)}", REDO)
        return
    for path, text in zip(written, (board.to_json(), board.to_markdown()), strict=True):
        try:
            flaw = path.is_file() and path.read_bytes() != text.encode() and "is not what the records give"
        except OSError as error:
            flaw = f"cannot be read ({error.strerror})"
        if flaw:
            again = f"`unlearn-bench leaderboard --suite {plan.suite.name}` writes it again"
            yield Damage(f"{name}{path.suffix}", flaw, again)
