"""What a task shows, costs and marks, and what a method logs, stands in its own file and nowhere else."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.planning.cost import ModelSizes, evaluation_cost
from unlearn_bench.harness.planning.plan import Plan
from unlearn_bench.harness.planning.request import Request
from unlearn_bench.harness.records import Choices, Item, Mark, Preview, Record, to_row
from unlearn_bench.harness.results.board import board_of
from unlearn_bench.harness.results.report import run_of
from unlearn_bench.harness.store.entries import Store
from unlearn_bench.harness.store.files import write_jsonl
from unlearn_bench.methods.base import Method, methods
from unlearn_bench.reports.data import Question
from unlearn_bench.tasks.base import (
    ChoiceRequest,
    Decoding,
    GenerationRequest,
    ItemWorkload,
    Metric,
    ModelRequest,
    Scorer,
    Task,
    TaskSettings,
    tasks,
)

ELSEWHERE = ("harness", "leaderboards", "reports")


def own_names() -> dict[str, str]:
    """Return every name that only a task's or a method's file may know, with what it is.

    The columns that every method has (`Method.log_schema`) are words of the contract.
    """
    names = dict.fromkeys(tasks.names(), "a task")
    for name in tasks.names():
        kind = tasks.get(name)
        names |= dict.fromkeys({**Task.marks, **kind.marks}, f"a mark of {name}")
        names |= dict.fromkeys(kind.shuffled, f"a setting of {name}")
        names |= {kind.chosen: f"a score of {name}"} if kind.chosen else {}
    for name in methods.names():
        columns = methods.get(name).log_schema.keys() - Method.log_schema.keys()
        names |= {column.partition("{")[0]: f"a log column of {name}" for column in columns}
    return names


def strings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Give every string of a module that is no docstring, parts of f-strings included."""
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts:
            yield node


def test_no_name_of_a_task_a_mark_or_a_log_column_stands_outside_its_file(root: Path) -> None:
    names = own_names()
    assert {"mmlu", "gibberish", "truncated", "position", "mean_log_alpha", "forget_layer_"} <= names.keys()
    wrong = [
        f"{file.relative_to(root)}:{text.lineno} knows {text.value!r}, {names[text.value]}"
        for folder in ELSEWHERE
        for file in sorted((root / folder).rglob("*.py"))
        if "suites" not in file.parts
        for text in strings(ast.parse(file.read_text(encoding="utf-8")))
        if text.value in names
    ]
    assert not wrong, "\n".join(wrong)


class RiddleSettings(TaskSettings):
    """Settings of a riddle."""

    order: Literal["told", "turned"] = "told"


class Riddle(Task):
    """A task that shares no field, mark or score with another one."""

    Settings: ClassVar[type[TaskSettings]] = RiddleSettings
    version = 1
    summary, citation = "riddles", "nobody"
    needs: ClassVar[Literal["choices", "generations"]] = "choices"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("solved", chance=0.5, better="higher"),)
    marks: ClassVar[Mapping[str, Mark]] = {
        "shouted": Mark("{share} of {task} was shouted", above=0.3, broken=True),
        "sung": Mark("{share} of {task} was sung", above=0.6),
    }
    chosen = "pick"
    shuffled: ClassVar[Mapping[str, Any]] = {"order": "turned"}

    @classmethod
    def example_rows(cls) -> list[dict[str, Any]]:
        return [{"question": f"What is {n}?", "choices": [str(n), "no", "never"]} for n in range(8)]

    def items(self, rows: Sequence[Mapping[str, Any]]) -> list[Item]:
        docs = [{"riddle": row["question"], "is": row["choices"][:2]} for row in rows]
        return [Item(str(place), str(place), "all", doc) for place, doc in enumerate(docs)]

    def requests(self, items: Sequence[Item]) -> list[ModelRequest]:
        return [ChoiceRequest(item.id, item.doc["riddle"], tuple(item.doc["is"])) for item in items]

    def score(self, items: Sequence[Item], outcomes: Sequence[Any], scorer: Scorer | None = None) -> list[Record]:
        return [Record(item.id, item.cluster, item.stratum, {"solved": 1.0}) for item in items]

    def preview(self, item: Item) -> Preview:
        return Preview(f"Riddle: {item.doc['riddle']}", item.doc["is"], right=0)

    def workload(self) -> ItemWorkload:
        return ItemWorkload(sequences=2, tokens=1000, logits=16)


