"""Stored logs: references that are known by the values of their items alone, such as a published evaluation's.

Planning reads them whole, matches their values to the items that a run asks, and keeps what it found in the plan. Rows
with the items' ids are matched by id. Rows without ids, as logs of other benchmarks have them, are matched by place:
there must be as many as the task has items, in its order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...tasks.base import tasks as registered
from ..errors import UserError, suggest
from ..records import Item, Record, to_row
from ..specs import digest
from ..store.files import file_sha256, read_jsonl
from ..suite import SuiteSpec
from .plan import PlannedTask, StoredLog, chosen_items
from .references import ANY_TASK, Reference, found_below


def stored_logs(
    references: Sequence[Reference], suite: SuiteSpec, tasks: Mapping[str, PlannedTask], places: Sequence[Path]
) -> list[StoredLog]:
    """Return the references that are stored values, one a track, each matched to the items of its tasks.

    Raises:
        UserError: a file that is not there or holds no values, a task that the run has not, other items than its, or
            no value of the task's metric.
    """
    return [
        _stored(reference, track, suite, tasks, places)
        for reference in references
        if reference.spec.records
        for track in reference.tracks
    ]


def _stored(
    reference: Reference, track: str, suite: SuiteSpec, tasks: Mapping[str, PlannedTask], places: Sequence[Path]
) -> StoredLog:
    files, digests, records, notes = {}, {}, {}, []
    for name, file in reference.spec.records.items():
        path = found_below(file, places, f"The {reference.name} values of suite {suite.name}")
        rows = read_values(path)
        task = _task_of(path, rows, tasks) if name == ANY_TASK else name
        if task not in suite.tasks:
            raise UserError(f"{reference.name}: unknown task {task!r}.{suggest(task, suite.tasks)}")
        if task not in tasks:
            continue
        records[task], note = _matched(path, rows, tasks[task])
        notes += [note] if note else []
        files[task], digests[task] = path.name, file_sha256(path)
    return StoredLog(
        role=reference.role, track=track, digest=digest(digests), files=files, records=records, notes=tuple(notes)
    )


def read_values(path: Path) -> list[Record]:
    """Return the records of a file: `records.jsonl` of a store, a row an item.

    Raises:
        UserError: it holds something else.
    """
    try:
        rows = read_jsonl(path)
        return [Record(**row) for row in rows]
    except (TypeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} holds no records: {error}; pass a records.jsonl of a store (records/ID/), a row an item."
        ) from None


def _task_of(path: Path, rows: Sequence[Record], tasks: Mapping[str, PlannedTask]) -> str:
    """Return the task whose items a file has; raise a `UserError` where none has them, or several."""
    ids = {row.item for row in rows}
    having = [name for name, task in tasks.items() if ids.issuperset(item.id for item in task.build()[1])]
    if len(having) != 1:
        what = f"of {len(having)} tasks ({', '.join(having)})" if having else "of no task of this run"
        raise UserError(
            f"{path} holds the items {what}; say which task it is of, in a suite: `references: {{retain: {{records:"
            f" {{TASK: {path.name}}}}}}}`."
        )
    return having[0]


def _matched(path: Path, rows: Sequence[Record], task: PlannedTask) -> tuple[list[dict[str, Any]], str | None]:
    """Return the rows of the items that are asked, in their order, and how they were matched where not by id."""
    kind, items = task.build()
    by_place = all(row.item.isdecimal() for row in rows)
    every = chosen_items(kind, task.spec, Path(task.folder) if task.folder else None, None)
    note = None
    if by_place and {row.item for row in rows}.isdisjoint(item.id for item in every):
        rows = _placed(path, rows, every, task)
        note = f"values of {task.name} in {path.name} have no ids of ours: matched to its {len(every)} items by place"
    known = {row.item: row for row in rows}
    lacking = [item.id for item in items if item.id not in known]
    if lacking:
        raise UserError(
            f"{path} lacks {len(lacking)} of the {len(items)} items of {task.name} ({', '.join(lacking[:3])}, …): it is"
            " of other items. Make it from the same data."
        )
    metric = registered.get(task.spec.task).metrics[0].score
    if not any(metric in (known[item.id].scores or {}) for item in items):
        raise UserError(f"{path} has no value of {metric}, the metric of {task.name}; pass a log that holds it.")
    return [to_row(row) for row in _as_items(items, known)], note


def _placed(path: Path, rows: Sequence[Record], every: Sequence[Item], task: PlannedTask) -> list[Record]:
    if len(rows) != len(every):
        raise UserError(
            f"{path} holds {len(rows)} values, {task.name} has {len(every)} items: without ids they are matched by"
            " place, so there must be as many."
        )
    return [replace(row, item=every[int(row.item)].id) for row in rows]


def _as_items(items: Sequence[Item], known: Mapping[str, Record]) -> Iterator[Record]:
    """Give the records of items with the clusters and strata that these have."""
    for item in items:
        yield replace(known[item.id], item=item.id, cluster=item.cluster, stratum=item.stratum)
