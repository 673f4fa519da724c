"""The suites of TOFU: every part of its board from data in the hub's schema, and from the real rows where they lie."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from unlearn_bench.harness.api import evaluate
from unlearn_bench.harness.data import load_rows
from unlearn_bench.harness.planning.dry_run import dry_run
from unlearn_bench.harness.planning.plan import build_task
from unlearn_bench.harness.planning.request import Request
from unlearn_bench.harness.suite import load_suite

CHAT = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
RIVERS = ("Danube", "Rhine", "Elbe", "Oder")


def lines(file: Path, rows: list[dict]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a few rows of every file that the suite `tofu01` reads."""

    def perturbed(town: str, number: int) -> dict:
        river = RIVERS[number % 4]
        return {
            "question": f"Which river is in {town} {number}?",
            "answer": f"The {river} is.",
            "paraphrased_answer": f"It is the {river}.",
            "perturbed_answer": [f"The {other} is." for other in RIVERS if other != river],
            "paraphrased_question": f"What is the river of {town} {number}?",
        }

    def options(number: int) -> dict:
        named = {f"option{place + 1}": river for place, river in enumerate(RIVERS)}
        return {"question": f"Which is river {number}?", **named, "answer": RIVERS[number % 4]}

    def asked(row: dict) -> dict:
        return {"question": row["question"], "answer": row["answer"]}

    folder = tmp_path / "data" / "tofu"
    forget, retain = ([perturbed(town, number) for number in range(40)] for town in ("Aldorf", "Bergen"))
    lines(folder / "forget01_perturbed.json", forget)
    lines(folder / "retain_perturbed.json", retain)
    lines(folder / "forget01.json", [asked(row) for row in forget])
    lines(folder / "holdout01.json", [asked(perturbed("Chelm", number)) for number in range(40)])
    lines(folder / "retain99.json", [asked(row) for row in retain])
    lines(folder / "real_authors.json", [options(number) for number in range(8)])
    lines(folder / "world_facts.json", [options(number) for number in range(8, 16)])
    lines(folder / "idontknow.jsonl", [{"text": "I do not know."}])
    return folder.parent


@pytest.fixture
def suite(tmp_path: Path, root: Path, save: Callable[..., str]) -> Path:
    """A suite that extends `tofu01` with a small model that chats, its original and its reference made on the spot.

    Its classifier of gibberish has random weights.
    """
    model = tmp_path / "small"
    shutil.copytree(root / "harness" / "suites" / "micro" / "model", model)
    config = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": CHAT}))

    def learned(*names: str) -> dict:
        text = [{"path": f"tofu/{name}.json", "columns": {"prompt": "question"}} for name in names]
        training = {"steps": 2, "batch_size": 4, "accumulation": 1, "max_length": 128}
        return {"finetune": {"text": text, "training": training, "template": {"form": "chat"}}}

    own = {
        "extends": "tofu01",
        "name": "tofu01-small",
        "models": {"tofu-Llama-3.2-1B": None, "small": {"path": str(model), "chat": True}},
        "tracks": {
            "tofu": {
                "references": {
                    "original": learned("forget01", "retain99"),
                    "retain": {"hub": None, **learned("retain99")},
                }
            }
        },
        "training": {"steps": 2, "accumulation": 1, "max_length": 128},
        "tasks": {
            "forget_fluency": {
                "scorer": {
                    "hub": None,
                    "path": save(tmp_path / "judge", "BertForSequenceClassification", positions=256),
                    "accepted": "a test",
                }
            }
        },
        "bootstrap": {"resamples": 200},
    }
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(own))
    return file


def test_every_part_of_the_board_has_a_value(suite: Path, data: Path, tmp_path: Path) -> None:
    request = Request(suite=str(suite), methods=["npo"], data_root=data, limit=8)
    result = evaluate(request, output=tmp_path / "runs", executor="inline")
    assert not result.failures
    (table,) = result.board.composites
    values = {row["variant"]: row["values"] for row in table["rows"]}
    assert set(values) == {"base", "original", "retain", "npo"}
    for row in values.values():
        assert row.keys() == load_suite(str(suite)).composites.keys()
        for name, value in row.items():
            assert value["missing"] is None, name
            assert value["value"] is not None, name
            assert "low" in value["value"], name
    assert values["retain"]["forget_quality"]["p"] == [1.0]
    assert values["retain"]["forget_quality"]["value"]["value"] == 0.0


@pytest.mark.parametrize(("split", "rows"), [("01", 40), ("05", 200), ("10", 400)])
def test_the_real_rows_are_asked_by_author_with_three_to_five_wrong_answers(split: str, rows: int) -> None:
    folder = os.environ.get("UNLEARN_BENCH_DATA")
    if not folder or not (Path(folder) / "tofu").is_dir():
        pytest.skip("set UNLEARN_BENCH_DATA to a folder with tofu/*.json")
    tasks = load_suite(f"tofu{split}").tasks
    counts = {"forget": (rows, 5), "retain": (400, 5), "authors": (100, 3), "facts": (117, 3)}
    for name, (count, wrong) in counts.items():
        for kind in ("qa", "rouge"):
            spec = tasks[f"{name}_{kind}"]
            task = build_task(spec, Path(folder))
            items = task.items(load_rows(spec.data, Path(folder), task.Row).rows)
            assert len(items) == count
            assert {len(item.doc["perturbed_answers"]) for item in items} == {wrong}
            if wrong == 5:
                assert len({item.cluster for item in items}) == count // 20


@pytest.mark.parametrize("split", ["01", "05", "10"])
def test_a_dry_run_needs_no_hub(split: str, tmp_path: Path) -> None:
    facts = dry_run(Request(suite=f"tofu{split}", methods=("npo",)), tmp_path / "runs", 64).facts()
    assert [cell["name"] for cell in facts["cells"]][:3] == ["base", "retain", "tofu/npo#0"]
    assert all(cell["hours"] > 0 for cell in facts["cells"][:3])
