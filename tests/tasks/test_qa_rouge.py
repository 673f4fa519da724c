"""ROUGE of generated answers: what published logs say of the same texts, and what counts as no answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from unlearn_bench.harness.records import Generations, Record
from unlearn_bench.tasks.base import Decoding
from unlearn_bench.tasks.qa_rouge import QARougeSettings, QuestionAnswersRouge

SCORES = ("rougeL_recall", "rouge1_recall", "rougeL_f1")


def scored(pairs: list[tuple[str, list[str]]], **settings: Any) -> list[Record]:
    """Return the records of (answer, generated texts)."""
    task = QuestionAnswersRouge(QARougeSettings(**settings))
    items = task.items([{"id": str(n), "question": "Who?", "answer": answer} for n, (answer, _) in enumerate(pairs)])
    outcomes = [
        Generations(item.id, texts, [len(text) for text in texts], [True] * len(texts))
        for item, (_, texts) in zip(items, pairs, strict=True)
    ]
    return task.score(items, outcomes)


@pytest.mark.parametrize("rows", ["forget", "retain", "ra", "wf"])
def test_openunlearnings_scores_of_its_own_texts(data_root: Path, rows):
    file = data_root / "golden" / "openunlearning" / "TOFU_EVAL.json"
    if not file.is_file():
        pytest.skip(f"no {file}")
    log = json.loads(file.read_text())[f"{rows}_Q_A_ROUGE"]
    own = list(log["value_by_index"].values())
    records = scored([(one["ground_truth"], [one["generation"]]) for one in own])
    for name in SCORES:
        values = [(record.scores or {})[name] for record in records]
        assert values == pytest.approx([one[name] for one in own], abs=1e-12)
    assert sum((record.scores or {})["rougeL_recall"] for record in records) / len(own) == pytest.approx(
        log["agg_value"]
    )


def test_words_are_compared_by_their_stems_unless_asked_otherwise():
    [stems], [words] = (scored([("She walked home.", ["she walks"])], stemmer=stemmer) for stemmer in (True, False))
    assert (stems.scores or {})["rougeL_recall"] == pytest.approx(2 / 3)
    assert (words.scores or {})["rougeL_recall"] == pytest.approx(1 / 3)


def test_several_answers_count_alike_and_a_wordless_one_is_0():
    [record] = scored([("a b", ["a b", "", "a"])], decoding=Decoding(samples=3))
    assert (record.scores or {})["rougeL_recall"] == pytest.approx(0.5)
    assert record.marks["wordless"] == pytest.approx(1 / 3)


def test_what_was_never_given_is_missing_and_no_0():
    task = QuestionAnswersRouge(QARougeSettings())
    items = task.items([{"question": "Who?", "answer": "Me."}])
    [record] = task.score(items, [Generations(items[0].id, [""], [0], [False])])
    assert record.scores is None
    assert record.missing
    assert "no answer was given" in record.missing
