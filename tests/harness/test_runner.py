"""Runs end to end in this process: nulls, seeds, failures, shared base results, recorded facts."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from unlearn_bench.harness import Request, evaluate, load_records
from unlearn_bench.harness.engines.transformers import TransformersEngine
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.store.files import read_json, read_sealed, write_sealed
from unlearn_bench.methods.base import Method, MethodSettings, methods
from unlearn_bench.methods.rmu import RMU

QUICK = {"tracks": ("knowledge",), "limit": 24, "settings": ("training.steps=4",)}


class Raises(RMU):
    """A method whose plugin is broken: it raises in the middle of training."""

    def losses(self, batch):
        if batch.step == 2:
            raise RuntimeError("the plugin broke")
        return super().losses(batch)


class Explodes(RMU):
    """A method whose loss is not a number."""

    def losses(self, batch):
        return {name: loss * torch.nan for name, loss in super().losses(batch).items()}


class Idle(Method):
    """A method that changes nothing."""

    Settings = MethodSettings
    version = 1
    citation = "none"
    summary = "change nothing"

    def trained(self, context):
        return context.layer_parameters([1], "mlp.down_proj.weight")

    def losses(self, batch):
        return {"forget": 0.0 * self.context.hidden(batch.forget, [1])[1].sum()}

    def combine(self, losses):
        return losses["forget"]


@pytest.fixture(scope="module")
def broken_methods():
    """Register methods that fail, for this module only."""
    with ExitStack() as stack:
        for name, kind in (("raises", Raises), ("explodes", Explodes), ("idle", Idle)):
            stack.enter_context(methods.temporary(name, kind))
        yield


def rows_of(result) -> dict[str, dict]:
    return {row["variant"]: row for row in json.loads(result.board.to_json())["rows"]}


def test_failures_are_named_and_the_rest_finishes(broken_methods, tmp_path: Path) -> None:
    asked = Request(methods=("rmu", "raises", "explodes", "idle"), **QUICK)
    result = evaluate(asked, output=tmp_path, executor="inline")
    assert set(result.failures) == {f"knowledge/{name}#0" for name in ("raises", "explodes", "idle")}
    assert "the plugin broke" in result.failures["knowledge/raises#0"]
    rows = rows_of(result)
    assert rows["rmu"]["status"] == "ok"
    for name in ("raises", "explodes", "idle"):
        assert rows[name]["status"] == "failed"
        assert rows[name]["s_unlearning"] is None
        assert rows[name]["forget"] is None or rows[name]["forget"]["value"] is None
    states = {state.cell.spec.label: state for state in result.cells}
    assert states["knowledge/noise(rmu)#0"].finished, "noise stands beside the methods that finished"
    for name in ("raises", "explodes", "idle"):
        beside = states[f"knowledge/noise({name})#0"]
        assert (beside.made, beside.failure) == (False, f"knowledge/{name}#0 failed"), "no failure of its own"
    cell = next(cell for cell in result.plan.cells if cell.spec.variant == "raises")
    assert "RuntimeError" in read_json(tmp_path / "cells" / cell.id / "failure.json")["traceback"]
    again = evaluate(Request(methods=("rmu",), **QUICK), output=tmp_path, executor="inline")
    assert not again.failures


def test_three_seeds_are_three_trainings_and_the_board_speaks_of_the_method(tmp_path: Path) -> None:
    result = evaluate(Request(methods=("rmu",), seeds=(0, 1, 2), **QUICK), output=tmp_path, executor="inline")
    row = rows_of(result)["rmu"]
    assert row["seeds"] == [0, 1, 2]
    assert len(row["cells"]) == 3
    assert row["speaks_of"] == "method"
    deltas = {read_json(tmp_path / "cells" / cell / "manifest.json")["delta"] for cell in row["cells"]}
    assert len(deltas) == 3
    assert "3" in result.board.to_markdown()
    one = evaluate(Request(methods=("rmu",), seeds=(1,), **QUICK), output=tmp_path, executor="inline")
    assert rows_of(one)["rmu"]["speaks_of"] == "checkpoint"


def test_the_base_is_measured_once_and_shared(tmp_path: Path) -> None:
    first = evaluate(Request(methods=("rmu",), **QUICK), output=tmp_path, executor="inline")
    entries = {path.name for path in (tmp_path / "outcomes").iterdir()}
    second = evaluate(Request(methods=("adap_rmu",), **QUICK), output=tmp_path, executor="inline")
    new = {path.name for path in (tmp_path / "outcomes").iterdir()} - entries
    labels = {read_json(tmp_path / "outcomes" / name / "manifest.json")["cell"] for name in new}
    assert labels == {"knowledge/adap_rmu#0", "knowledge/noise(adap_rmu)#0"}
    assert rows_of(first)["base"] == rows_of(second)["base"]


def test_results_do_not_depend_on_workers_or_batch_size(tmp_path: Path) -> None:
    """Counts not at all, as no draw lies within 1e-4 nats of an edge; means of log-probabilities by last bits."""
    asked = Request(methods=("cosine_meta_rmu",), limit=4, settings=("training.steps=4",))
    alone = evaluate(asked, output=tmp_path / "alone", executor="inline", batch_size=64)
    beside = evaluate(asked, output=tmp_path / "beside", workers=2, batch_size=7)
    means: list[list[float]] = [[], []]
    boards = [
        json.loads(result.board.to_json(), parse_float=lambda digits, found=found: found.append(float(digits)))
        for result, found in zip((alone, beside), means, strict=True)
    ]
    assert boards[0] == boards[1]
    assert means[0] == pytest.approx(means[1], abs=TransformersEngine.tolerance)
    deltas = [
        {path.parent.name: read_json(path)["delta"] for path in (tmp_path / name / "cells").glob("*/manifest.json")}
        for name in ("alone", "beside")
    ]
    assert deltas[0] == deltas[1]


def test_a_new_threshold_scores_again_without_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unlearn_bench.harness.jobs import evaluate as measure
    from unlearn_bench.harness.suite import load_suite

    suite = load_suite("micro")
    asked = {"methods": ("none",), "tracks": ("toxicity",), "limit": 12}
    before = evaluate(Request(suite=suite, **asked), output=tmp_path, executor="inline")
    task = suite.tasks["realtoxicityprompts"]
    stricter = task.model_copy(update={"settings": {**task.settings, "threshold": 0.01}})
    changed = suite.model_copy(update={"tasks": {**suite.tasks, "realtoxicityprompts": stricter}})

    def refuse(*arguments):
        raise AssertionError("a model was asked")

    monkeypatch.setattr(measure, "answer", refuse)
    after = evaluate(Request(suite=changed, **asked), output=tmp_path, executor="inline")
    assert not after.failures
    assert rows_of(after)["base"]["forget"]["value"] >= rows_of(before)["base"]["forget"]["value"]
    assert len(list((tmp_path / "outcomes").iterdir())) == len(before.plan.tasks) == 3


def test_records_load_into_pandas_and_give_the_boards_numbers(tmp_path: Path) -> None:
    result = evaluate(Request(methods=("rmu",), **QUICK), output=tmp_path, executor="inline")
    frame = load_records(tmp_path)
    means = frame[frame.task == "mmlu"].groupby("variant").acc.mean()
    for variant, row in rows_of(result).items():
        assert means[variant] == pytest.approx(row["retain"]["value"], abs=1e-6)
    assert frame.groupby(["cell", "task"]).item.nunique().eq(24).all()


def test_rows_made_under_other_circumstances_are_told_apart(tmp_path: Path) -> None:
    asked = Request(methods=("rmu",), **QUICK)
    result = evaluate(asked, output=tmp_path, executor="inline")
    assert "threads 1" in result.board.to_markdown()
    assert not any("threads" in warning for row in rows_of(result).values() for warning in row["warnings"])
    cell = next(cell for cell in result.plan.cells if cell.spec.variant == "rmu")
    manifest = tmp_path / "cells" / cell.id / "manifest.json"
    facts = read_sealed(manifest)
    facts["recorded"]["threads"] = 2
    write_sealed(manifest, facts)
    again = rows_of(evaluate(asked, output=tmp_path, executor="inline"))
    assert again["rmu"]["warnings"][-1] == "made or measured with threads 2, most rows with 1"
    assert not any("threads" in warning for warning in again["base"]["warnings"])


def test_a_task_that_is_left_out_leaves_its_track_out(tmp_path: Path) -> None:
    asked = {"methods": ("none",), "limit": 12, "tasks": ("wmdp", "mmlu")}
    result = evaluate(Request(**asked), output=tmp_path, executor="inline")
    assert {row["track"] for row in json.loads(result.board.to_json())["rows"]} == {"knowledge"}
    with pytest.raises(UserError, match="No track has both its tasks"):
        evaluate(Request(**{**asked, "tasks": ("wmdp",)}), output=tmp_path, executor="inline")


def test_a_job_that_leaves_nothing_behind_is_a_failure_and_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unlearn_bench.harness.executors import inline

    ran = []
    monkeypatch.setattr(inline, "run_job", lambda job, report: ran.append(job))
    result = evaluate(Request(methods=("none",), **QUICK), output=tmp_path, executor="inline")
    assert len(ran) == 1
    assert "the store holds not records of wmdp, mmlu" in result.failures["base"]


def test_text_that_changed_after_the_plan_is_not_trained_on() -> None:
    from unlearn_bench.harness.planning.build import make_plan
    from unlearn_bench.harness.runtime import RunConfig
    from unlearn_bench.harness.transforms.base import BuildJob
    from unlearn_bench.harness.transforms.train import read_corpora

    plan = make_plan(Request(methods=("rmu",), tracks=("knowledge",)), None)
    cell = next(cell.spec for cell in plan.cells if cell.spec.variant == "rmu")
    corpora, folder = plan.suite.tracks["knowledge"].corpora, Path(plan.data_folder or "")
    place = RunConfig(store=Path(), device="cpu", threads=1, batch_size=1)
    assert set(read_corpora(BuildJob(place, plan.models["micro"], cell, corpora, folder)).forget) == set(corpora.forget)
    other = cell.model_copy(update={"settings": {**cell.settings, "data": {"forget": {}, "retain": "", "probe": None}}})
    with pytest.raises(UserError, match="changed after the run was planned"):
        read_corpora(BuildJob(place, plan.models["micro"], other, corpora, folder))
