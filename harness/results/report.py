"""What `unlearn-bench report` shows: stores read into plain data for `reports/`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from ...leaderboards.board import Board
from ...reports.data import Cell, Content, Items, MeasuredCost, Run
from ...reports.items import cap, flipped, question, sample, spread
from ...reports.write import write
from ...tasks.base import Task
from ..errors import UserError, first_line
from ..planning.plan import Plan, PlannedTask
from ..planning.status import CellStatus, statuses
from ..records import Item, Preview, Record
from ..runtime import COSTS
from ..store.entries import Store
from ..store.files import read_jsonl
from ..store.identity import BASE, SHUFFLED
from .board import board_of, kind_of
from .made import inputs_of, is_made, note_made
from .provenance import log_schema, recorded_values

RUN_FIRST = "run `unlearn-bench evaluate --output {}` first"


@dataclass(frozen=True)
class Asked:
    """A task with its items by id; `note`: why there are none."""

    task: Task
    items: Mapping[str, Item]
    note: str = ""

    def preview(self, item: str) -> Preview | None:
        """Return what is shown of an item, None: its data cannot be read."""
        return self.task.preview(self.items[item]) if item in self.items else None


def report(stores: Sequence[Path], out: Path, suite: str | None = None, *, show_toxic: bool = False) -> Content:
    """Write the report of some stores to `out` (`.html` or `.md`) and return what it shows.

    Raises:
        UserError: no store, a suite that none of them holds, another ending of `out`, or no matplotlib.
    """
    runs: list[Run] = []
    empty: dict[str, str] = {}
    for name, root in _names(stores).items():
        store = Store.open(root)
        suites = store.plans()
        if not suites:
            empty[name] = RUN_FIRST.format(name)
        runs += [run_of(name, Plan.load(store, title), store) for title in suites if suite in (None, title)]
    if suite is not None and not runs and not empty:
        raise UserError(
            f"No store holds a run of suite {suite!r}; run it with `unlearn-bench evaluate`, or name another with"
            " --suite."
        )
    content = Content(version("unlearn-bench"), runs, empty)
    write(content, out, show_toxic=show_toxic)
    return content


def report_run(plan: Plan, store: Store, board: Board, cells: Sequence[CellStatus]) -> Path:
    """Write the report of a run that just ended beside its board, and return its path; `cells`: what is finished.

    One that was made from the same board and results, and is as it was written, stays.
    """
    out = store.root / "reports" / f"{plan.suite.name}.html"
    inputs = inputs_of(plan, store, cells, _name(store.root), board.to_json())
    if not is_made(inputs, out):
        content = Content(version("unlearn-bench"), [run_of(_name(store.root), plan, store, board, cells)])
        write(content, out)
        note_made(inputs, out)
    return out


def _names(stores: Sequence[Path]) -> dict[str, Path]:
    """Return what stores are called: their folders' names, numbered where two are the same."""
    roots: dict[str, Path] = {}
    for root in dict.fromkeys(path.resolve() for path in stores):
        name, number = _name(root), 2
        while name in roots:
            name, number = f"{_name(root)} ({number})", number + 1
        roots[name] = root
    return roots


def _name(root: Path) -> str:
    return root.resolve().name or "store"


def run_of(
    name: str, plan: Plan, store: Store, board: Board | None = None, cells: Sequence[CellStatus] | None = None
) -> Run:
    """Return all that a report shows of a plan; its board and what is finished of it are taken where they are known."""
    states = statuses(plan, store) if cells is None else cells
    return Run(
        name,
        board or board_of(plan, store, states),
        [_cell(state, store) for state in states],
        _items(plan, states),
        _provenance(plan, states, store),
    )


def _cell(state: CellStatus, store: Store) -> Cell:
    spec = state.cell.spec
    entry = store.entry("cells", state.cell.id)
    made = entry.manifest()
    costs = [] if made is None else [_cost("training" if spec.transform == "train" else "making", made)]
    for task, outcome in state.outcomes.items():
        scored = state.records.get(task)
        manifests = [entry.manifest() for entry in (outcome, scored) if entry is not None]
        if manifests[0] is not None:
            costs.append(_cost(task, *filter(None, manifests)))
    trained = made is not None and spec.transform == "train" and spec.beside is None
    log = read_jsonl(entry.file("training.jsonl")) if trained else []
    setup = log[0].get("setup", {}) if log else {}
    training = [_numbers(row) for row in log if row.get("step", -1) >= 0]
    return Cell(
        model=state.cell.model,
        track=spec.track,
        variant=spec.variant,
        seed=spec.seed,
        id=state.cell.id,
        label=spec.label,
        kind=kind_of(state.cell),
        state=_state(state),
        cause="; ".join(filter(None, (state.failure, state.without_value))) or None,
        delta=state.delta,
        settings=json.dumps(spec.settings, sort_keys=True, ensure_ascii=False),
        costs=costs,
        training=training,
        setup=setup,
        log_schema=log_schema(spec, [*(training[0] if training else ()), *setup]),
    )


