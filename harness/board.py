"""From a plan and a store to a board: the bridge between what was run and what is claimed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..leaderboards import Board, build_board
from ..leaderboards.inputs import BoardSpec, Checkpoint, CheckpointKind, TaskInfo, TrackRoles
from .errors import UserError
from .files import read_json, read_jsonl, write_text
from .plan import Plan, build_task
from .records import Record
from .state import CellState, entries, state_of
from .store import Store

KINDS: dict[str, CheckpointKind] = {"base": "base", "noise": "noise", "import": "import", "train": "method"}
"""Transform to the board's word for what it makes."""

RECORDED = ("threads", "device", "machine", "attention", "torch", "transformers")
"""What was recorded beside results and must not differ within a table unsaid."""


def board_of(plan: Plan, store: Store) -> Board:
    """Build the board of a plan from what the store holds."""
    states = [state_of(plan, cell, store) for cell in plan.cells]
    circumstances = [recorded(plan, state, store) for state in states]
    usual = {
        key: Counter(value for found in circumstances for value in found.get(key, ())).most_common(1)[0][0]
        for key in RECORDED
        if any(key in found for found in circumstances)
    }
    checkpoints = [
        checkpoint(state, [word for key, value in usual.items() for word in _unusual(key, value, found)])
        for state, found in zip(states, circumstances, strict=True)
    ]
    facts = {"measured with": ", ".join(f"{key} {value}" for key, value in usual.items())} if usual else {}
    return build_board(board_spec(plan, facts), checkpoints)


def recorded(plan: Plan, state: CellState, store: Store) -> dict[str, list[str]]:
    """Return the distinct values of what was recorded when a cell was made and measured."""
    finished = [outcome for outcome, _ in entries(plan, state.cell, store).values()]
    made = store.entry("cells", state.cell.id)
    manifests = [entry.file("manifest.json") for entry in (made, *finished)]
    found: dict[str, set[str]] = {}
    for path in filter(Path.is_file, manifests):
        beside = read_json(path).get("recorded", {})
        for key in RECORDED:
            if key in beside:
                found.setdefault(key, set()).add(str(beside[key]))
    return {key: sorted(values) for key, values in found.items()}


def _unusual(key: str, usual: str, found: dict[str, list[str]]) -> list[str]:
    others = [value for value in found.get(key, ()) if value != usual]
    return [f"made or measured with {key} {', '.join(others)}, most rows with {usual}"] if others else []


def board_spec(plan: Plan, facts: dict[str, str]) -> BoardSpec:
    """Return what the board covers: tracks with both their tasks, and the facts that a reader must know."""
    suite = plan.suite
    roles = {name: suite.tracks[name] for name in plan.tracks}
    complete = {name: role for name, role in roles.items() if {role.forget_task, role.retain_task} <= set(plan.tasks)}
    if not complete:
        raise UserError("No track has both its tasks; name a forget task and its retain task in --tasks.")
    forget = [role.forget_task for role in complete.values()]
    tracks = {
        name: TrackRoles(role.forget_task, role.retain_task, tuple(task for task in forget if task != role.forget_task))
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
        limit=plan.limit,
        facts={**_facts(plan), **facts},
        command=plan.command,
    )


def _info(plan: Plan, name: str) -> TaskInfo:
    planned = plan.tasks[name]
    metric = build_task(planned.spec).metrics[0]
    described = f"{planned.spec.task}, {planned.count} items, data {planned.data}"
    return TaskInfo(name, metric.score, metric.chance, metric.better, planned.version, described)


def _facts(plan: Plan) -> dict[str, str]:
    models = "; ".join(f"{name} ({model.dtype}, {model.digest})" for name, model in plan.models.items())
    facts = {"models": models, "engine": plan.engine}
    if plan.suite.tuning:
        facts["settings"] = plan.suite.tuning
    if plan.scorer is not None:
        name = plan.scorer.name or plan.scorer.kind
        facts["judge"] = f"{name} ({plan.scorer.kind}, {plan.scorer.digest})"
    for track in plan.tracks:
        data = next(
            (c.spec.settings["data"] for c in plan.cells if c.spec.track == track and c.spec.settings.get("data")), None
        )
        if data is not None:
            forget = ", ".join(f"{topic} {digest}" for topic, digest in data["forget"].items())
            facts[f"text of {track}"] = (
                f"forget {forget}; retain {data['retain']}; probe {data['probe'] or 'forget against retain'}"
            )
    return facts


def checkpoint(state: CellState, warnings: Sequence[str]) -> Checkpoint:
    """Return a planned cell as the board sees it: its records where it is measured, else why not."""
    spec = state.cell.spec
    return Checkpoint(
        model=state.cell.model,
        track=spec.track,
        method=spec.method,
        variant=spec.variant,
        kind=KINDS[spec.transform],
        seed=spec.seed,
        cell=state.cell.id,
        status="ok" if state.finished else "failed" if state.failure else "pending",
        failure=state.failure,
        records={
            name: [Record(**row) for row in read_jsonl(entry.file("records.jsonl"))]
            for name, entry in state.records.items()
        },
        warnings=tuple(warnings),
    )


def write_board(board: Board, store: Store) -> None:
    """Write the board as markdown and JSON beside the records it is made from."""
    folder = store.root / "leaderboards"
    write_text(folder / f"{board.spec.suite}.md", board.to_markdown())
    write_text(folder / f"{board.spec.suite}.json", board.to_json())
