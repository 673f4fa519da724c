"""Published logs of values an item, and our own records, read as records."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from unlearn_bench.harness.data.logs import chosen, placed, read_log
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.records import Item, Record

TOFU = {
    "eval_log_forget.json": {
        "avg_gt_loss": {"0": 0.5, "1": None},
        "average_perturb_loss": {"0": [1.0, 2.0], "1": [3.0, float("nan")]},
        "generated_text": {"0": ["a", "b"], "1": ["c", "d"]},
    },
    "eval_log.json": {"avg_gt_loss": {str(i): float(i) for i in range(11)}},
}
OPEN = {
    "forget_Q_A_Prob": {"agg_value": 0.5, "value_by_index": {"0": {"prob": 0.25, "avg_loss": 1.5}}},
    "exact_memorization": {"agg_value": 0.5, "value_by_index": {"0": {"score": 0.75}}},
    "ra_Truth_Ratio": {"agg_value": 0.5, "value_by_index": {"0": {"score": None}}},
    "mia_loss": {side: {"value_by_index": {"0": {"score": k}}} for k, side in enumerate(("forget", "holdout"))},
    "retain_knowmem_ROUGE": {"value_by_index": {"0": {"rougeL_f1": 0.5, "generation": "text"}}},
    "privleak": {"agg_value": 22.5},
}


def written(folder: Path, value, name: str = "log.json") -> Path:
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_a_log_of_tofu_is_records_by_set(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, TOFU))
    assert set(log) == {"forget", "retain"}
    first, second = log["forget"]
    own = {"avg_gt_loss": 0.5, "average_perturb_loss[0]": 1.0, "average_perturb_loss[1]": 2.0}
    assert first.scores is not None
    assert first.scores.items() >= {**own, "loss": 0.5, "prob": math.exp(-0.5)}.items()
    assert first.scores["truth_ratio"] == pytest.approx(math.exp(-1.5 + 0.5))
    assert first.scores["normalised_prob"] == pytest.approx(1 / (1 + math.exp(-0.5) + math.exp(-1.5)))
    assert second.scores == {"average_perturb_loss[0]": 3.0}
    assert [record.item for record in log["retain"]] == [str(i) for i in range(11)]
    alone = read_log(written(tmp_path, TOFU["eval_log_forget.json"], "eval_log_forget.json"))
    assert alone == {"forget": log["forget"]}


def test_a_log_of_openunlearning_is_records_by_set(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, OPEN))
    forget = {"Q_A_Prob.prob": 0.25, "Q_A_Prob.avg_loss": 1.5, "exact_memorization": 0.75, "mia_loss": 0.0}
    assert {name: records[0].scores for name, records in log.items()} == {
        "forget": {**forget, "exact_memorisation": 0.75, "loss": 1.5, "prob": math.exp(-1.5)},
        "holdout": {"mia_loss": 1.0, "loss": 1.0, "prob": math.exp(-1.0)},
        "real_authors": None,
        "retain_knowmem": {"ROUGE": 0.5},
    }
    assert log["real_authors"][0].missing == "the log has no value of it"


def test_own_records_are_read_back(tmp_path: Path) -> None:
    records = [Record("a", "c", "s", {"acc": 1.0}), Record("b", "c", "s", None, "no score")]
    path = written(tmp_path, "".join(json.dumps(vars(record)) + "\n" for record in records), "records.jsonl")
    assert read_log(path) == {"records": records}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('{"forget_Q_A_Prob": {', "cut or damaged"),
        ({"model_utility": 0.6}, "no values by item"),
        ([1, 2], "no values by item"),
        ({"eval_log.json": {"avg_gt_loss": {"0": 1.0}, "gt_loss": {"0": 1.0, "1": 1.0}}}, "in part"),
    ],
)
def test_what_is_no_whole_log_is_said(tmp_path: Path, value, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_log(written(tmp_path, value))
    with pytest.raises(UserError, match="cannot be read"):
        read_log(tmp_path / "absent.json")
    with pytest.raises(UserError, match="no records"):
        read_log(written(tmp_path, '{"id": 1}\n', "other.jsonl"))


def test_records_take_the_places_of_a_tasks_items() -> None:
    items = [Item(f"h{i}", f"author{i // 2}", "s", {}) for i in range(4)]
    by_index = [Record(str(i), str(i), "", {"loss": float(i)}) for i in (0, 3)]
    assert [(r.item, r.cluster, r.stratum) for r in placed(by_index, items, "log")] == [
        ("h0", "author0", "s"),
        ("h3", "author1", "s"),
    ]
    by_id = [Record("h2", "2", "", {"loss": 1.0})]
    assert placed(by_id, items, "log")[0].cluster == "author1"
    with pytest.raises(UserError, match="item '4' is none of the task's 4 items"):
        placed([Record("4", "4", "", {})], items, "log")


def test_a_set_is_chosen_by_its_name() -> None:
    sets = {"forget": [Record("0", "0", "", {})], "retain": []}
    assert chosen(sets, "forget", "log.json") is sets["forget"]
    assert chosen({"records": []}, "any", "records.jsonl") == []
    with pytest.raises(UserError, match="no set of items 'holdout'"):
        chosen(sets, "holdout", "log.json")


def test_the_published_logs_are_read(data_root: Path) -> None:
    tofu = read_log(data_root / "golden" / "tofu_llama2_7b" / "full.json")
    assert {name: len(records) for name, records in tofu.items()} == {
        "retain": 300,
        "real_authors": 100,
        "world_facts": 117,
        "forget": 300,
    }
    assert len(tofu["forget"][0].scores or {}) > 10
    other = read_log(data_root / "golden" / "openunlearning" / "TOFU_EVAL.json")
    assert {name: len(records) for name, records in other.items()} == {
        "forget": 400,
        "retain": 400,
        "real_authors": 100,
        "world_facts": 117,
        "holdout": 400,
    }
