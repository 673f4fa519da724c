"""The tasks of a run, each pinned before anything runs: which rows and items of them, which settings, which scorer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ...tasks.base import Scorer, Task, scorers, tasks
from ..errors import DataError, UserError, suggest
from ..store.entries import Store
from ..suite import ScorerSpec, SuiteSpec, TaskSpec
from .classes import source_of
from .plan import PlannedTask, build_task, pin_items
from .request import Request
from .scorers import ScorerUse, resolve_scorer
from .sources import SourceReader
from .variants import SCORER, overrides


def choose(kind: str, wanted: Sequence[str] | None, known: Iterable[str]) -> list[str]:
    """Return the wanted names, all that are known where none is named; raise a `UserError` on one that is not."""
    known = list(known)
    for name in wanted or ():
        if name not in known:
            raise UserError(f"Unknown {kind} {name!r}.{suggest(name, known)}")
    return list(wanted or known)


def resolve_tasks(
    request: Request,
    suite: SuiteSpec,
    tracks: Sequence[str],
    folder: Path | None,
    store: Store | None,
    reader: SourceReader,
) -> tuple[dict[str, PlannedTask], dict[str, str]]:
    """Return the tasks of the tracks, controls last, each pinned to its rows, items and scorer.

    Beside them stands why an optional task is left out, by its name: what it needs is out of reach, and nobody named
    it.
    """
    roles = [suite.tracks[track] for track in tracks]
    measured = [name for role in roles for name in (role.forget_task, role.retain_task)]
    controls = [name for role in roles for name in role.controls]
    known = {name: suite.tasks[name] for name in dict.fromkeys([*measured, *controls])}
    planned: dict[str, PlannedTask] = {}
    left_out: dict[str, str] = {}
    for name in choose("task", request.task_names, known):
        spec, place = known[name], request.task_folder(name) or folder
        optional = spec.optional and request.task_names is None
        read = reader.strict() if optional else reader
        try:
            kind = tasks.get(spec.task)
            scorer = read(lambda spec=spec: _scorer(request, spec, suite, folder, store), None) if kind.judged else None
            planned[name] = _pinned(name, spec, scorer, request.limit, place, read)
        except DataError:
            raise
        except UserError as cause:
            if not optional:
                raise
            left_out[name] = str(cause)
    if SCORER in overrides(request.settings) and not any(
        task.judged and task.spec.scorer is None for task in planned.values()
    ):
        raise UserError("--set scorer.… changes nothing: no task of this run has the suite's scorer; leave it out.")
    return planned, left_out


def _pinned(
    name: str, spec: TaskSpec, scorer: ScorerSpec | None, most: int | None, place: Path | None, reader: SourceReader
) -> PlannedTask:
    """Return a task, pinned to its rows and at most so many items."""
    kind = tasks.get(spec.task)
    spec = spec if scorer is None else _with_threshold(spec, scorer)
    spec = reader(lambda: _completed(spec), spec)
    settings = kind.Settings.parse(spec.settings, spec.task).identity()
    limit = min(filter(None, (spec.limit, most)), default=None)
    expected = min(filter(None, (spec.data and spec.data.expected, limit)), default=0)

    def pin() -> tuple[str, str, int]:
        if spec.data is not None:
            reader.rows(spec.data, place, kind.Row)  # what was out of reach is not asked for again
        return pin_items(spec, place, limit)

    data, items, count = reader(pin, ("", "", expected))
    return PlannedTask(
        name=name,
        spec=spec,
        version=kind.version,
        settings=settings,
        outcome_settings={key: value for key, value in settings.items() if key not in kind.scoring} | source_of(kind),
        judged=kind.judged,
        scorer=scorer,
        data=data,
        items=items,
        count=count,
        limit=limit,
        folder=str(place) if place else None,
    )


def _completed(spec: TaskSpec) -> TaskSpec:
    """Return a task with the settings that only its source knows."""
    kind = tasks.get(spec.task)
    values = kind.completed(kind.Settings.parse(spec.settings, spec.task))
    return spec.model_copy(update={"settings": values}) if values else spec


def _with_threshold(spec: TaskSpec, scorer: ScorerSpec) -> TaskSpec:
    """Return a task with the threshold that its scorer has, if it has one."""
    own = {} if scorer.threshold is None else {"threshold": scorer.threshold}
    return spec.model_copy(update={"settings": {**spec.settings, **own}})


def _scorer(
    request: Request, task: TaskSpec, suite: SuiteSpec, folder: Path | None, store: Store | None
) -> ScorerSpec | None:
    """Return the scorer of a task: its own, else the one that the user named, else the suite's.

    One of pairs or of fluency is the task's own.
    """
    kind = tasks.get(task.task)
    needs = _scored(kind)
    if task.scorer is None and (kind.pairs or kind.fluency):
        example = "fluency" if kind.fluency else "nli"
        raise UserError(
            f"Task {task.task} needs a scorer of {needs}: name one under `scorer:` of the task in the suite, as"
            f" {{kind: {example}, path: FOLDER}}."
        )
    own = task.scorer or suite.scorer
    if own is not None and (scores := _scored(scorers.get(own.kind))) != needs:
        raise UserError(f"Scorer {own.kind} scores {scores}, and task {task.task} needs one of {needs}; name another.")
    named = request.scorer if task.scorer is None else None
    built = build_task(task.model_copy(update={"fewshot": None}))
    changes = overrides(request.settings).get(SCORER, {}) if task.scorer is None else {}
    use = ScorerUse(built.threshold, built.workload().sampled, changes)
    return resolve_scorer(named, own, Path(suite.folder), folder, store, use)


def _scored(kind: type[Task] | type[Scorer]) -> str:
    """Return what a kind of scorer scores, or a task has scored."""
    return "pairs of texts" if kind.pairs else "fluency of texts" if kind.fluency else "texts"
