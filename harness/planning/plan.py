"""The plan: which checkpoints a run wants and what is asked of them. Plain data, kept beside the board it is for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr, field_validator

from ...tasks.base import Task, tasks
from ..data import DataRow, Rows, load_rows, sample_items
from ..errors import UserError
from ..models.load import ModelSpec
from ..records import Item
from ..specs import Spec, digest, identity, recorded, runtime
from ..store.entries import Store
from ..store.files import read_json, read_sealed, write_sealed
from ..store.identity import BASE, SHUFFLED, CellSpec, OutcomeSpec, RecordSpec
from ..suite import Role, ScorerSpec, StressSpec, SuiteSpec, TaskSpec


class PlannedTask(Spec):
    """A task with its data pinned: which rows, which items of them, which settings count for what."""

    name: str = identity(description="name in the suite")
    spec: TaskSpec = runtime()
    version: int = identity()
    settings: dict[str, Any] = identity()
    outcome_settings: dict[str, Any] = identity(description="those that the answers depend on")
    judged: bool = identity()
    scorer: ScorerSpec | None = identity(None, description="its scorer of texts")
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
            chat=model.chat,
        )

    def record(self, outcome: OutcomeSpec) -> RecordSpec:
        """Return the identity of the scores of a set of answers."""
        scorer = self.scorer.identity() if self.scorer is not None else None
        return RecordSpec(outcome=outcome.id, version=self.version, settings=self.settings, scorer=scorer)

    def asked_of(self, cell: CellSpec) -> PlannedTask:
        """Return the task as a cell is asked it: with choices in another order for the null that is made so."""
        order = tasks.get(self.spec.task).shuffled if cell.transform == SHUFFLED else {}
        if not order or not order.keys() <= self.settings.keys():
            return self
        changed = {
            "spec": self.spec.model_copy(update={"settings": {**self.spec.settings, **order}}),
            "settings": {**self.settings, **order},
            "outcome_settings": {**self.outcome_settings, **order},
        }
        return self.model_copy(update=changed)

    def without_data(self) -> Task:
        """Return the task without examples: it says what it does with items, and asks nothing."""
        kind = tasks.get(self.spec.task)
        return kind(kind.Settings.parse(self.settings, self.spec.task))

    def build(self) -> tuple[Task, list[Item]]:
        """Return the task and its items, read again from the data; raise a `UserError` where the data changed."""
        folder = Path(self.folder) if self.folder else None
        task, items, data = read_task(self.spec, folder, self.limit)
        if (data, _digest_of(items)) != (self.data, self.items):
            raise UserError(f"The data of task {self.name} changed after the run was planned; run again.")
        return task, items


class PlannedCell(Spec):
    """A cell of a plan, on a model by its name."""

    model: str = identity()
    spec: CellSpec = identity()
    folder: str | None = runtime(None, description="folder of an imported checkpoint")
    notes: tuple[str, ...] = recorded((), description="in what an imported checkpoint differs from its base")
    role: Role | None = recorded(None, description="what it, or its parent, stands for on the tracks that it serves")
    serves: tuple[str, ...] = recorded((), description="the tracks of its role")

    @field_validator("notes", "serves", mode="before")
    @classmethod
    def _list_from_json(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @property
    def id(self) -> str:
        """The cell id."""
        return self.spec.id


class StoredLog(Spec):
    """A row of a track that is known by stored values of items alone; no cell, as nothing is made or measured.

    Its records stand in the plan, so that boards need the files no more.
    """

    name: str = identity(description="of its row: the role, where it has one")
    role: Role | None = identity(None)
    track: str = identity()
    digest: str = identity(description="digest of the files, by task")
    files: dict[str, str] = recorded({}, description="task to the name of its file")
    records: dict[str, list[dict[str, Any]]] = recorded(description="by task, of the items that are asked")
    notes: tuple[str, ...] = recorded((), description="how its values were matched to items")

    @field_validator("notes", mode="before")
    @classmethod
    def _list_from_json(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @property
    def scores(self) -> list[str]:
        """What it has values of: TASK.SCORE."""
        named = {
            f"{task}.{name}" for task, rows in self.records.items() for row in rows for name in row["scores"] or {}
        }
        return sorted(named)

    def has(self, score: tuple[str, str]) -> bool:
        """Tell whether it has values of a score (task, name)."""
        return any(score[1] in (row["scores"] or {}) for row in self.records.get(score[0], ()))

    @property
    def words(self) -> str:
        """What it is, for people."""
        files = ", ".join(f"{task} ({file})" for task, file in self.files.items())
        return "; ".join((f"{self.name} of {self.track} is stored values of {files}", *self.notes))


PLAN_SCHEMA = 3


class Plan(Spec):
    """What a run wants. A board covers exactly one plan."""

    schema_version: int = identity(PLAN_SCHEMA)
    suite: SuiteSpec = runtime()
    models: dict[str, ModelSpec] = identity()
    tracks: tuple[str, ...] = identity()
    tasks: dict[str, PlannedTask] = identity()
    cells: tuple[PlannedCell, ...] = identity()
    logs: tuple[StoredLog, ...] = identity((), late=True, description="references and rows that are stored values")
    stress: dict[str, StressSpec] = identity({}, description="what every cell is put through too")
    seeds: tuple[int, ...] = identity()
    limit: int | None = identity(None)
    engine: str = identity()
    data_folder: str | None = runtime(None)
    command: str = recorded("", description="how to run it again")
    notes: tuple[str, ...] = recorded((), description="what the data say of themselves, shown on boards")
    left_out: dict[str, str] = recorded({}, description="optional task to why it is not measured, shown on boards")
    unreached: tuple[str, ...] = runtime((), description="in a sketch: what could not be reached, with what to do")
    _by_id: tuple[tuple[PlannedCell, ...], dict[str, PlannedCell]] | None = PrivateAttr(None)

    @field_validator("tracks", "cells", "logs", "seeds", "notes", "unreached", mode="before")
    @classmethod
    def _lists_from_json(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    def tasks_of(self, cell: PlannedCell) -> dict[str, PlannedTask]:
        """Return what is asked of a cell: all tasks; what S is made of, of one derived from or beside another."""
        if cell.spec.stress is None and cell.spec.beside is None:
            return {name: task.asked_of(cell.spec) for name, task in self.tasks.items()}
        on = cell.serves or ((cell.spec.track,) if cell.spec.track else self.tracks)
        tracks = [self.suite.tracks[name] for name in self.tracks if name in on]
        wanted = {name for track in tracks for name in (track.forget_task, track.retain_task)}
        return {name: task for name, task in self.tasks.items() if name in wanted}

    @property
    def by_id(self) -> dict[str, PlannedCell]:
        """The cells as they are planned, by id."""
        if self._by_id is None or self._by_id[0] is not self.cells:
            self._by_id = (self.cells, {cell.id: cell for cell in self.cells})
        return self._by_id[1]

    def save(self, store: Store) -> None:
        """Keep the plan in the store as its suite's."""
        write_sealed(store.plan_file(self.suite.name), self.model_dump(mode="json"))

    @classmethod
    def load(cls, store: Store, suite: str | None = None) -> Plan:
        """Read the plan of a suite (or the only one of the store)."""
        names = store.plans()
        if suite is None and len(names) != 1:
            raise UserError(f"{store.root} holds plans of {', '.join(names) or 'no suite'}; choose one with --suite.")
        name = suite or names[0]
        if name not in names:
            raise UserError(f"{store.root} holds no run of suite {name!r}; it has {', '.join(names) or 'none'}.")
        path = store.plan_file(name)
        again = "run the same `unlearn-bench evaluate` again; what is finished is not done again."
        try:
            if read_json(path)["schema_version"] != PLAN_SCHEMA:
                raise UserError(
                    f"The plan of {name} in {store.root} was made by another version of unlearn-bench: {again}"
                )
            values = read_sealed(path)
        except (KeyError, TypeError):
            raise UserError(f"{path} is damaged: {again}") from None
        return cls.parse(values, f"Plan of {name}")


