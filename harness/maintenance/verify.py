"""Verifying a store: files against manifests, ids against what they stand for, plans against what is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from ..errors import UserError, first_line
from ..planning.plan import Plan
from ..planning.status import status_of
from ..records import Choices, Generations, Record
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


def verify(store: Store) -> dict[str, Any]:
    """Check a store, as plain JSON types.

    `damaged`: what is not as it was written, or not what its name says, with what to do; `lacking`: what a saved plan
    wants and the store has not; `unneeded`: whole entries that no plan names; `unfinished`: entries without a manifest;
    `partial`: temporary files that a killed process left; `checked`: entries that are whole, by section.
    """
    flaws: list[dict[str, str]] = []
    checked, unfinished = dict.fromkeys(SECTIONS, 0), 0
    for section in SECTIONS:
        for entry in store.entries(section):
            flaw = entry.flaw() or _misnamed(section, entry)
            if flaw is None:
                checked[section] += 1
            elif flaw == "unfinished":
                unfinished += 1
            else:
                flaws.append({"what": entry.name, "flaw": flaw, "do": REDO})
    plans, broken = _plans(store)
    flaws += broken
    lacking = [missing for plan in plans for missing in _lacking(plan, store)]
    flaws += [flaw for plan in plans for flaw in _board(plan, store)]
    wanted = needed(plans, store)
    unneeded = [entry for section in SECTIONS for entry in store.entries(section) if entry.name not in wanted]
    return {
        "damaged": flaws,
        "lacking": lacking,
        "unneeded": sum(entry.flaw() is None for entry in unneeded),
        "unfinished": unfinished,
        "partial": sum(1 for _ in store.root.rglob(f"*{PARTIAL}")),
        "checked": checked,
        "plans": [plan.suite.name for plan in plans],
    }


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
            kind = Record if section == "records" else Choices if "logprobs" in row else Generations
            kind(**row)
            if section == "records" and not all(map(isfinite, (row["scores"] or {}).values())):
                return f"the score of {row['item']} is no finite number"
    except (TypeError, KeyError, AttributeError) as error:
        return f"a row is not of this version: {error}"
    items = [row["item"] for row in rows]
    return "an item stands in it twice" if len(set(items)) < len(items) else None


def _plans(store: Store) -> tuple[list[Plan], list[dict[str, str]]]:
    plans, broken = [], []
    for suite in store.plans():
        try:
            plans.append(Plan.load(store, suite))
        except UserError as error:
            do = "run the same `unlearn-bench evaluate` again: it plans anew, and what is finished is kept"
            broken.append({"what": f"plans/{suite}.json", "flaw": first_line(error), "do": do})
    return plans, broken


def _lacking(plan: Plan, store: Store) -> Iterator[dict[str, Any]]:
    for cell in plan.cells:
        state = status_of(plan, cell, store)
        if not state.finished:
            yield {
                "suite": plan.suite.name,
                "cell": state.cell.id,
                "name": f"{cell.model} {cell.spec.label}",
                "lacks": [*([] if state.made else ["checkpoint"]), *state.missing],
                "failure": state.failure,
            }


def _board(plan: Plan, store: Store) -> Iterator[dict[str, str]]:
    """Compare a plan's board, where it is written, with the one that the records give."""
    name = f"leaderboards/{plan.suite.name}"
    written = [store.root / f"{name}{suffix}" for suffix in (".json", ".md")]
    if not any(map(Path.is_file, written)):
        return
    try:
        board = board_of(plan, store)
    except UserError as error:
        yield {"what": name, "flaw": f"cannot be built again: {first_line(error)}", "do": REDO}
        return
    for path, text in zip(written, (board.to_json(), board.to_markdown()), strict=True):
        try:
            flaw = path.is_file() and path.read_bytes() != text.encode() and "is not what the records give"
        except OSError as error:
            flaw = f"cannot be read ({error.strerror})"
        if flaw:
            again = f"`unlearn-bench leaderboard --suite {plan.suite.name}` writes it again"
            yield {"what": f"{name}{path.suffix}", "flaw": flaw, "do": again}


def render(found: dict[str, Any], root: Path) -> str:
    """Return the findings in words."""
    checked = ", ".join(f"{count} {section}" for section, count in found["checked"].items())
    lines = [f"{root}: {checked} are whole; plans of {', '.join(found['plans']) or 'no suite'}."]
    lines += [f"Damaged: {each['what']}: {each['flaw']}; {each['do']}." for each in found["damaged"]]
    for each in found["lacking"]:
        cause = f" (failed: {each['failure']})" if each["failure"] else ""
        lines.append(f"Lacking for {each['suite']}: {each['name']}: {', '.join(each['lacks'])}{cause}.")
    if found["lacking"]:
        lines.append("What is lacking is made by running the same `unlearn-bench evaluate` again.")
    idle = {"unneeded": "entries that no plan names", "unfinished": "unfinished entries", "partial": "partial files"}
    left = [f"{found[key]} {words}" for key, words in idle.items() if found[key]]
    if left:
        lines.append(f"Besides: {', '.join(left)}; `unlearn-bench gc` says what can go.")
    if not found["damaged"] and not found["lacking"]:
        lines.append("Nothing is damaged, nothing is lacking.")
    return "\n".join(lines)
