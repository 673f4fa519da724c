"""What `unlearn-bench compare` compares: stores, boards or cells, loaded for `reports/comparison/compare.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...leaderboards.board import Board, load_board
from ...leaderboards.spec import NULLS, BoardSpec, Checkpoint
from ...reports.comparison.compare import compare_sides
from ...reports.comparison.judgement import Training
from ...reports.comparison.model import Side, info_facts, suite_facts
from ...reports.comparison.report import ComparisonReport
from ..errors import UserError
from ..planning.plan import Plan, PlannedCell
from ..planning.status import CellStatus, find_cell, status_of, statuses
from ..store.entries import Store
from .board import board_of, board_spec, checkpoint
from .provenance import RECORDED, recorded_values, training_facts


def compare(a: str, b: str, output: Path, suite: str | None = None) -> ComparisonReport:
    """Compare two stores, two boards (JSON files), a store with a board, or two cells of the store `output`.

    Raises:
        UserError: one of them does not exist, or they are of kinds or suites that cannot be compared.
    """
    kinds = {_kind(a), _kind(b)}
    if kinds == {"cell"}:
        return _cells(a, b, output, suite)
    if "cell" in kinds:
        odd = a if _kind(a) == "cell" else b
        raise UserError(
            f"{odd} is neither a store nor a board (.json). Compare stores, boards, or two cells with --output STORE."
        )
    return _stores(a, b, suite) if kinds == {"store"} else _boards(a, b, suite)


def _kind(name: str) -> str:
    path = Path(name)
    return "store" if path.is_dir() else "board" if path.suffix == ".json" else "cell"


def _plans(store: Store, suite: str | None) -> dict[str, Plan]:
    names = [suite] if suite else store.plans()
    return {name: Plan.load(store, name) for name in names}


def _stores(a: str, b: str, suite: str | None) -> ComparisonReport:
    stores = Store.open(Path(a)), Store.open(Path(b))
    plans = [_plans(store, suite) for store in stores]
    common = [name for name in plans[0] if name in plans[1]]
    if not common:
        listings = [", ".join(suites) or "none" for suites in plans]
        raise UserError(f"{a} and {b} have no suite in common: {listings[0]} against {listings[1]}.")
    comparisons = [
        compare_sides(_side(a, plans[0][name], stores[0]), _side(b, plans[1][name], stores[1])) for name in common
    ]
    alone = [[name for name in suites if name not in common] for suites in plans]
    return ComparisonReport(a, b, comparisons, *alone)


def _boards(a: str, b: str, suite: str | None) -> ComparisonReport:
    named = {name: load_board(name) for name in (a, b) if _kind(name) == "board"}
    suite = suite or next(iter(named.values())).spec.suite
    boards = [named.get(name) or _built(name, suite) for name in (a, b)]
    suites = [board.spec.suite for board in boards]
    if suites != [suite, suite]:
        raise UserError(f"{a} is a board of suite {suites[0]}, {b} of {suites[1]}; compare boards of one suite.")
    return ComparisonReport(a, b, [compare_sides(Side.of_board(a, boards[0]), Side.of_board(b, boards[1]))])


def _built(name: str, suite: str) -> Board:
    store = Store.open(Path(name))
    return board_of(Plan.load(store, suite), store)


def _cells(a: str, b: str, output: Path, suite: str | None) -> ComparisonReport:
    if not (output / "store.json").is_file():
        raise UserError(
            f"{a} and {b} are no stores or boards (.json), and {output} is no store to find cells in; pass --output."
        )
    store = Store.open(output)
    problem = UserError(f"{output} holds no run; run `unlearn-bench evaluate --output {output}` first.")
    for plan in _plans(store, suite).values():
        try:
            cells = find_cell(plan, store, a), find_cell(plan, store, b)
        except UserError as error:
            problem = error
            continue
        return _pair(plan, store, *cells)
    raise problem


def _pair(plan: Plan, store: Store, a: PlannedCell, b: PlannedCell) -> ComparisonReport:
    """Compare two cells of a plan as if they were one row of two runs, whatever their names, models and seeds."""
    tracks = {cell.spec.track for cell in (a, b)} - {None}
    names = [cell.spec.label if a.model == b.model else f"{cell.model}: {cell.spec.label}" for cell in (a, b)]
    if len(tracks) > 1:
        raise UserError(f"{names[0]} and {names[1]} are made for different tracks; compare cells of one track.")
    spec = board_spec(plan)
    model = a.model if a.model == b.model else f"{a.model} → {b.model}"
    variant = names[0] if names[0] == names[1] else f"{a.spec.label} → {b.spec.label}"
    sides = []
    cells = [status_of(plan, cell, store) for cell in (a, b)]
    checkpoints = [_checkpoint(plan, store, spec, status) for status in cells]
    kind = "method" if {result.kind for result in checkpoints} - set(NULLS) else "base"
    for name, status, result in zip(names, cells, checkpoints, strict=True):
        cell = status.cell
        if result.status != "ok":
            raise UserError(
                f"{cell.spec.label} is not measured ({result.failure or 'not run yet'}); evaluate it first."
            )
        place = {"model": model, "track": next(iter(tracks), None), "variant": variant, "seed": None}
        row = replace(result, **place, kind=kind, beside=None, of=None)
        identity = {"cell": _cell_facts(status, store), "model": _flat(plan.models[cell.model].identity())}
        task_facts = {(model, task): facts for (own, task), facts in _asked(plan, spec).items() if own == cell.model}
        sides.append(Side(name, spec, identity, task_facts, [row], trainings=_trainings([status], store)))
    return ComparisonReport(names[0], names[1], [compare_sides(*sides)])


def _side(name: str, plan: Plan, store: Store) -> Side:
    spec = board_spec(plan)
    cells = statuses(plan, store)
    task_facts = _asked(plan, spec)
    identity: dict[str, Mapping[str, str]] = {
        "suite": {**suite_facts(spec), "seeds": ", ".join(map(str, plan.seeds)), "engine": plan.engine},
        **{f"model {label}": _flat(model.identity()) for label, model in plan.models.items()},
        **{
            f"task {task}": {key: value for key, value in facts.items() if key != "chat template"}
            for (_, task), facts in task_facts.items()
        },
        **{f"{status.cell.model} · {status.cell.spec.label}": _cell_facts(status, store) for status in cells},
    }
    checkpoints = [_checkpoint(plan, store, spec, status) for status in cells]
    composites = board_of(plan, store, cells).composites if spec.composites else ()
    return Side(
        name, spec, identity, task_facts, checkpoints, trainings=_trainings(cells, store), composites=composites
    )


def _trainings(cells: Sequence[CellStatus], store: Store) -> dict[str, Training]:
    """Return where each checkpoint that is made comes from, by cell."""
    return {
        status.cell.id: Training(status.cell.id, status.delta, training_facts(status, store))
        for status in cells
        if status.made
    }


def _asked(plan: Plan, spec: BoardSpec) -> dict[tuple[str, str], dict[str, str]]:
    """Return all that a task's numbers depend on besides the checkpoint, its engine and dtype, by model and task."""
    task_facts = {}
    for model, known in plan.models.items():
        for name, task in plan.tasks.items():
            facts: dict[str, Any] = {**task.outcome_settings, **task.settings}
            facts |= {"data": task.data, "items": f"{task.count} ({task.items})", "task": task.spec.task}
            facts |= {"scorer": task.scorer.identity() if task.judged and task.scorer is not None else {}}
            facts |= {"chat template": "on" if known.chat else "off"}
            task_facts[model, name] = {**_flat(facts), **info_facts(spec, name)}
    return task_facts


def _cell_facts(status: CellStatus, store: Store) -> dict[str, str]:
    """Return a cell's settings, and what was recorded when it was made and measured."""
    circumstances = recorded_values(status, store)
    beside = {f"recorded {key}": ", ".join(circumstances[key]) for key in RECORDED if key in circumstances}
    return {**_flat(status.cell.spec.settings), **beside}


def _checkpoint(plan: Plan, store: Store, spec: BoardSpec, status: CellStatus) -> Checkpoint:
    needed = {task for roles in spec.tracks.values() for task in (roles.forget_task, roles.retain_task)}
    return checkpoint(status, store, set(plan.tasks) - needed, ())


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as one level of words, keys joined by dots."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = "none" if value is None else str(value)
    return flat
