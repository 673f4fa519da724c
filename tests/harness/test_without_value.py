"""Cells without a value say why: on the board, in the report, in `show`, in the exit status; known numbers stay."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torch import Tensor
from unlearn_bench.harness import Request, evaluate
from unlearn_bench.harness.cli import main
from unlearn_bench.harness.engines.transformers import TransformersEngine
from unlearn_bench.harness.jobs.evaluate import PartialScorer, sound
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.planning.status import status_of
from unlearn_bench.harness.records import Record, to_row, why_missing
from unlearn_bench.harness.store.entries import Store
from unlearn_bench.harness.store.files import read_json, write_jsonl
from unlearn_bench.harness.suites import micro
from unlearn_bench.harness.training.trainer import Trainer
from unlearn_bench.tasks.scorers.trust import Trust

MODEL = Path(micro.__file__).parent / "model"
DOWN = "model.layers.2.mlp.down_proj.weight"
Tensors = dict[str, Tensor]
QUICK: dict[str, Any] = {"methods": ("none",), "limit": 8, "tasks": ("wmdp", "mmlu", "realtoxicityprompts")}

TOXICITY = {**QUICK, "tracks": ("toxicity",), "tasks": ("mmlu", "realtoxicityprompts")}


def filled(value: float) -> Callable[[Tensors], Tensors]:
    """Fill a matrix with a value."""
    return lambda tensors: {DOWN: torch.full_like(tensors[DOWN], value)}


def silent(tensors: Tensors) -> Tensors:
    """Have the end token follow whatever was said."""
    embeddings = torch.ones_like(tensors["model.embed_tokens.weight"])
    still = {name: torch.zeros_like(t) for name, t in tensors.items() if name.endswith(("o_proj.weight", DOWN[15:]))}
    still |= {name: torch.zeros_like(t) for name, t in tensors.items() if "down_proj" in name}
    head = torch.zeros_like(embeddings)
    head[2] = 10.0
    norm = {"model.norm.weight": torch.ones_like(tensors["model.norm.weight"])}
    return {**still, **norm, "model.embed_tokens.weight": embeddings, "lm_head.weight": head}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[[Callable[[Tensors], Tensors]], Path]:
    """Copy the embedded model with other tensors."""

    def made(change: Callable[[Tensors], Tensors]) -> Path:
        folder = Path(shutil.copytree(MODEL, tmp_path / "checkpoint"))
        tensors = load_file(folder / "model.safetensors")
        changed = change(tensors)
        save_file({**tensors, **changed}, folder / "model.safetensors", {"format": "pt"})
        if "lm_head.weight" in changed:
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
        return folder

    return made


def rows_of(result, variant: str) -> dict[str, dict]:
    return {row["track"]: row for row in result.board.rows if row["variant"] == variant}


@pytest.mark.parametrize(("value", "executor"), [(nan, "local"), (inf, "inline"), (-inf, "inline")])
def test_values_that_are_not_finite_are_named_wherever_one_looks(
    checkpoint, tmp_path: Path, value: float, executor: str
) -> None:
    out = tmp_path / "out"
    arguments = ["evaluate", "--methods", "none", "--tasks", ",".join(QUICK["tasks"]), "--limit", "8"]
    arguments += ["--checkpoint", f"mine={checkpoint(filled(value))}", "--output", str(out), "--executor", executor]
    cause = f"a log-probability is not finite (its tensor {DOWN} holds values that are not finite)"
    for run in ("first", "all finished"):
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 1, run
        assert f"Failed: mine: no score of wmdp, mmlu: {cause}; no score of realtoxicityprompts: every" in done.stderr
        assert " failed (why: above" in done.stdout
        assert f"has no score of wmdp: {cause}" in " ".join((out / "leaderboards" / "micro.md").read_text().split())
    board = json.loads((out / "leaderboards" / "micro.json").read_text())
    [row] = [row for row in board["rows"] if (row["variant"], row["track"]) == ("mine", "knowledge")]
    assert (row["status"], row["s_unlearning"]) == ("failed", None)
    assert f"has no score of mmlu: {cause}" in row["warnings"]
    assert DOWN in (out / "reports" / "micro.html").read_text()
    shown = CliRunner().invoke(main, ["show", "mine", "--output", str(out), "--json"])
    assert cause in json.loads(shown.stdout)["state"]
    planned = CliRunner().invoke(main, [*arguments, "--dry-run"])
    assert f"mine: no score of wmdp, mmlu: {cause}" in planned.stdout
    items = CliRunner().invoke(main, ["items", "mine", "wmdp", "--output", str(out), "--most", "1"])
    assert json.loads(items.stdout)["missing"] == "a log-probability is not finite"


def test_a_checkpoint_that_says_nothing_keeps_what_is_known_of_it(checkpoint, tmp_path: Path) -> None:
    asked = Request(checkpoints={"mine": checkpoint(silent)}, **QUICK)
    result = evaluate(asked, output=tmp_path / "out", executor="inline")
    cause = "every continuation is empty (each ends at its first token)"
    assert result.failures == {"mine": f"no score of realtoxicityprompts: {cause}"}
    rows = rows_of(result, "mine")
    assert rows["knowledge"]["status"] == "ok"
    assert rows["toxicity"]["status"] == "failed"
    assert rows["toxicity"]["s_unlearning"] is rows["toxicity"]["forget"] is rows["toxicity"]["rank"] is None
    assert rows["toxicity"]["retain"]["value"] == rows["knowledge"]["retain"]["value"]
    assert f"has no score of realtoxicityprompts: {cause}" in rows["toxicity"]["warnings"]


def test_a_task_that_fails_leaves_the_others_their_numbers(monkeypatch, tmp_path: Path) -> None:
    def breaks(*given: Any) -> None:
        raise RuntimeError("the kernel broke")

    monkeypatch.setattr(TransformersEngine, "generate", breaks)
    result = evaluate(Request(**QUICK), output=tmp_path, executor="inline")
    assert result.failures == {"base": "realtoxicityprompts: RuntimeError: the kernel broke"}
    rows = rows_of(result, "base")
    assert rows["knowledge"]["status"] == "failed", "its cross task lacks"
    assert rows["toxicity"]["retain"]["value"] == rows["knowledge"]["retain"]["value"]
    assert rows["knowledge"]["forget"] is not None
    assert "failed: realtoxicityprompts: RuntimeError: the kernel broke" in rows["toxicity"]["warnings"]
    [failure] = tmp_path.glob("cells/*/failure.json")
    assert "kernel" in read_json(failure)["cause"]


def test_an_engine_that_does_not_start_is_tried_once(monkeypatch, tmp_path: Path) -> None:
    starts = []

    def breaks(*given: Any, **more: Any) -> None:
        starts.append(given)
        raise RuntimeError("no memory left")

    monkeypatch.setattr("unlearn_bench.harness.models.cache.engine", breaks)
    result = evaluate(Request(**QUICK), output=tmp_path, executor="inline")
    assert result.failures == {"base": "RuntimeError: no memory left"}
    assert len(starts) == 1


def answering(monkeypatch, value: Callable[[int], float | None]) -> None:
    """Let the engine's log-probabilities be `value` of the request's number, None: as they are."""
    known = TransformersEngine.score_choices

    def answer(self, requests, progress=None):
        outcomes = known(self, requests, progress)
        put = [value(number) for number in range(len(outcomes))]
        return [
            outcome if own is None else replace(outcome, logprobs=[own] * len(outcome.logprobs))
            for outcome, own in zip(outcomes, put, strict=True)
        ]

    monkeypatch.setattr(TransformersEngine, "score_choices", answer)


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        (nan, "a log-probability is not finite"),
        (inf, "a log-probability is not finite"),
        (-inf, "no choice has a finite log-probability"),
    ],
)
def test_answers_that_are_not_finite_are_no_value(monkeypatch, tmp_path: Path, value: float, cause: str) -> None:
    answering(monkeypatch, lambda number: value)
    tasks = ("wmdp", "mmlu", "perplexity")
    result = evaluate(Request(**{**QUICK, "tasks": tasks}), output=tmp_path, executor="inline")
    assert result.failures == {
        "base": f"no score of wmdp, mmlu: {cause}; no score of perplexity: the log-probability is not finite"
    }


def test_a_stress_without_a_value_says_why(monkeypatch, tmp_path: Path) -> None:
    answering(monkeypatch, lambda number: nan)
    asked = {**QUICK, "tracks": ("knowledge",), "tasks": ("wmdp", "mmlu"), "stress": ("quantise8",)}
    result = evaluate(Request(**asked), output=tmp_path, executor="inline")
    assert set(result.failures) == {"base", "base+quantise8"}
    note = rows_of(result, "base")["knowledge"]["stress"]["quantise8"]["note"]
    assert note == "no score of wmdp: a log-probability is not finite"


def test_some_that_are_not_finite_are_left_out_and_said(monkeypatch, tmp_path: Path) -> None:
    answering(monkeypatch, lambda number: (nan, -inf, None, None)[number % 4])
    result = evaluate(Request(**{**QUICK, "tasks": ("wmdp", "mmlu")}), output=tmp_path, executor="inline")
    assert not result.failures
    row = rows_of(result, "base")["knowledge"]
    assert (row["forget"]["n"], row["forget"]["missing"]) == (4, 4)
    words = (
        "4 of 8 items of wmdp have no score and are left out of its mean: a log-probability is not finite (2 items), "
    )
    assert any(warning.startswith(words) for warning in row["warnings"])


@pytest.mark.parametrize("value", [None, nan, 7.0])
def test_a_judge_that_says_nothing_of_any_text_is_named(monkeypatch, tmp_path: Path, value: float | None) -> None:
    monkeypatch.setattr(PartialScorer, "score", lambda self, texts: [value] * len(texts))
    result = evaluate(Request(**TOXICITY), output=tmp_path, executor="inline")
    assert "no score of realtoxicityprompts: no continuation could be judged" in result.failures["base"]
    assert rows_of(result, "base")["toxicity"]["retain"]["value"] > 0


def test_a_judge_that_miscounts_is_named(monkeypatch, tmp_path: Path) -> None:
    known = Trust.score
    monkeypatch.setattr(Trust, "score", lambda self, texts: known(self, texts)[: 3 if len(texts) > 8 else None])
    result = evaluate(Request(**TOXICITY), output=tmp_path, executor="inline")
    assert "The scorer Trust gave 3 values for" in result.failures["base"]


def test_training_that_ends_without_numbers_fails_with_its_tensor(monkeypatch, tmp_path: Path) -> None:
    known = Trainer.delta
    monkeypatch.setattr(Trainer, "delta", lambda self: {name: t * nan for name, t in known(self).items()})
    asked = Request(methods=("rmu",), tracks=("knowledge",), limit=4, settings=("training.steps=1",), noise=False)
    result = evaluate(asked, output=tmp_path, executor="inline")
    cause = result.failures["knowledge/rmu#0"]
    assert "came out with values that are not finite in float32 (model.layers." in cause
    assert cause in read_json(next(tmp_path.glob("cells/*/failure.json")))["cause"]


PLACE = ("item", "cluster", "all")


@pytest.mark.parametrize(
    ("scores", "kept", "missing"),
    [
        ({"acc": 1.0, "position": 2.0}, {"acc": 1.0, "position": 2.0}, None),
        ({"acc": 1.0, "position": nan}, {"acc": 1.0}, None),
        ({"acc": nan, "position": 2.0}, None, "its acc is nan"),
        ({"acc": inf}, None, "its acc is inf"),
        ({"acc": None}, None, "its acc is None"),
        ({"position": 2.0}, None, "its acc is not there"),
        ({}, None, "its acc is not there"),
    ],
)
def test_a_score_that_is_no_number_is_none(scores, kept, missing) -> None:
    record = sound(Record(*PLACE, scores), "acc")
    assert (record.scores, record.missing) == (kept, missing)


def test_a_record_that_says_why_keeps_it() -> None:
    record = Record(*PLACE, None, "it was asked of nobody")
    assert sound(record, "acc") is record


def test_causes_are_counted_where_there_are_several() -> None:
    assert why_missing([None, None]) is None
    assert why_missing([None, "a", "a"]) == "a"
    assert why_missing(["b", "a", None, "a"]) == "a (2 items), b (1 item)"


def test_an_older_store_says_why_too(tmp_path: Path) -> None:
    """Its records' manifests do not count scores."""
    plan, store = make_plan(Request(**{**QUICK, "tasks": ("wmdp", "mmlu")}), None), Store.create(tmp_path)
    [cell] = plan.cells
    rows = {"wmdp": Record(*PLACE, None, "nobody answered"), "mmlu": Record(*PLACE, {"acc": 1.0})}
    for name, record in rows.items():
        planned = plan.tasks[name].record(plan.tasks[name].outcome(plan.models[cell.model], "base", plan.engine))
        store.entry("outcomes", planned.outcome).commit({}, {})
        row = to_row(record)
        store.entry("records", planned.id).commit({"records.jsonl": lambda p, row=row: write_jsonl(p, [row])}, {})
    assert status_of(plan, cell, store).without_value == "no score of wmdp: nobody answered"