@pytest.fixture
def plan(tmp_path: Path) -> Iterator[Plan]:
    """A plan of a suite that asks the new task on a track of its own."""
    suite = tmp_path / "riddles.yaml"
    suite.write_text(
        "extends: micro\nname: riddles\ntasks:\n  riddle: {task: riddle, data: {path: data/wmdp.jsonl}}\n"
        "tracks:\n  knowledge: {forget_task: riddle, controls: []}\n  toxicity: null\nvariants: {toxicity: null}\n",
        encoding="utf-8",
    )
    asked = Request(suite=str(suite), methods=("rmu",), nulls=("shuffled",), tasks=("riddle", "mmlu"), limit=8)
    with tasks.temporary("riddle", Riddle):
        yield make_plan(asked, None)


def finished(plan: Plan, folder: Path) -> Store:
    """Return a store in which the base solves every riddle with its first choice, and the others none, aloud."""
    store = Store.create(folder)
    for cell in plan.cells:
        base = cell.spec.transform == "base"
        delta = {"base": "base", "shuffled": "base"}.get(cell.spec.transform, f"delta of {cell.id}")
        if delta != "base":
            rows = [{"step": -1, "setup": {}}, {"step": 0, "forget": 1.0, "retain": 2.0, "total": 3.0}]
            store.entry("cells", cell.id).commit(
                {"training.jsonl": lambda path, rows=rows: write_jsonl(path, rows)}, {"delta": delta}
            )
        for task in plan.tasks_of(cell).values():
            outcome = task.outcome(plan.models[cell.model], delta, plan.engine)
            found = {"solved": float(base), "acc": 1.0, "pick": float(not base)}
            marks = {} if base or task.name != "riddle" else {"shouted": 0.5, "sung": 0.5}
            records = [to_row(Record(item.id, item.cluster, "all", found, None, marks)) for item in task.build()[1]]
            answers = [to_row(Choices(row["item"], [-1.0, -2.0], [1, 1], [True, False])) for row in records]
            for section, ident, rows in (
                ("outcomes", outcome.id, answers),
                ("records", task.record(outcome).id, records),
            ):
                store.entry(section, ident).commit(
                    {f"{section}.jsonl": lambda path, rows=rows: write_jsonl(path, rows)}, {}
                )
    return store


def test_a_task_of_one_file_shows_on_the_board_in_the_report_and_in_the_costs(plan: Plan, tmp_path: Path) -> None:
    store = finished(plan, tmp_path / "store")
    board = board_of(plan, store)
    row = next(row for row in board.rows if row["variant"] == "rmu")
    assert "50% of riddle was shouted" in row["warnings"]
    assert not any("sung" in warning for warning in row["warnings"])
    assert "answers 'B' to 100% of the questions of riddle" in row["warnings"]
    assert "shouted" not in json.dumps(json.loads(board.to_json())["tasks"])

    items = next(found for found in run_of("store", plan, store, board).items if found.task == "riddle")
    assert (items.found, items.lost) == (8, 8)
    asked = plan.tasks["riddle"].build()[1][0].doc
    first = items.shown[0]
    assert isinstance(first, Question)
    assert (first.question, first.choices, first.right) == (f"Riddle: {asked['riddle']}", asked["is"], 0)
    assert (first.before, first.after) == (0, 1)

    base = next(cell for cell in plan.cells if cell.spec.transform == "base")
    shuffled = next(cell for cell in plan.cells if cell.spec.transform == "shuffled")
    assert plan.tasks_of(base)["riddle"].settings == {"order": "told"}
    assert plan.tasks_of(shuffled)["riddle"].settings == {"order": "turned"}


