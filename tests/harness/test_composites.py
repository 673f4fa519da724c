"""Composites of a suite, from its file to the board: read while planning, cut to what a plan asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from unlearn_bench.harness import Request, Result, evaluate
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.results.board import board_spec, written_board
from unlearn_bench.harness.results.composites import check_composites
from unlearn_bench.harness.suite import load_suite

QA = {
    name: {"task": "qa", "data": {"path": f"data/{name}.jsonl"}, "settings": {"metric": "prob"}}
    for name in ("qa_forget", "qa_retain", "qa_holdout")
}
COMPOSITES: dict[str, Any] = {
    "forget_quality": {
        "statistic": "ks",
        "of": {"unlearned": "qa_forget.truth_ratio", "retain": "qa_forget.truth_ratio"},
    },
    "auc": {"statistic": "auc", "of": {"forget": "qa_forget.min_k", "holdout": "qa_holdout.min_k"}},
    "privleak": {"statistic": "privleak", "of": ["auc", "auc"], "description": "membership, against retraining"},
    "utility": {"statistic": "harmonic_mean", "of": ["qa_retain.prob", "qa_retain.retain_truth_ratio"]},
    "kept": {"statistic": "quotient", "of": ["utility", "utility@original"]},
}


def suite(folder: Path, composites: dict[str, Any], **more: Any) -> str:
    """Write a suite that extends micro with questions, their answers and composites; return its file."""
    file = folder / "mine.yaml"
    knowledge = {"forget_task": "qa_forget", "retain_task": "qa_retain", "controls": ["qa_holdout"], **more}
    values = {"extends": "micro", "name": "mine", "tasks": QA, "tracks": {"knowledge": knowledge}}
    file.write_text(yaml.safe_dump({**values, "composites": composites}, sort_keys=False))
    return str(file)


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory) -> Result:
    """A finished run beside the retrained model; never written to."""
    folder = tmp_path_factory.mktemp("composites")
    asked = Request(
        suite=suite(folder, COMPOSITES),
        tracks=("knowledge",),
        tasks=tuple(QA),
        methods=("grad_ascent",),
        limit=40,
        settings=("training.steps=2",),
        references={"retain": root / "harness" / "suites" / "micro" / "reference"},
    )
    return evaluate(asked, output=folder / "store", executor="inline")


def test_a_board_has_the_composites_of_its_suite(run: Result) -> None:
    (table,) = run.board.composites
    rows = {row["variant"]: row["values"] for row in table["rows"]}
    assert {"base", "retain", "grad_ascent"} <= rows.keys()
    assert table["rows"][0]["role"] == "retain"
    assert rows["retain"]["forget_quality"]["p"] == [1.0]
    assert rows["base"]["forget_quality"]["p"][0] < 0.05, "it knows what the retrained model does not"
    for values in rows.values():
        for value in values.values():
            assert value["missing"] is None
            assert value["value"]
    assert rows["retain"]["privleak"]["value"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert rows["base"]["kept"]["value"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    text = " ".join((run.store.root / "leaderboards" / "mine.md").read_text().split())
    assert "privleak: membership, against retraining" in text
    assert "| *retain* |" in text
    assert "stands as" not in text, "a row that is called by its role"
    again = written_board(run.plan, run.store, run.cells)
    assert again.to_json() == run.board.to_json()
    assert again.to_markdown() == run.board.to_markdown(), "composites stand as the suite's file has them"
    heads = [line for line in again.to_markdown().splitlines() if line.startswith("| method") and "privleak" in line]
    places = [heads[0].index(name) for name in ("forget_quality", "privleak", "auc")]
    assert places == sorted(places), "those first that the suite which it extends has too"


def test_composites_that_a_plan_has_not_the_tasks_of_are_left_out(tmp_path: Path) -> None:
    asked = {"suite": suite(tmp_path, COMPOSITES), "tracks": ("knowledge",), "methods": ("none",), "limit": 8}
    plan = make_plan(Request(**asked, tasks=("qa_forget", "qa_retain")), None)
    assert list(board_spec(plan).composites) == ["forget_quality", "utility", "kept"]
    assert not board_spec(make_plan(Request(suite="micro", methods=("none",), limit=8), None)).composites


@pytest.mark.parametrize(
    ("composite", "words"),
    [
        ({"statistic": "kss", "of": ["qa_forget.prob"] * 2}, "Unknown statistic 'kss'"),
        ({"statistic": "mean", "of": ["wmdp.acc"]}, "needs wmdp: add it to the `controls`"),
        ({"statistic": "mean", "of": ["qa_retain.prob"], "tracks": ["toxicity"]}, "needs qa_retain"),
    ],
)
def test_what_cannot_be_computed_is_said_before_anything_runs(cli, tmp_path: Path, composite, words: str) -> None:
    tracks = composite.get("tracks", ["knowledge"])
    file = suite(tmp_path, {"mine": {"tracks": tracks, **composite}})
    with pytest.raises(UserError, match=words):
        check_composites(load_suite(file))
    for more in (["--dry-run"], []):
        done = cli("evaluate", "--suite", file, "--methods", "none", "--output", tmp_path / "out", *more)
        assert done.returncode == 2
        assert words in done.stderr
