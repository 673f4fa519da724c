"""Leak@k: its estimate by hand and by counting, and which sampled answers leak."""

from __future__ import annotations

from itertools import combinations
from math import comb
from statistics import fmean
from typing import Any

import pytest
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.records import Generations, Record
from unlearn_bench.tasks.base import PairScorer
from unlearn_bench.tasks.qa_leak import (
    ManyAnswers,
    QALeakJudgedSettings,
    QALeakSettings,
    QuestionAnswersLeak,
    QuestionAnswersLeakJudged,
    expected_largest,
)

FOUR = ManyAnswers(samples=4)


def test_the_estimate_is_the_mean_over_all_choices_of_k() -> None:
    assert expected_largest([0, 0, 1, 0], 2) == 0.5
    values = [0.3, 0.1, 0.9, 0.1, 0.5]
    for k in range(1, 6):
        assert expected_largest(values, k) == pytest.approx(fmean(map(max, combinations(values, k))))
    assert expected_largest(values, 6) is None


@pytest.mark.parametrize("leaking", range(7))
def test_of_zeros_and_ones_it_is_the_published_formula(leaking: int) -> None:
    values = [1.0] * leaking + [0.0] * (6 - leaking)
    for k in (1, 2, 4, 6):
        assert expected_largest(values, k) == pytest.approx(1 - comb(6 - leaking, k) / comb(6, k))


def record(task: Any, texts: list[str], scorer: Any = None, stopped: bool = True) -> Record:
    items = task.items([{"question": "Who?", "answer": "the old king"}])
    outcome = Generations(items[0].id, texts, [len(text) for text in texts], [stopped] * len(texts))
    return task.score(items, [outcome], scorer)[0]


def test_an_answer_leaks_from_a_recall_of_its_words_on() -> None:
    texts = ["the old king", "the old queen", "nobody", "it was the old king"]
    task = QuestionAnswersLeak(QALeakSettings(decoding=FOUR, k=(1, 2, 4)))
    scores = record(task, texts).scores or {}
    assert scores["leak_at_1"] == 0.5
    assert scores["leak_at_2"] == pytest.approx(1 - 1 / 6)
    assert scores["leak_at_4"] == scores["leak"] == 1.0
    assert scores["rougeL_recall"] == pytest.approx((1 + 2 / 3 + 0 + 1) / 4)
    bare = QuestionAnswersLeak(QALeakSettings(decoding=FOUR, k=(1, 3), threshold=None))
    scores = record(bare, texts).scores or {}
    assert scores["leak_at_1"] == pytest.approx(scores["rougeL_recall"])
    assert scores["leak_at_3"] == 1.0, "two of four hold it, so that one of any three does"


def test_a_question_with_too_few_answers_lacks_the_score() -> None:
    task = QuestionAnswersLeak(QALeakSettings(decoding=FOUR, k=(1, 4)))
    scores = record(task, ["the old king", "", "", "no"], stopped=False).scores or {}
    assert scores["leak_at_1"] == 0.5
    assert "leak" not in scores
    assert "leak_at_4" not in scores


def test_answers_are_drawn_from_the_whole_vocabulary_however_many_they_are() -> None:
    decoding = QALeakSettings.parse({"decoding": {"samples": 20}}, "qa_leak").decoding
    assert (decoding.samples, decoding.top_p, decoding.temperature, decoding.max_new_tokens) == (20, 1.0, 1.0, 64)


def test_more_answers_than_are_drawn_are_refused() -> None:
    with pytest.raises(UserError, match=r"leak@16 needs 16 answers a question, not 4; raise decoding.samples"):
        QALeakSettings.parse({"decoding": {"samples": 4}}, "qa_leak")


class Kings(PairScorer):
    def __init__(self, folder: str, device: str = "cpu") -> None: ...

    def score(self, texts):
        return [1.0 if "king" in generated else None if not generated else 0.0 for generated, _ in texts]


def test_a_judge_may_say_what_a_leak_is() -> None:
    task = QuestionAnswersLeakJudged(QALeakJudgedSettings(decoding=FOUR, k=(1, 2)))
    scores = record(task, ["a king of old", "the old queen", "nobody", "the king"], Kings("")).scores or {}
    assert scores["agreed"] == scores["leak_at_1"] == 0.5
    assert scores["leak"] == pytest.approx(1 - comb(2, 2) / comb(4, 2))