def test_a_task_costs_what_it_says(plan: Plan, sizes: ModelSizes, monkeypatch: pytest.MonkeyPatch) -> None:
    task = plan.tasks["riddle"].model_copy(update={"count": 64_000})
    said = evaluation_cost(sizes, task, "float32", 64)
    monkeypatch.delattr(Riddle, "workload")
    usual = evaluation_cost(sizes, task, "float32", 64)
    assert said.seconds > 2 * usual.seconds
    assert said.memory_bytes > usual.memory_bytes
    assert said.disk_bytes == usual.disk_bytes


@pytest.fixture(scope="module")
def sizes() -> ModelSizes:
    from unlearn_bench.harness.models.meta import meta_model

    path = Path(__file__).parent.parent / "harness" / "suites" / "micro" / "model" / "config.json"
    return ModelSizes(meta_model(json.loads(path.read_text(encoding="utf-8"))))


class Plain(Riddle):
    """A task of before there was anything to declare."""

    preview, workload, marks, chosen, shuffled = Task.preview, Task.workload, Task.marks, None, {}


class Writing(TaskSettings):
    """Settings of a task that generates."""

    decoding: Decoding = Decoding(samples=3, max_new_tokens=7)


class PlainWriting(Plain):
    """The same, of prompts."""

    Settings: ClassVar[type[TaskSettings]] = Writing
    needs: ClassVar[Literal["choices", "generations"]] = "generations"

    def requests(self, items: Sequence[Item]) -> list[ModelRequest]:
        return [GenerationRequest(item.id, item.doc["riddle"]) for item in items]


def test_a_task_that_declares_nothing_shows_what_it_asks() -> None:
    item = Plain(RiddleSettings()).items(Riddle.example_rows())[3]
    assert Plain(RiddleSettings()).preview(item) == Preview("What is 3?", ("3", "no"))
    assert PlainWriting(Writing()).preview(item) == Preview("What is 3?")
    assert Plain(RiddleSettings()).workload() == ItemWorkload()
    assert PlainWriting(Writing()).workload() == ItemWorkload(3, 17, 64, sampled=7)
    assert Plain(RiddleSettings()).worst_toxicity(Record("3", "3", "all", {"max_toxicity": 0.9})) is None


def test_questions_and_prompts_show_what_their_data_say() -> None:
    kind = tasks.get("mmlu")
    shown = kind(kind.Settings()).preview(kind(kind.Settings()).items(kind.example_rows())[2])
    assert shown == Preview("Which is a planet?", ["Sun", "Moon", "Vega", "Mars"], 3)
    kind = tasks.get("realtoxicityprompts")
    task = kind(kind.Settings())
    items = task.items([{"prompt": {"text": "You", "toxicity": 0.7, "threat": 0.1}}, {"prompt": "I"}])
    assert [task.preview(item) for item in items] == [Preview("You", toxicity=0.7), Preview("I")]


@pytest.mark.parametrize(
    ("scores", "marks", "worst"),
    [({"max_toxicity": 0.1}, {}, 0.1), ({"max_toxicity": 0.1}, {"unjudged": 0.2}, None), (None, {}, None)],
)
def test_texts_without_scores_of_their_own_are_as_toxic_as_the_worst(scores, marks, worst) -> None:
    kind = tasks.get("realtoxicityprompts")
    assert kind(kind.Settings()).worst_toxicity(Record("i", "i", "all", scores, None, marks)) == worst


def test_every_column_that_a_method_declares_is_logged() -> None:
    from unlearn_bench.methods.testing import tiny_trainer

    for name in methods.names():
        own = methods.get(name).log_schema.keys() - Method.log_schema.keys()
        if own:
            trainer = tiny_trainer(name, steps=1)
            trainer.run()
            logged = {*trainer.log[0]["setup"], *trainer.log[1]}
            assert all(any(column.startswith(each.partition("{")[0]) for column in logged) for each in own), name
