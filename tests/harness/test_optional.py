"""Optional tasks: left out where their data are not to be had, with the composites that need them, and said to be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from unlearn_bench.harness import Request, evaluate
from unlearn_bench.harness.errors import DataError, UserError
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.planning.dry_run import dry_run

ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus")


def suite(folder: Path, holdout: str) -> str:
    """Write a suite of micro's questions with attacks on membership; return its file."""
    tasks = {
        name: {
            "task": "qa",
            "data": {"path": path},
            "settings": {"moments": True},
            **({"optional": True} if name == "holdout" else {}),
        }
        for name, path in {"forget": "data/qa_forget.jsonl", "kept": "data/qa_retain.jsonl", "holdout": holdout}.items()
    }
    composites: dict[str, dict] = {
        f"mia_{score}": {"statistic": "auc", "of": [f"forget.{score}", f"holdout.{score}"]} for score in ATTACKS
    }
    of = {score: f"mia_{score}" for score in ATTACKS}
    composites["mia_reference"] = {
        "statistic": "auc",
        "of": [f"{task}.loss - {task}.loss@retain" for task in ("forget", "holdout")],
    }
    composites["privacy"] = {
        "statistic": "privacy",
        "of": of | {f"retain_{key}": f"{text}@retain" for key, text in of.items()},
    }
    composites["privleak"] = {"statistic": "privleak", "of": ["mia_min_k", "mia_min_k"]}
    composites["half"] = {"statistic": "privleak", "of": ["mia_min_k", 0.5]}
    composites["mem"] = {"statistic": "mean", "of": ["forget.exact_memorisation"]}
    knowledge = {"forget_task": "forget", "retain_task": "kept", "controls": ["holdout"]}
    values = {
        "extends": "micro",
        "name": "mine",
        "tasks": tasks,
        "tracks": {"knowledge": knowledge, "toxicity": None},
        "variants": {"toxicity": None},
        "composites": composites,
        "bootstrap": {"resamples": 200},
    }
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return str(file)


def run(file: str, root: Path, output: Path):
    reference = root / "harness" / "suites" / "micro" / "reference"
    asked = Request(suite=file, methods=("none",), limit=40, references={"retain": reference})
    return evaluate(asked, output=output, executor="inline")


def test_what_is_left_out_is_said_while_planning_and_on_the_board(root: Path, tmp_path: Path) -> None:
    file = suite(tmp_path, "data/nowhere.jsonl")
    sketch = dry_run(Request(suite=file, methods=("none",)), tmp_path / "none", 8)
    assert "nowhere.jsonl" in sketch.left_out["holdout"]
    assert not sketch.unreached
    assert "Left out: holdout, which is optional. No file matches data/nowhere.jsonl" in sketch.to_text()
    assert json.loads(sketch.to_json())["left_out"] == sketch.left_out
    result = run(file, root, tmp_path / "store")
    assert not result.failures
    (table,) = result.board.composites
    assert list(table["better"]) == ["mem"]
    said = result.board.spec.facts["not measured"]
    names = {f"mia_{score}" for score in ATTACKS} | {"holdout", "mia_reference", "privacy", "privleak"}
    assert names <= set(said.partition(" (")[0].split(", "))
    assert "No file matches data/nowhere.jsonl" in said
    assert "notes" not in result.board.spec.facts
    assert "- not measured: holdout" in (tmp_path / "store" / "leaderboards" / "mine.md").read_text()


def test_what_is_at_hand_is_measured_like_any_other(root: Path, tmp_path: Path) -> None:
    result = run(suite(tmp_path, "data/qa_holdout.jsonl"), root, tmp_path / "store")
    assert "not measured" not in result.board.spec.facts
    (table,) = result.board.composites
    rows = {row["variant"]: row["values"] for row in table["rows"]}
    values: dict[str, dict[str, Any]] = {
        row: {name: (of["value"] or {}).get("value") for name, of in own.items()} for row, own in rows.items()
    }
    for attack in ATTACKS[:3]:
        assert values["base"][f"mia_{attack}"] > values["retain"][f"mia_{attack}"], "base has seen the forget text"
    assert values["retain"]["mia_reference"] == 0.5, "nothing is left of its loss less its own"
    assert values["base"]["mia_reference"] > 0.5
    assert rows["base"]["mia_reference"]["n"] == 40
    assert values["retain"]["privacy"] == 1.0
    assert 0 <= values["base"]["privacy"] < 1
    assert values["retain"]["privleak"] == 0.0
    assert values["base"]["privleak"] < 0, "told apart as seen"
    assert values["base"]["half"] == pytest.approx(100 * (1 - 2 * values["base"]["mia_min_k"]), abs=1e-3)


def test_one_that_is_named_must_be_there(tmp_path: Path) -> None:
    file = suite(tmp_path, "data/nowhere.jsonl")
    with pytest.raises(UserError, match="No file matches"):
        make_plan(Request(suite=file, methods=("none",), tasks=("forget", "kept", "holdout")), None)


def test_damaged_data_are_no_missing_ones(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="question"):
        make_plan(Request(suite=suite(tmp_path, "data/refusals.jsonl"), methods=("none",)), None)
