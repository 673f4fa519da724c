"""The plan: which checkpoints a run wants and what is asked of them. Plain data, kept beside the board it is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import field_validator

from ..tasks.base import Task, tasks
from .cells import BASE, CellSpec, OutcomeSpec, RecordSpec
from .data import load_rows, sample_items
from .errors import UserError
from .files import read_json, write_json
from .models import ModelSpec
from .records import Item
from .specs import Spec, digest, identity, recorded, runtime
from .store import Store
from .suite import ScorerSpec, SuiteSpec, TaskSpec


class PlannedTask(Spec):
    """A task with its data pinned: which rows, which items of them, which settings count for what."""

    name: str = identity(description="name in the suite")
    spec: TaskSpec = runtime()
    version: int = identity()
    settings: dict[str, Any] = identity()
    outcome_settings: dict[str, Any] = identity(description="those that the answers depend on")
    judged: bool = identity()
    data: str = identity(description="digest of the rows")
    items: str = identity(description="digest of the ids that are asked")
    count: int = recorded(description="number of items")
    limit: int | None = identity(None)
    folder: str | None = runtime(None)

    def outcome(self, model: ModelSpec, delta: str, engine: str) -> OutcomeSpec:
        """Return the identity of the answers of the checkpoint with this delta sha256."""
        return OutcomeSpec(
            model=model.digest,
            delta=delta,
            task=self.spec.task,
            version=self.version,
            settings=self.outcome_settings,
            data=self.data,
            items=self.items,
            engine=engine,
            dtype=model.dtype,
        )

    def record(self, outcome: OutcomeSpec, scorer: ScorerSpec | None) -> RecordSpec:
        """Return the identity of the scores of a set of answers."""
        judge = scorer.identity() if scorer is not None and self.judged else None
        return RecordSpec(outcome=outcome.id, version=self.version, settings=self.settings, scorer=judge)

    def build(self) -> tuple[Task, list[Item]]:
        """Return the task and its items, read again from the data; raise a `UserError` where the data changed."""
        task = build_task(self.spec)
        rows = load_rows(self.spec.data, Path(self.folder) if self.folder else None)
        items = sample_items(task.items(rows.rows), self.limit)
        if rows.digest != self.data or digest([item.id for item in items]) != self.items:
            raise UserError(f"The data of task {self.name} changed while the run was planned; run again.")
        return task, items


class PlannedCell(Spec):
    """A cell of a plan, on a model by its name."""

    model: str = identity()
    spec: CellSpec = identity()
    folder: str | None = runtime(None, description="folder of an imported checkpoint")

    @property
    def id(self) -> str:
        """The cell id."""
        return self.spec.id


class Plan(Spec):
    """What a run wants. A board covers exactly one plan."""

    schema_version: int = identity(1)
    suite: SuiteSpec = runtime()
    models: dict[str, ModelSpec] = identity()
    tracks: tuple[str, ...] = identity()
    tasks: dict[str, PlannedTask] = identity()
    cells: tuple[PlannedCell, ...] = identity()
    seeds: tuple[int, ...] = identity()
    limit: int | None = identity(None)
    engine: str = identity()
    scorer: ScorerSpec | None = identity(None)
    data_folder: str | None = runtime(None)
    command: str = recorded("", description="how to run it again")

    @field_validator("tracks", "cells", "seeds", mode="before")
    @classmethod
    def _lists_from_json(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    def trained(self, model: str, track: str, seed: int) -> list[PlannedCell]:
        """Return the trained cells that a noise cell is matched to."""
        return [
            cell
            for cell in self.cells
            if cell.spec.transform == "train" and (cell.model, cell.spec.track, cell.spec.seed) == (model, track, seed)
        ]

    def settle(self, cell: PlannedCell, store: Store) -> PlannedCell:
        """Return a noise cell matched to those of its planned parents that did not fail; other cells as they are."""
        if cell.spec.transform != "noise":
            return cell
        entries = {parent: store.entry("cells", parent) for parent in cell.spec.parents}
        parents = tuple(
            parent for parent, entry in entries.items() if entry.failure() is None or entry.manifest() is not None
        )
        return cell.model_copy(update={"spec": cell.spec.model_copy(update={"parents": parents})})

    def save(self, store: Store) -> None:
        """Keep the plan in the store as its suite's."""
        write_json(store.root / "plans" / f"{self.suite.name}.json", self.model_dump(mode="json"))

    @classmethod
    def load(cls, store: Store, suite: str | None = None) -> Plan:
        """Read the plan of a suite (or the only one of the store)."""
        names = sorted(path.stem for path in (store.root / "plans").glob("*.json"))
        if suite is None and len(names) != 1:
            raise UserError(f"{store.root} holds plans of {', '.join(names) or 'no suite'}; choose one with --suite.")
        name = suite or names[0]
        if name not in names:
            raise UserError(f"{store.root} holds no run of suite {name!r}; it has {', '.join(names) or 'none'}.")
        return cls.parse(read_json(store.root / "plans" / f"{name}.json"), f"Plan of {name}")


def build_task(spec: TaskSpec) -> Task:
    """Return a registered task with validated settings."""
    kind = tasks.get(spec.task)
    return kind(kind.Settings.parse(spec.settings, spec.task))


def base_cell(model: ModelSpec) -> CellSpec:
    """Return the cell of the untouched base model; it depends on nothing else."""
    return CellSpec(model=model.digest, transform=BASE, method=BASE, variant=BASE)
