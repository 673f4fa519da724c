"""Scorers of pairs: what their folders say, what a pair is worth, and a run with one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from unlearn_bench.harness import Request, evaluate
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.planning.scorer_check import PairCheck, Sentences
from unlearn_bench.harness.records import Generations
from unlearn_bench.harness.suite import load_suite
from unlearn_bench.tasks.base import Decoding, PairScorer, load_scorer, scorers
from unlearn_bench.tasks.qa_judged import QAJudgedSettings, QuestionAnswersJudged

PAIRS = [("you are kind", "you are awful"), ("the day", "the day"), ("fine " * 30, "day"), ("you", "the day " * 4)]
SUITE = """
extends: micro
name: micro-judged
tasks:
  judged:
    task: qa_judged
    data: {{path: data/qa_forget.jsonl}}
    settings: {{decoding: {{samples: 1, temperature: 0, max_new_tokens: 12}}, least_recall: 0}}
    {scorer}
tracks:
  knowledge: {{controls: [judged]}}
  toxicity: null
variants: {{toxicity: null}}
"""


def test_entailment_is_the_label_of_that_name_of_both_texts_in_their_places(save, tmp_path):
    scorer = load_scorer("nli", save(tmp_path, "BertForSequenceClassification", ("NEUTRAL", "ENTAILMENT", "other")))
    values = scorer.score(PAIRS)
    for pair, value in zip(PAIRS, values, strict=True):
        inputs = scorer.tokenizer(*pair, truncation=True, max_length=24, return_tensors="pt")
        assert inputs["token_type_ids"].max() == 1
        with torch.no_grad():
            assert value == pytest.approx(float(scorer.model(**inputs).logits.softmax(-1)[0, 1]), abs=2e-6)
    assert scorer.score(PAIRS[:1]) == pytest.approx(values[:1], abs=PairScorer.tolerance)
    assert scorer.score([PAIRS[0][::-1]]) != values[:1]


def test_a_folder_without_that_label_says_which_it_has(save, tmp_path):
    folder = save(tmp_path, "BertForSequenceClassification", ("no", "yes"))
    with pytest.raises(UserError, match=r"has no label 'entailment', but \{0: no, 1: yes\}"):
        scorers.get("nli").identify(folder, {})
    assert scorers.get("nli").identify(folder, {"label": "yes"}) == {"label": "yes"}
    assert load_scorer("nli", folder, settings={"label": "yes"}).score(PAIRS[:1])[0] is not None


def test_similarity_is_the_cosine_of_mean_states(save, tmp_path):
    scorer = load_scorer("similarity", save(tmp_path, "BertModel"))
    values = scorer.score(PAIRS)
    for pair, value in zip(PAIRS, values, strict=True):
        states = []
        for text in pair:
            inputs = scorer.tokenizer(text, truncation=True, max_length=24, return_tensors="pt")
            with torch.no_grad():
                states.append(scorer.model(**inputs).last_hidden_state[0].mean(0))
        assert value == pytest.approx(max(0.0, float(torch.cosine_similarity(*states, dim=0))), abs=1e-5)
    assert values[1] == 1.0


def test_a_text_that_cannot_be_scored_is_missing_and_takes_no_other_down(save, tmp_path):
    scorer = load_scorer("similarity", save(tmp_path, "BertModel"))
    broken: list = [PAIRS[0], (None, "day"), PAIRS[1]]
    first, none, last = scorer.score(broken)
    assert none is None
    assert [first, last] == pytest.approx(scorer.score([PAIRS[0], PAIRS[1]]), abs=PairScorer.tolerance)


def test_a_head_of_random_weights_does_not_pass_the_check(save, tmp_path):
    scorer = load_scorer("nli", save(tmp_path, "BertForSequenceClassification"))
    check = PairCheck.of(scorer, Sentences.of(None))
    failure = check.failure(0.5, 4, scorer.reversed_labels)
    assert failure
    assert "does not tell its pairs apart" in failure[0]
    assert "reads only the first" in (check.failure(0.5, 100, "") or ("",))[0]


class Said(PairScorer):
    """Says of each pair what it is told, and keeps what it was asked."""

    def __init__(self, *values: float | None) -> None:
        self.values, self.asked = values, []

    def score(self, texts):
        self.asked = list(texts)
        return list(self.values)


def judged(scorer: Said, *texts: str, **settings):
    task = QuestionAnswersJudged(QAJudgedSettings(decoding=Decoding(samples=len(texts)), **settings))
    items = task.items([{"question": "Who?", "answer": "a b c"}])
    [record] = task.score(items, [Generations(items[0].id, list(texts), [1] * len(texts), [True] * len(texts))], scorer)
    return record


def test_pairs_are_asked_once_in_their_direction_and_hopeless_ones_not_at_all():
    scorer = Said(0.9)
    record = judged(scorer, "a b", "a b", "x y", "")
    assert scorer.asked == [("a b", "a b c")]
    assert record.scores == {"agreed": 0.5, "agreement": pytest.approx(0.45)}
    assert record.marks["wordless"] == 0.25
    reverse = Said(0.4)
    assert judged(reverse, "a b", premise="right").scores == {"agreed": 0.0, "agreement": 0.4}
    assert reverse.asked == [("a b c", "a b")]


def test_what_could_not_be_judged_is_missing_and_no_0():
    record = judged(Said(None), "a b")
    assert (record.scores, record.missing) == (None, "no answer could be judged")
    half = judged(Said(None, 0.8), "a b", "a c")
    assert half.scores == {"agreed": 1.0, "agreement": 0.8}
    assert half.marks["unjudged"] == 0.5


def test_a_run_has_its_own_scorer_of_pairs(tmp_path):
    micro = load_suite("micro")
    model = Path(micro.folder) / (micro.models["micro"].path or "")
    (tmp_path / "s.yaml").write_text(SUITE.format(scorer=f"scorer: {{kind: similarity, path: {model}}}"))
    asked = Request(suite=str(tmp_path / "s.yaml"), methods=(), limit=8)
    result = evaluate(asked, output=tmp_path / "out", executor="inline")
    assert not result.failures
    rows = {row["variant"]: row for row in json.loads(result.board.to_json())["rows"]}
    [part] = [part for part in rows["base"]["controls"] if part["task"] == "judged"]
    assert (part["metric"], part["n"]) == ("agreed", 8)
    assert 0 < part["also"]["agreement"] <= 1
    assert "pairs of equal" in result.board.to_markdown()


def test_a_task_of_pairs_without_one_is_told_while_planning(tmp_path):
    def plan(scorer: str) -> None:
        (tmp_path / "s.yaml").write_text(SUITE.format(scorer=scorer))
        make_plan(Request(suite=str(tmp_path / "s.yaml"), methods=(), limit=8), None)

    with pytest.raises(UserError, match="needs a scorer of pairs of texts: name one under `scorer:`"):
        plan("")
    with pytest.raises(UserError, match="Scorer trust scores texts, and task qa_judged needs one of pairs of texts"):
        plan("scorer: {kind: trust, path: judge}")
