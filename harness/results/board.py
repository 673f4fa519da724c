"""From a plan and a store to a board: the bridge between what was run and what is claimed."""

from __future__ import annotations

import gc
import logging
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...leaderboards.board import Board, build_board, load_board
from ...leaderboards.rows.audit import audit_texts
from ...leaderboards.spec import LOG, BoardSpec, Checkpoint, CheckpointKind, Published, TaskInfo, TrackRoles
from ...leaderboards.stats.arrays import Answers
from ...tasks.base import Task
from ...tasks.base import tasks as registered
from ..corpora import TemplateSpec
from ..errors import UserError
from ..planning.plan import Plan, PlannedCell
from ..planning.status import CellStatus, statuses
from ..planning.stress import described
from ..records import why_missing
from ..store.entries import Store
from ..store.files import read_jsonl, write_text
from ..store.identity import NULLS, UNRELATED
from ..suite import PublishedSpec, ScorerSpec
from .composites import composites_of, left_out
from .made import inputs_of, is_made, note_made
from .optimism import optimism_facts
from .provenance import (
    BATCHES,
    cut_answers,
    diverged,
    log_schema,
    recorded_values,
    tuned_facts,
    unmatched,
    unusual,
    usual_values,
    usual_words,
)

logger = logging.getLogger(__name__)

KINDS: dict[str, CheckpointKind] = {
    "base": "base",
    "noise": "noise",
    "import": "import",
    "train": "method",
    "finetune": "reference",
    **dict.fromkeys(NULLS, "null"),
}
"""Where a checkpoint comes from to the board's word for it."""


def kind_of(cell: PlannedCell) -> CheckpointKind:
    """Return the board's word for a planned cell."""
    return KINDS[cell.spec.origin] if cell.role is None else "reference"


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep Python from looking for cycles among millions of rows, which have none and go when they were read."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_uncollected()
def board_of(plan: Plan, store: Store, cells: Sequence[CellStatus] | None = None) -> Board:
    """Build the board of a plan from what the store holds; `cells`: what it holds of each, where that is known."""
    started = time.perf_counter()
    cells = statuses(plan, store) if cells is None else cells
    recorded = [recorded_values(status, store) for status in cells]
    usual = usual_values(recorded)
    spec = board_spec(plan)
    controls = _controls_only(spec)
    bare = unmatched(cells, store)
    checkpoints = list(logged_checkpoints(plan))
    for status, values in zip(cells, recorded, strict=True):
        trained = [*diverged(status, store), *cut_answers(status, store)]
        warnings = [*unusual(usual, values), *trained, *bare.get(status.cell.id, ())]
        seen = checkpoint(status, store, controls, warnings)
        checkpoints += on_tracks(status.cell, replace(seen, texts=_texts(plan, status)))
    facts = {"measured with": usual_words(usual, recorded)} if usual else {}
    facts |= {"batches": BATCHES.format(size=usual["batch_size"])} if "batch_size" in usual else {}
    board = build_board(replace(spec, facts={**spec.facts, **facts}), checkpoints)
    board = replace(board, spec=replace(board.spec, facts={**board.spec.facts, **optimism_facts(plan, board.rows)}))
    logger.info("board of %d checkpoints built in %.1f s", len(checkpoints), time.perf_counter() - started)
    return board


def _controls_only(spec: BoardSpec) -> set[str]:
    """Return the tasks that no track's S is made of."""
    controls = {task for roles in spec.tracks.values() for task in roles.controls}
    return controls - {task for roles in spec.tracks.values() for task in (roles.forget_task, roles.retain_task)}


def _final_alpha(status: CellStatus, store: Store) -> float | None:
    """Return alpha at the end of training: the centre of its policy where it is learned, not the last draw from it."""
    manifest = store.entry("cells", status.cell.id).manifest() or {}
    summary = manifest.get("summary", {})
    by_role = {role: summary[name] for name, role in log_schema(status.cell.spec, summary).items() if name in summary}
    return math.exp(by_role["log_weight"]) if "log_weight" in by_role else by_role.get("weight")


def _texts(plan: Plan, status: CellStatus) -> dict[str, dict[str, float]]:
    """Return what the stored continuations of a cell have in common, by task."""
    return {
        name: audit_texts([row["texts"] for row in read_jsonl(outcome.file("outcomes.jsonl"))])
        for name, outcome in status.outcomes.items()
        if plan.tasks[name].without_data().needs == "generations" and name in status.records
    }


