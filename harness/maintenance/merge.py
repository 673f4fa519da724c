"""Merging stores: finished entries by id, and the plans that fit together."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..planning.plan import Plan
from ..records import Printable
from ..store.entries import SECTIONS, Entry, Store, StoreSection
from ..store.files import atomic


@dataclass(frozen=True)
class MergeResult(Printable):
    """What a merge came to.

    Attributes:
        copied: numbers of entries.
        plans: suites whose plans were joined.
        apart: suites whose plans ask different things, so that `output` keeps none of them (or its own).
    """

    output: Path
    copied: dict[StoreSection, int]
    plans: list[str]
    apart: list[str]

    def to_text(self) -> str:
        """Return it in words, with what to do next."""
        copied = ", ".join(f"{count} {section}" for section, count in self.copied.items())
        lines = [f"{self.output}: {copied} copied."]
        lines += [
            f"`unlearn-bench leaderboard --suite {suite} --output {self.output}` shows the board of {suite}."
            for suite in self.plans
        ]
        lines += [
            f"The plans of {suite} ask different things: run `unlearn-bench evaluate --output {self.output}` with all"
            " that the board is to show; what is finished is not done again."
            for suite in self.apart
        ]
        return "\n".join(lines) + "\n"


def merge(sources: Sequence[Path], output: Path) -> MergeResult:
    """Bring the finished entries of stores, and those of `output` where it is one, together in `output`.

    Raises:
        UserError: an entry is finished in two stores with different contents; nothing is written then.
    """
    stores = [Store.open(path) for path in sources]
    chosen: dict[str, tuple[Entry, dict[str, Any]]] = {}
    conflicts: dict[str, None] = {}
    for store in (Store(output), *stores):
        for section in SECTIONS:
            for entry in store.entries(section):
                manifest = entry.manifest()
                if manifest is None:
                    continue
                known = chosen.setdefault(entry.name, (entry, manifest))
                if _content(known[1]) != _content(manifest):
                    conflicts[f"{entry.name} in {known[0].path.parents[1]} and {store.root}"] = None
    if conflicts:
        raise UserError(
            f"{len(conflicts)} entries have the same id and other contents: {'; '.join(list(conflicts)[:5])}. They were"
            " made with other libraries or hardware, or one is wrong: `unlearn-bench verify` checks a store. Remove the"
            " folders of those that you do not trust."
        )
    target = Store.create(output)
    copied = dict.fromkeys(SECTIONS, 0)
    with target.used():
        for section in SECTIONS:
            for name, (entry, manifest) in chosen.items():
                if name.startswith(f"{section}/") and entry.path.parents[1] != target.root:
                    _copy(entry, manifest, target.entry(section, entry.path.name))
                    copied[section] += 1
        joined, apart = _join(stores, target)
        _copy_failures(stores, target)
    return MergeResult(output, copied, joined, apart)


def _content(manifest: Mapping[str, Any]) -> Any:
    return manifest["files"], manifest.get("delta")


def _copy(source: Entry, manifest: Mapping[str, Any], target: Entry) -> None:
    with target.claim():
        if target.manifest() is None:
            for name in (*manifest["files"], "manifest.json"):
                with atomic(target.file(name)) as staged:
                    shutil.copyfile(source.file(name), staged)
            target.file("failure.json").unlink(missing_ok=True)


def _copy_failures(stores: Sequence[Store], target: Store) -> None:
    """Keep why cells failed that no store has finished."""
    for store in stores:
        for entry in store.entries("cells"):
            mine = target.entry("cells", entry.path.name)
            if entry.file("failure.json").is_file() and mine.manifest() is None and mine.failure() is None:
                mine.path.mkdir(exist_ok=True)
                with atomic(mine.file("failure.json")) as staged:
                    shutil.copyfile(entry.file("failure.json"), staged)


def _join(stores: Sequence[Store], target: Store) -> tuple[list[str], list[str]]:
    plans: dict[str, list[Plan]] = {}
    for store in (target, *stores):
        for suite in store.plans():
            plans.setdefault(suite, []).append(Plan.load(store, suite))
    joined, apart = [], []
    for name, (first, *others) in plans.items():
        whole: Plan | None = first
        for plan in others:
            whole = None if whole is None else join(whole, plan)
        if whole is None:
            apart.append(name)
        else:
            whole.save(target)
            joined.append(name)
    return joined, apart


def join(a: Plan, b: Plan) -> Plan | None:
    """Return the plan of what two plans ask, None where they cannot stand on one board.

    They ask the same tasks of the same items on the same engine, and what has the same name in both is the same: a
    name, track and seed of a model are one cell. So models, methods and seeds may be spread over machines.
    """
    if _shared(a) != _shared(b):
        return None
    if any(a.models[name].identity() != b.models[name].identity() for name in a.models.keys() & b.models.keys()):
        return None
    mine, theirs = _names(a), _names(b)
    if any(mine[name] != theirs[name] for name in mine.keys() & theirs.keys()):
        return None
    cells = {(cell.model, cell.id): cell for cell in (*a.cells, *b.cells)}
    order = list({**a.models, **b.models})
    ranked = sorted(cells.values(), key=lambda cell: order.index(cell.model))
    return a.model_copy(
        update={
            "models": {**b.models, **a.models},
            "cells": tuple(ranked),
            "seeds": tuple(sorted({*a.seeds, *b.seeds})),
            "notes": tuple(dict.fromkeys((*a.notes, *b.notes))),
            "command": "; ".join(dict.fromkeys((*a.command.split("; "), *b.command.split("; ")))),
        }
    )


def _shared(plan: Plan) -> Any:
    """Return what plans of one board have in common."""
    suite = plan.suite.model_dump(exclude={"folder", "models"})
    logs = [log.identity() for log in plan.logs]
    return (
        suite,
        logs,
        plan.tracks,
        plan.limit,
        plan.engine,
        plan.stress,
        [task.identity() for task in plan.tasks.values()],
    )


def _names(plan: Plan) -> dict[tuple[str, str], str]:
    """Return the id of each cell by its model and label."""
    return {(cell.model, cell.spec.label): cell.id for cell in plan.cells}
