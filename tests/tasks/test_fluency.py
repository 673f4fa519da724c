"""Fluency: what a classifier of gibberish says of generated answers, and which classifier may say it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from unlearn_bench.harness import Request
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.planning.scorer_check import FluencyCheck, Sentences
from unlearn_bench.harness.planning.sentences import PLAIN
from unlearn_bench.harness.records import Generations
from unlearn_bench.tasks.base import Decoding, Scorer, load_scorer
from unlearn_bench.tasks.qa_fluency import QAFluencySettings, QuestionAnswersFluency

LABELS = ("clean", "noise", "word salad")
SUITE = """
extends: micro
name: fluent
tasks:
  fluent:
    task: qa_fluency
    data: {{path: data/qa_forget.jsonl}}
    optional: {optional}
    {scorer}
tracks:
  knowledge: {{controls: [fluent]}}
  toxicity: null
variants: {{toxicity: null}}
"""


class Said(Scorer):
    """A scorer of fluency that has a rule."""

    fluency = True

    def __init__(self, rule: Any) -> None:
        self.rule, self.asked = rule, []

    def score(self, texts):
        self.asked += texts
        return list(map(self.rule, texts))


def test_the_first_label_of_the_first_tokens_counts(save, tmp_path: Path) -> None:
    folder = save(tmp_path, "BertForSequenceClassification", LABELS)
    settings = {"label": "clean", "activation": "softmax", "tokens": 4}
    scorer: Any = load_scorer("fluency", folder, settings=settings)
    text = "you are kind the day"
    inputs = scorer.tokenizer(text, truncation=True, max_length=4, return_tensors="pt")
    assert inputs["input_ids"].shape == (1, 4)
    with torch.no_grad():
        expected = float(scorer.model(**inputs).logits.softmax(-1)[0, 0])
    assert scorer.score([text])[0] == pytest.approx(expected, abs=2e-6)
    assert scorer.score(["the day"]) != scorer.score([text])
    assert scorer.score([f"{text} {text}"]) == scorer.score([text]), "it reads no further"
    assert scorer.about()[-1] == "of the first 4 tokens"


def test_answers_are_judged_once_and_what_cannot_be_is_missing() -> None:
    task = QuestionAnswersFluency(QAFluencySettings(decoding=Decoding(samples=4)))
    items = task.items([{"question": "Who?", "answer": "Me."}, {"question": "When?", "answer": "Now."}])
    texts = ["a man", "a man", "", "xx"]
    outcomes = [
        Generations(items[0].id, texts, [1] * 4, [True] * 4),
        Generations(items[1].id, ["xx"], [1], [True]),
    ]
    scorer = Said({"a man": 0.9, "": 0.2, "xx": None}.get)
    first, second = task.score(items, outcomes, scorer)
    assert scorer.asked == ["", "a man", "xx"]
    assert first.scores == {"fluency": pytest.approx((0.9 + 0.9 + 0.2) / 3)}
    assert (first.marks["wordless"], first.marks["unjudged"]) == (0.25, 0.25)
    assert (second.scores, second.missing) == (None, "no answer could be judged")


def test_a_scorer_must_tell_prose_from_gibberish() -> None:
    sentences = Sentences.of(None)

    def failure(rule: Any) -> tuple[str, str] | None:
        return FluencyCheck.of(Said(rule), sentences).failure(0.5, 200, "mend it")

    assert failure(lambda text: float(text in PLAIN)) is None
    for rule in (
        len,
        lambda _text: 0.5,
        lambda text: float(sorted(text.split()) == sorted(text.split(), key=str.lower)),
    ):
        said = failure(rule)
        assert said is not None
        assert "does not tell prose and gibberish apart" in said[0]
    known = {word for text in PLAIN for word in text.split()}
    words = failure(lambda text: float(set(text.split()) <= known))
    assert words is not None, "words alone are not enough: their order makes prose"


def test_a_task_of_fluency_names_its_own_scorer_or_is_left_out(save, tmp_path: Path) -> None:
    def plan(scorer: str, optional: str = "false"):
        (tmp_path / "s.yaml").write_text(SUITE.format(scorer=scorer, optional=optional))
        return make_plan(Request(suite=str(tmp_path / "s.yaml"), methods=("none",), limit=4), None)

    with pytest.raises(UserError, match="needs a scorer of fluency of texts: name one under `scorer:`"):
        plan("")
    with pytest.raises(UserError, match="Scorer nli scores pairs of texts, and task qa_fluency needs one of fluency"):
        plan("scorer: {kind: nli, path: judge}")
    nowhere = "scorer: {kind: fluency, hub: nobody/nothing, settings: {label: 0, activation: softmax}}"
    assert "nobody/nothing is no folder here" in plan(nowhere, "true").left_out["fluent"]
    folder = save(tmp_path / "judge", "BertForSequenceClassification", LABELS)
    there = f"scorer: {{kind: fluency, path: {folder}, settings: {{label: clean, activation: softmax, tokens: 8}}}}"
    scorer = plan(there).tasks["fluent"].scorer
    assert scorer is not None
    assert scorer.settings == {"label": "clean", "activation": "softmax", "tokens": 8}