def board_spec(plan: Plan) -> BoardSpec:
    """Return what the board covers: tracks with both their tasks, and the facts that a reader must know."""
    suite = plan.suite
    roles = {name: suite.tracks[name] for name in plan.tracks}
    complete = {name: role for name, role in roles.items() if {role.forget_task, role.retain_task} <= set(plan.tasks)}
    if not complete:
        raise UserError("No track has both its tasks; name a forget task and its retain task in --tasks.")
    forget = [role.forget_task for role in complete.values()]
    originals = {track for cell in plan.cells if cell.role == "original" for track in cell.serves}
    tracks = {
        name: TrackRoles(
            role.forget_task,
            role.retain_task,
            tuple(task for task in forget if task != role.forget_task),
            tuple(task for task in role.controls if task in plan.tasks),
            role.neighbours,
            "original" if name in originals else "base",
        )
        for name, role in complete.items()
    }
    return BoardSpec(
        suite=suite.name,
        revision=suite.revision,
        description=suite.description,
        tracks=tracks,
        tasks={name: _info(plan, name) for name in plan.tasks},
        resamples=suite.bootstrap.resamples,
        confidence=suite.bootstrap.confidence,
        seed=suite.bootstrap.seed,
        interval=suite.bootstrap.interval,
        margin=suite.bootstrap.margin,
        limit=plan.limit,
        facts=_facts(plan),
        command=plan.command,
        stress={name: described(stress) for name, stress in plan.stress.items()},
        published=_published(suite.published),
        composites=composites_of(plan, tracks),
    )


def _published(spec: PublishedSpec | None) -> Published | None:
    return None if spec is None else Published(spec.source, spec.values, spec.alpha)


def _info(plan: Plan, name: str) -> TaskInfo:
    planned = plan.tasks[name]
    kind = registered.get(planned.spec.task)
    metric = planned.without_data().metric
    return TaskInfo(
        name,
        metric.score,
        metric.chance,
        metric.better,
        planned.version,
        f"{planned.spec.task}, {planned.count} items, data {planned.data}{_named(kind.compared, planned.settings)}",
        metric.largest,
        {**Task.marks, **kind.marks},
        kind.chosen,
    )


def _named(names: Sequence[str], settings: Mapping[str, Any]) -> str:
    """Return settings for a board's facts; those of a group of settings one by one, empty texts not."""
    shown = {name: settings[name] for name in names if settings.get(name) != ""}
    flat = {
        key: value
        for name, own in shown.items()
        for key, value in (own.items() if isinstance(own, Mapping) else [(name, own)])
    }
    return "".join(f"; {key} {value!r}" for key, value in flat.items())


def _facts(plan: Plan) -> dict[str, str]:
    models = "; ".join(f"{name} ({model.dtype}, {model.digest})" for name, model in plan.models.items())
    facts = {"models": models, "engine": plan.engine, **tuned_facts(plan)}
    chatting = [name for name, model in plan.models.items() if model.chat]
    if chatting:
        facts["chat template"] = "on" if len(chatting) == len(plan.models) else f"on for {', '.join(chatting)}"
    others = dict.fromkeys(c.spec.settings["method"] for c in plan.cells if c.spec.origin == UNRELATED)
    if others:
        facts["unrelated"] = f"{', '.join(others)}, trained with the retain text in place of the forget text"
    if plan.left_out:
        facts["not measured"] = left_out(plan)
    if plan.notes:
        facts["notes"] = "; ".join(plan.notes)
    scorers: dict[str, list[str]] = {}
    for task, planned in plan.tasks.items():
        if planned.scorer is not None:
            scorers.setdefault(_scorer(planned.scorer), []).append(task)
    for scorer, tasks in scorers.items():
        facts["scorer" if len(scorers) == 1 else f"scorer of {', '.join(tasks)}"] = scorer
    facts |= _reference_facts(plan)
    for track in plan.tracks:
        data = next(
            (c.spec.settings["data"] for c in plan.cells if (c.spec.track, c.spec.origin) == (track, "train")), None
        )
        if data is not None:
            forget = ", ".join(f"{topic} {digest}" for topic, digest in data["forget"].items())
            facts[f"text of {track}"] = (
                f"forget {forget}; retain {data['retain']}; probe {data['probe'] or 'forget against retain'}"
                f"{_templated(data)}"
            )
    return facts


def _templated(data: Mapping[str, Any]) -> str:
    """Return what questions and answers are made texts of by, where some text is questions."""
    template = data.get("template")
    if template is None:
        return ""
    named = (key for key in TemplateSpec.model_fields if template.get(key))
    return "; template " + ", ".join(f"{key} {template[key]!r}" for key in named)


