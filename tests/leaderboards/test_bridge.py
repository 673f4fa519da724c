"""From a plan and a store to a board: what `harness/results/board.py` hands over. The store is filled by hand."""

from __future__ import annotations

import pytest
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.planning.request import Request
from unlearn_bench.harness.records import Generations, Record, to_row
from unlearn_bench.harness.results.board import board_of, board_spec
from unlearn_bench.harness.store.entries import Store
from unlearn_bench.harness.store.files import read_sealed, write_jsonl, write_sealed
from unlearn_bench.harness.suite import ScorerSpec

SUITE = """
extends: micro
name: controlled
tasks:
  letters:
    task: mmlu
    data: {path: data/mmlu.jsonl}
    settings: {form: letters}
tracks:
  knowledge: {controls: [letters], neighbours: [herbalism, clockmaking]}
  toxicity: null
variants: {toxicity: null}
bootstrap: {interval: bca}
published:
  source: a table
  values: {micro: {knowledge: {base: 0.3, cosine_meta_rmu: 0.5}}}
  alpha: {micro: {knowledge: {cosine_meta_rmu: 43}}}
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    path = tmp_path_factory.mktemp("suite") / "controlled.yaml"
    path.write_text(SUITE, encoding="utf-8")
    return make_plan(Request(suite=str(path), methods=("rmu", "cosine_meta_rmu"), limit=8), None)


def cell_of(plan, variant):
    return next(cell for cell in plan.cells if cell.spec.variant == variant)


def finish(plan, store, variant, summary=None, tasks=None):
    """Write a cell as trained, with records of some tasks."""
    cell = cell_of(plan, variant)
    delta = "base"
    if variant != "base":
        delta = f"delta of {variant}"
        store.entry("cells", cell.id).commit({}, {"delta": delta, "summary": summary or {}})
    for name in plan.tasks if tasks is None else tasks:
        record = plan.tasks[name].record(plan.tasks[name].outcome(plan.models[cell.model], delta, plan.engine))
        rows = [to_row(Record(str(i), str(i), "all", {"acc": float(i % 2), "position": 0.0})) for i in range(8)]
        store.entry("outcomes", record.outcome).commit({}, {})
        store.entry("records", record.id).commit({"records.jsonl": lambda path, r=rows: write_jsonl(path, r)}, {})


def rows_of(plan, store):
    return {row["variant"]: row for row in board_of(plan, store).rows}


def test_a_cell_that_lacks_a_control_is_measured_one_that_lacks_a_role_is_not(plan, tmp_path):
    store = Store.create(tmp_path / "store")
    finish(plan, store, "base")
    finish(plan, store, "rmu", tasks=["wmdp", "mmlu"])
    finish(plan, store, "cosine_meta_rmu", tasks=["wmdp", "letters"])
    store.entry("cells", cell_of(plan, "rmu").id).fail("letters cannot be asked", "")
    rows = rows_of(plan, store)
    assert rows["base"]["controls"][0]["task"] == "letters"
    assert rows["rmu"]["status"] == "ok"
    assert rows["rmu"]["s_unlearning"] is not None
    assert "has no score of the control task letters (letters cannot be asked)" in rows["rmu"]["warnings"]
    assert rows["cosine_meta_rmu"]["s_unlearning"] is None
    assert "not run yet" in rows["cosine_meta_rmu"]["warnings"]


def test_final_alpha_is_the_centre_of_the_policy_where_there_is_one(plan, tmp_path):
    store = Store.create(tmp_path / "store")
    finish(plan, store, "base")
    finish(plan, store, "rmu", {"forget": 0.5})
    finish(plan, store, "cosine_meta_rmu", {"alpha": 9.0, "mean_log_alpha": 0.0})
    rows = rows_of(plan, store)
    assert rows["cosine_meta_rmu"]["alpha"] == {"values": [1.0], "published": 43.0}
    assert rows["rmu"]["alpha"] is None
    finish(plan, store, "rmu", {"alpha": 9.0})
    assert rows_of(plan, store)["rmu"]["alpha"] == {"values": [9.0], "published": None}


def test_published_values_and_controls_reach_the_board(plan):
    spec = board_spec(plan)
    assert spec.tracks["knowledge"].controls == ("letters",)
    assert spec.published is not None
    assert spec.published.values["micro"]["knowledge"]["base"] == 0.3
    fewer = plan.model_copy(update={"tasks": {name: plan.tasks[name] for name in ("wmdp", "mmlu")}})
    assert board_spec(fewer).tracks["knowledge"].controls == ()


def test_neighbours_and_the_kind_of_interval_reach_the_board(plan):
    spec = board_spec(plan)
    assert spec.tracks["knowledge"].neighbours == ("herbalism", "clockmaking")
    assert spec.interval == "bca"


def test_what_continuations_have_in_common_is_read_from_the_stored_outcomes(tmp_path):
    plan = make_plan(Request(suite="micro", methods=(), limit=8), None)
    store = Store.create(tmp_path / "store")
    (base,) = plan.cells
    for task in plan.tasks.values():
        outcome = task.outcome(plan.models[base.model], "base", plan.engine)
        rows = [to_row(Record(str(i), str(i), "all", {"acc": 1.0, "toxicity_rate": 0.0})) for i in range(8)]
        store.entry("records", task.record(outcome).id).commit(
            {"records.jsonl": lambda path, r=rows: write_jsonl(path, r)}, {}
        )
        said = [to_row(Generations(str(i), ["I like tea.", f"word {i}"], [3, 2], [True, True])) for i in range(8)]
        store.entry("outcomes", outcome.id).commit({"outcomes.jsonl": lambda path, r=said: write_jsonl(path, r)}, {})
    row = next(row for row in board_of(plan, store).rows if row["track"] == "toxicity")
    assert row["audit"]["realtoxicityprompts"]["same_text"] == 1.0
    assert any("continues 100% of the prompts of realtoxicityprompts" in warning for warning in row["warnings"])


def test_two_boards_of_one_store_are_the_same_bytes(plan, tmp_path):
    store = Store.create(tmp_path / "store")
    for variant in ("base", "rmu", "cosine_meta_rmu"):
        finish(plan, store, variant)
    first, second = board_of(plan, store), board_of(type(plan).parse(plan.model_dump(mode="json"), "plan"), store)
    assert first.to_json() == second.to_json()
    assert first.to_markdown(details=True) == second.to_markdown(details=True)


def test_what_was_recorded_is_a_fact_and_a_warning_where_it_differs(plan, tmp_path):
    store = Store.create(tmp_path / "store")
    for variant, version in (("rmu", "1.0"), ("cosine_meta_rmu", "2.0")):
        finish(plan, store, variant)
        path = store.entry("cells", cell_of(plan, variant).id).file("manifest.json")
        write_sealed(path, {**read_sealed(path), "recorded": {"vllm": version}})
    board = board_of(plan, store)
    assert "vllm" in board.spec.facts["measured with"]
    assert any("vllm" in warning for row in board.rows for warning in row["warnings"])


def test_facts_name_each_judge_once_and_the_notes(plan):
    scorer = judge_called("first", "AUC 0.91 held out")
    facts = board_spec(with_judges(plan, wmdp=scorer, mmlu=scorer)).facts
    assert facts["scorer"] == "first (trust, 0123); AUC 0.91 held out"
    other = judge_called("second", "")
    facts = board_spec(with_judges(plan, wmdp=scorer, mmlu=scorer, letters=other)).facts
    assert facts["scorer of wmdp, mmlu"] == "first (trust, 0123); AUC 0.91 held out"
    assert facts["scorer of letters"] == "second (trust, 0123)"
    assert "scorer" not in board_spec(plan).facts
    assert "notes" not in board_spec(plan).facts
    noted = plan.model_copy(update={"notes": ("probe text: this in the place of that", "another")})
    assert board_spec(noted).facts["notes"] == "probe text: this in the place of that; another"


def test_the_chat_template_is_a_fact_where_it_is_used(plan):
    chatting = plan.models["micro"].model_copy(update={"chat": True})
    assert "chat template" not in board_spec(plan).facts
    assert board_spec(plan.model_copy(update={"models": {"a": chatting}})).facts["chat template"] == "on"
    both = plan.model_copy(update={"models": {"a": chatting, **plan.models}})
    assert board_spec(both).facts["chat template"] == "on for a"


def judge_called(name, note):
    return ScorerSpec(kind="trust", digest="0123", name=name, note=note)


def with_judges(plan, **scorers):
    tasks = {
        name: task.model_copy(update={"scorer": scorers.get(name), "judged": name in scorers})
        for name, task in plan.tasks.items()
    }
    return plan.model_copy(update={"tasks": tasks})