def _state(state: CellStatus) -> Literal["finished", "failed", "not finished"]:
    if state.failure or state.without_value:
        return "failed"
    return "finished" if state.finished else "not finished"


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _cost(what: str, *manifests: Mapping[str, Any]) -> MeasuredCost:
    beside = manifests[0].get("recorded", {})
    size = sum(facts["bytes"] for manifest in manifests for facts in manifest["files"].values())
    numbers = (beside.get(key) for key in COSTS)
    return MeasuredCost(what, *numbers, bytes=size)


def _items(plan: Plan, states: Sequence[CellStatus]) -> list[Items]:
    """Return the items of every task that a measured cell of a row has, in the order of cells, tasks within.

    A metric without a largest value (perplexity) has no right answers that could flip.
    """
    items: dict[tuple[int, int], Items] = {}
    most = cap(sum(state.cell.spec.beside is None for state in states))
    for place, task in enumerate(plan.tasks.values()):
        kind = task.without_data()
        measured = {
            number: state
            for number, state in enumerate(states)
            if task.name in state.records and state.cell.spec.beside is None
        }
        if not measured or kind.needs == "traces" or kind.metric.largest is None:
            continue
        settings = _asked(task)
        if kind.needs == "choices":
            bases = {
                state.cell.model: _records(state, task)
                for state in measured.values()
                if state.cell.spec.transform == BASE
            }
            for number, state in measured.items():
                if state.cell.spec.transform not in (BASE, SHUFFLED):
                    items[number, place] = _questions(state, task, settings, bases.get(state.cell.model, {}), most)
        else:
            for number, state in measured.items():
                items[number, place] = _samples(state, task, settings, most)
    return [items[key] for key in sorted(items)]


def _questions(state: CellStatus, task: PlannedTask, asked: Asked, base: Mapping[str, Any], most: int) -> Items:
    """Return the questions whose answer flipped against base."""
    records = _records(state, task)
    rows = flipped(list(records.values()), base, task.without_data().metric.score)
    shown = [
        question(row, gained, base[row["item"]], asked.preview(row["item"]), asked.task.chosen)
        for row, gained in spread(rows, most, lambda pair: (pair[1], pair[0]["stratum"]))
    ]
    lost = sum(not gained for _, gained in rows)
    model, spec = state.cell.model, state.cell.spec
    return Items(
        model, spec.label, spec.track, task.name, "questions", len(records), len(rows), lost, shown, asked.note
    )


def _samples(state: CellStatus, task: PlannedTask, asked: Asked, most: int) -> Items:
    """Return prompts with their continuations and scores."""
    records = list(_records(state, task).values())
    answers = {row["item"]: row for row in read_jsonl(state.outcomes[task.name].file("outcomes.jsonl"))}
    shown = [
        sample(row, answers.get(row["item"]), asked.preview(row["item"]), asked.task.worst_toxicity(Record(**row)))
        for row in spread(records, most, lambda row: row["stratum"])
    ]
    model, spec = state.cell.model, state.cell.spec
    return Items(model, spec.label, spec.track, task.name, "samples", len(records), len(records), 0, shown, asked.note)


def _asked(task: PlannedTask) -> Asked:
    try:
        built, items = task.build()
    except UserError as error:
        note = f"The data of {task.name} cannot be read, so its items stand by id only: {first_line(error)}"
        return Asked(task.without_data(), {}, note)
    return Asked(built, {item.id: item for item in items})


def _records(state: CellStatus, task: PlannedTask) -> dict[str, Any]:
    return {row["item"]: row for row in read_jsonl(state.records[task.name].file("records.jsonl"))}


def _provenance(plan: Plan, states: Sequence[CellStatus], store: Store) -> dict[str, str]:
    """Return what the numbers depend on, in words: command, suite, models, tasks, versions."""
    facts = {
        "command": plan.command or "not recorded",
        "suite": f"{plan.suite.name}, revision {plan.suite.revision}",
        "training seeds": ", ".join(map(str, plan.seeds)),
        "items": "all of each task" if plan.limit is None else f"a seeded, stratified sample of {plan.limit} a task",
        "engine": plan.engine,
    }
    for name, model in plan.models.items():
        source = model.hub or "a local folder"
        facts[f"model {name}"] = f"{source}, digest {model.digest}, {model.dtype}" + (", chat" if model.chat else "")
    for name, task in plan.tasks.items():
        scorer = f", scorer {task.scorer.name or task.scorer.kind} {task.scorer.digest}" if task.scorer else ""
        facts[f"task {name}"] = (
            f"{task.spec.task} version {task.version}, {task.count} items ({task.items}), data {task.data}{scorer}"
        )
    beside: dict[str, set[str]] = {}
    for state in states:
        for key, values in recorded_values(state, store).items():
            beside.setdefault(key, set()).update(values)
    return facts | {key: ", ".join(sorted(values)) for key, values in sorted(beside.items())}