def _reference_facts(plan: Plan) -> dict[str, str]:
    """Return what stands in which role on which tracks, with what pins it."""
    facts: dict[str, str] = {}
    for cell in (cell for cell in plan.cells if cell.role is not None and cell.spec.stress is None):
        settings = cell.spec.settings
        if cell.spec.transform == "finetune":
            what = f"trained from base with seed {cell.spec.seed} on text {', '.join(settings['data']['text'])}"
            what += _templated(settings["data"])
        else:
            what = f"a model made elsewhere, {settings.get('digest') or settings.get('adapter')}"
        facts[f"{cell.role} of {', '.join(cell.serves)}"] = what
    return facts | {f"{log.name} of {log.track}": f"{log.words}, {log.digest}" for log in plan.logs}


def _scorer(scorer: ScorerSpec) -> str:
    note = f"; {scorer.note}" if scorer.note else ""
    settings = "".join(f", {key} {value}" for key, value in scorer.settings.items())
    return f"{scorer.name or scorer.kind} ({scorer.kind}, {scorer.digest}{settings}){note}"


def checkpoint(status: CellStatus, store: Store, controls: Collection[str], warnings: Sequence[str]) -> Checkpoint:
    """Return a planned cell as the board sees it: its records where it is measured, else why not.

    A cell that lacks only some `controls` is measured: they have no say in S.
    """
    spec = status.cell.spec
    measured = status.made and set(status.missing) <= set(controls)
    rows = {name: read_jsonl(entry.file("records.jsonl")) for name, entry in status.records.items()}
    unscored = status.unscored
    missing = {name: unscored.get(name) or why_missing(row["missing"] for row in of) for name, of in rows.items()}
    return Checkpoint(
        model=status.cell.model,
        track=spec.track,
        method=spec.method,
        variant=spec.variant,
        kind=kind_of(status.cell),
        stress=spec.stress,
        seed=spec.seed,
        cell=status.cell.id,
        status="ok" if measured else "failed" if status.failure else "pending",
        failure=status.failure,
        records={name: Answers.of_rows(of) for name, of in rows.items()},
        missing={name: cause for name, cause in missing.items() if cause is not None},
        warnings=(*status.cell.notes, *warnings),
        alpha=_final_alpha(status, store),
        changes=spec.changes,
        beside=spec.beside,
        of=spec.parents[0] if spec.beside else None,
    )


def on_tracks(cell: PlannedCell, seen: Checkpoint) -> list[Checkpoint]:
    """Return a checkpoint as it stands on boards: a reference once on each of its tracks, called by its role."""
    if cell.role is None:
        return [seen]
    variant = cell.role if cell.spec.stress is None else f"{cell.role}+{cell.spec.stress}"
    return [replace(seen, track=track, variant=variant, seed=None, role=cell.role) for track in cell.serves]


def logged_checkpoints(plan: Plan) -> Iterator[Checkpoint]:
    """Give the references and rows of a plan that are stored values, for every model."""
    for log in plan.logs:
        lacking = {name: cause for name in plan.tasks if (cause := _not_stored(plan, name, log.records.get(name)))}
        for model in plan.models:
            yield Checkpoint(
                model=model,
                track=log.track,
                method=LOG,
                variant=log.name,
                kind="import" if log.role is None else "reference",
                seed=None,
                cell=log.digest,
                records={name: Answers.of_rows(rows) for name, rows in log.records.items()},
                missing=lacking,
                warnings=(log.words,),
                role=log.role,
            )


def _not_stored(plan: Plan, task: str, rows: Sequence[Mapping[str, Any]] | None) -> str | None:
    """Return why stored values give a task no value, None where they do."""
    metric = registered.get(plan.tasks[task].spec.task).metrics[0].score
    if rows is None:
        return "a stored log has no items of it"
    has = any(metric in (row["scores"] or {}) for row in rows)
    return None if has else f"a stored log has no {metric} of it"


def write_board(board: Board, store: Store) -> None:
    """Write the board as markdown and JSON beside the records it is made from."""
    json, markdown = _files(board.spec.suite, store)
    write_text(markdown, board.to_markdown())
    write_text(json, board.to_json())


def written_board(plan: Plan, store: Store, cells: Sequence[CellStatus]) -> Board:
    """Return the board of a plan and see that it is written; the one that lies there where it shows the same results.

    `cells`: what the store holds of each.
    """
    files, inputs = _files(plan.suite.name, store), inputs_of(plan, store, cells)
    if is_made(inputs, *files):
        return load_board(files[0])
    board = board_of(plan, store, cells)
    write_board(board, store)
    note_made(inputs, *files)
    return board


def _files(suite: str, store: Store) -> tuple[Path, Path]:
    """Return where the JSON and the markdown of a suite's board lie."""
    folder = store.root / "leaderboards"
    return folder / f"{suite}.json", folder / f"{suite}.md"
