"""Questions with given answers: which scores a record has, by which reading, and what is refused."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import pytest
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.records import Record, Trace, Traces
from unlearn_bench.tasks.base import tasks
from unlearn_bench.tasks.qa import QASettings, QuestionAnswers

ROW = {
    "question": "Who?",
    "answer": "Me.",
    "paraphrased_answer": "I.",
    "perturbed_answer": ["You.", "They."],
}
ANSWER = Trace([-0.1, -2.0, -0.5, -3.0, -0.2, -1.0], [0, 1, 0, 1, 1, 0], ended=True)


def flat(loss: float, count: int = 3) -> Trace:
    return Trace([-loss] * count, [1] * count, ended=True)


def score(row: dict[str, Any] = ROW, traces: list[Trace] | None = None, **settings: Any) -> Record:
    task = QuestionAnswers(QASettings(**settings))
    items = task.items([row])
    [record] = task.score(items, [Traces(items[0].id, traces or [ANSWER, flat(1), flat(2), flat(3)])])
    return record


def test_the_values_worked_out_by_hand():
    scores = score().scores
    assert scores is not None
    assert scores["truth_ratio"] == scores["forget_truth_ratio"] == pytest.approx(0.2231, abs=5e-5)
    assert scores["retain_truth_ratio"] == pytest.approx(0.7769, abs=5e-5)
    assert scores["prob_mean"] == pytest.approx(1 / (1 + (math.exp(-1) + math.exp(-2)) / 2))
    assert scores["paraphrased_prob"] == pytest.approx(math.exp(-1))
    assert scores["prob"] == pytest.approx(math.exp(-6.8 / 6))
    assert scores["loss"] == pytest.approx(6.8 / 6)
    assert scores["zlib"] == pytest.approx(6.8 / 6 / len(zlib.compress(b"Me.")))
    assert scores["normalised_prob"] == pytest.approx(scores["prob"] / (scores["prob"] + math.exp(-2) + math.exp(-3)))
    assert (scores["exact_memorisation"], scores["min_k"]) == (0.6, 2.5)
    assert scores["extraction_strength"] == pytest.approx(0.4)
    assert "min_k_plus_plus" not in scores


def test_the_end_token_is_left_out_of_memorisation_unless_it_is_to_count():
    assert score(left_out="nothing").scores["exact_memorisation"] == 0.5
    assert score(left_out="nothing").scores["extraction_strength"] == pytest.approx(1 / 6)
    assert score(left_out="nothing", unmatched="zero").scores["extraction_strength"] == 0.0
    endless = [Trace(ANSWER.logprobs, ANSWER.hits), *(Trace(flat(n).logprobs, [1] * 3) for n in (1, 2, 3))]
    assert score(traces=endless).scores["exact_memorisation"] == 0.5
    assert score(traces=endless, left_out="last").scores["exact_memorisation"] == 0.6


def test_an_arithmetic_mean_of_wrong_answers():
    assert score(aggregate="arithmetic").scores["truth_ratio"] == pytest.approx(0.2516, abs=5e-5)


def test_a_row_without_a_paraphrase_is_compared_by_its_answer():
    row = {key: value for key, value in ROW.items() if key != "paraphrased_answer"}
    scores = score(row, [ANSWER, flat(2), flat(3)]).scores
    assert scores["truth_ratio"] == pytest.approx(math.exp(-2.5) / scores["prob"])
    assert "paraphrased_prob" not in scores


def test_moments_give_the_score_that_needs_them():
    moments = {"means": [-2.0] * 6, "variances": [4.0] * 6}
    answer = Trace(ANSWER.logprobs, ANSWER.hits, **moments, ended=True)
    scores = score(traces=[answer, flat(1), flat(2), flat(3)], moments=True).scores
    assert scores["min_k_plus_plus"] == pytest.approx(-((-3 + 2) / 2 + (-2 + 2) / 2) / 2)


def test_what_has_no_token_or_no_log_probability_is_missing():
    assert score(traces=[Trace([], []), flat(1), flat(2), flat(3)]).missing == "the answer has no token of its own"
    assert score(traces=[flat(1, 1), flat(1), flat(2), flat(3)]).missing == "the answer has no token of its own"
    none: Any = [None, -1.0]
    assert score(traces=[Trace(none, [0, 1]), flat(1), flat(2), flat(3)]).missing == "a log-probability is not finite"
    scores = score(traces=[ANSWER, flat(1), Trace(none, [0, 1]), flat(3)]).scores
    assert "truth_ratio" not in scores
    assert "prob" in scores


def test_an_answer_of_probability_0_has_probability_0_and_no_loss():
    scores = score(traces=[Trace([-math.inf, -1.0], [0, 1], ended=True), flat(1), flat(2), flat(3)]).scores
    assert scores["prob"] == scores["normalised_prob"] == 0.0
    assert "loss" not in scores


def test_a_metric_is_chosen_by_a_setting_that_asks_no_model_again():
    task = QuestionAnswers(QASettings(metric="truth_ratio"))
    assert (task.metric.score, task.metric.better, task.metric.largest) == ("truth_ratio", "lower", None)
    assert QuestionAnswers(QASettings()).metric.score == "prob"
    assert "metric" in QuestionAnswers.scoring
    with pytest.raises(UserError, match=r"row 1 has no 'perturbed_answers', which the metric 'truth_ratio' needs"):
        task.items([{"question": "Who?", "answer": "Me."}])
    with pytest.raises(UserError, match="'paraphrased_answers'"):
        QuestionAnswers(QASettings(metric="paraphrased_prob")).items([{"question": "Who?", "answer": "Me."}])


def test_what_is_asked():
    task = QuestionAnswers(QASettings(prompt="[INST] {question} [/INST]", delimiter="", system="Be kind. "))
    [request] = task.requests(task.items([{**ROW, "question": "Who is {x}?"}]))
    assert request.context == "Be kind. [INST] Who is {x}? [/INST]"
    assert request.texts == ("Me.", "I.", "You.", "They.")
    assert (request.end, request.moments, request.system) == (True, False, "Be kind. ")


def test_columns_with_all_options_and_blocks_of_rows(data_root: Path):
    lines = (data_root / "tofu" / "world_facts.json").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    rows = [{**row, "perturbed_answers": [row[f"option{n}"] for n in (1, 2, 3, 4)]} for row in rows]
    task = QuestionAnswers(QASettings(block=20))
    items = task.items(rows)
    assert {len(item.doc["perturbed_answers"]) for item in items} == {3}
    assert [items[place].cluster for place in (0, 19, 20)] == ["block 0", "block 0", "block 1"]


def test_it_is_listed():
    assert tasks.get("qa") is QuestionAnswers
