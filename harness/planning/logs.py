"""Stored logs: references and rows that are known by the values of their items, such as a published evaluation's.

Planning reads them whole, matches their values to a task's items, and keeps what it found in the plan. Values with the
items' ids are matched by id. A published log has none: its values are matched by place, index 0 to the first item of
the task's data, and boards say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.logs import chosen, placed, read_log
from ..errors import UserError, suggest
from ..records import Record, to_row
from ..specs import digest
from ..store.files import file_sha256
from ..suite import Role, SuiteSpec
from .plan import PlannedTask, StoredLog, chosen_items
from .references import ANY_TASK, Reference, found_below


@dataclass(frozen=True)
class Values:
    """The values of a task in a file: where they stand, for messages, and the records as they stand there."""

    task: str
    where: str
    file: Path
    records: Sequence[Record]


@dataclass(frozen=True)
class Log:
    """What a reference or row is called, its role, and the file of its values by task (`FILE#SET` names one set)."""

    name: str
    role: Role | None
    files: Mapping[str, str]
    tracks: Sequence[str]


def stored_logs(
    references: Sequence[Reference],
    rows: Mapping[str, Path],
    suite: SuiteSpec,
    tracks: Sequence[str],
    tasks: Mapping[str, PlannedTask],
    places: Sequence[Path],
) -> list[StoredLog]:
    """Return what stands on which track by stored values: references, the suite's logs, and rows of a request's files.

    Raises:
        UserError: a file that is not there or holds no values, an unknown task, or values of other items.
    """
    named = {**suite.logs, **{name: {ANY_TASK: str(file)} for name, file in rows.items()}}
    logs = [Log(of.role, of.role, of.spec.records, of.tracks) for of in references if of.spec.records]
    logs += [Log(name, None, files, tracks) for name, files in named.items()]
    stored = []
    for log in logs:
        own = [found for track in log.tracks if (found := _stored(log, track, suite, tasks, places))]
        if not own:
            raise UserError(f"The values of {log.name} are of no task of {', '.join(log.tracks)} in this run.")
        stored += own
    return stored


def _stored(
    log: Log, track: str, suite: SuiteSpec, tasks: Mapping[str, PlannedTask], places: Sequence[Path]
) -> StoredLog | None:
    """Return what stands on a track; None where it holds nothing that the track is measured by."""
    files, digests, records, notes = {}, {}, {}, []
    for name, file in log.files.items():
        if name not in (ANY_TASK, *suite.tasks):
            raise UserError(f"{log.name}: unknown task {name!r}.{suggest(name, suite.tasks)}")
        path, _, part = file.partition("#")
        found = found_below(path, places, f"The values of {log.name}")
        for values in _values(found, part, name, suite, track, tasks):
            if values.task in tasks:
                records[values.task], said = _matched(values, tasks[values.task])
                notes += said
                files[values.task], digests[values.task] = values.where, file_sha256(values.file)
    roles = suite.tracks[track]
    if records.keys().isdisjoint((roles.forget_task, roles.retain_task, *roles.controls)):
        return None
    return StoredLog(
        name=log.name,
        role=log.role,
        track=track,
        digest=digest(digests),
        files=files,
        records=records,
        notes=tuple(notes),
    )


def _values(
    file: Path, part: str, task: str, suite: SuiteSpec, track: str, tasks: Mapping[str, PlannedTask]
) -> Iterator[Values]:
    """Give the values of a file by task: of the named one, else of those whose items or names its sets have."""
    sets = read_log(file)
    if task != ANY_TASK:
        where = f"{file.name}#{part}" if part else file.name
        yield Values(task, where, file, chosen(sets, part or task, str(file)))
        return
    roles = suite.tracks[track]
    named = {"forget": roles.forget_task, "retain": roles.retain_task}
    known = {name: _task_of(records, named.get(name, name), tasks) for name, records in sets.items()}
    if not any(known.values()):
        raise UserError(
            f"{file} holds the items of no task of this run; say in a suite which task each set of values is of:"
            f" `references: {{retain: {{records: {{TASK: {file.name}#SET}}}}}}`. Its sets: {', '.join(sets)}."
        )
    for name, of in known.items():
        if of is not None:
            yield Values(of, f"{file.name}#{name}" if len(sets) > 1 else file.name, file, sets[name])


def _task_of(records: Sequence[Record], name: str, tasks: Mapping[str, PlannedTask]) -> str | None:
    """Return the task that has these items, else the one of this name if it has as many, None: neither."""
    ids = {record.item for record in records}
    for task, planned in tasks.items():
        if not ids.isdisjoint(item.id for item in planned.build()[1]):
            return task
    return name if name in tasks and tasks[name].count == len(ids) else None


def _matched(values: Values, task: PlannedTask) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows of the items that are asked, in their order, and what is to be said of them."""
    kind, items = task.build()
    every = chosen_items(kind, task.spec, Path(task.folder) if task.folder else None, None)
    rows = {record.item: record for record in placed(values.records, every, f"{values.where} for {task.name}")}
    known = [rows[item.id] for item in items if item.id in rows]
    if not known:
        raise UserError(f"{values.where} has no value of the {len(items)} items of {task.name} that are asked.")
    notes = []
    if {record.item for record in values.records}.isdisjoint(item.id for item in every):
        notes.append(f"{values.where} has no ids: matched to the items of {task.name} by place, from the first")
    if len(known) < len(items):
        notes.append(f"{values.where} has values of {len(known)} of the {len(items)} items of {task.name}")
    return [to_row(record) for record in known], notes