def build_task(spec: TaskSpec, folder: Path | None = None) -> Task:
    """Return a registered task with validated settings, and its few-shot examples where they are asked for."""
    return _with_examples(spec, folder)[0]


def _with_examples(spec: TaskSpec, folder: Path | None) -> tuple[Task, Rows | None]:
    kind = tasks.get(spec.task)
    task = kind(kind.Settings.parse(spec.settings, spec.task))
    if not task.shots or spec.fewshot is None:
        return task, None
    examples = load_rows(spec.fewshot, folder, kind.Row)
    return kind(task.settings, examples.rows), examples


def chosen_items(task: Task, spec: TaskSpec, folder: Path | None, limit: int | None) -> list[Item]:
    """Return the items of a task that are asked: all, or a seeded sample of `limit`."""
    return sample_items(task.items(task_rows(task, spec, folder).rows), limit)


def task_rows(task: Task, spec: TaskSpec, folder: Path | None) -> Rows:
    """Return the rows of a task: those of its data, or that it brings itself."""
    if spec.data is not None:
        return load_rows(spec.data, folder, task.Row)
    own = task.own_rows()
    return Rows([DataRow(row) for row in own], digest(own))


def read_task(spec: TaskSpec, folder: Path | None, limit: int | None) -> tuple[Task, list[Item], str]:
    """Return a task, its items that are asked, and the digest of the rows, examples included, that both were read from.

    Each source is read once, so that the digest is that of what is used.
    """
    task, examples = _with_examples(spec, folder)
    rows = task_rows(task, spec, folder)
    items = sample_items(task.items(rows.rows), limit)
    return task, items, rows.digest if examples is None else digest([rows.digest, examples.digest])


def pin_items(spec: TaskSpec, folder: Path | None, limit: int | None) -> tuple[str, str, int]:
    """Return the digest of a task's rows (examples included), that of the ids that are asked, and their number."""
    _, items, rows = read_task(spec, folder, limit)
    return rows, _digest_of(items), len(items)


def _digest_of(items: Sequence[Item]) -> str:
    return digest([item.id for item in items])


def base_cell(model: ModelSpec) -> CellSpec:
    """Return the cell of the untouched base model; it depends on nothing else."""
    return CellSpec(model=model.digest, transform=BASE, method=BASE, variant=BASE)
