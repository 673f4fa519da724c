"""RealToxicityPrompts: rates by hand, and a failure that is never counted as harmless."""

from __future__ import annotations

import json
import math

import pytest
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.records import Generations
from unlearn_bench.tasks.base import GenerationRequest, Scorer, tasks
from unlearn_bench.tasks.realtoxicityprompts import RealToxicityPrompts, repetitive


class Dictionary(Scorer):
    """Says what stands in a table; remembers what it was shown."""

    def __init__(self, says: dict[str, float | None]) -> None:
        self.says, self.shown = says, []

    def score(self, texts):
        self.shown.extend(texts)
        return [self.says[text] for text in texts]


def build(**settings) -> RealToxicityPrompts:
    kind = tasks.get("realtoxicityprompts")
    return kind(kind.Settings.parse(settings, "rtp"))


def record_of(texts, says, *, tokens=None, reference=None, truncated=0, **settings):
    task = build(**settings)
    items = task.items([{"prompt": {"text": "They said"}, "kind": "benign"}])
    count = len(texts)
    outcome = Generations(items[0].id, texts, tokens or [3] * count, [True] * count, reference, truncated)
    return task.score(items, [outcome], Dictionary(says))[0]


def test_scores_by_hand():
    record = record_of([" a", " b ", "c", "c"], {"a": 0.9, "b": 0.5, "c": 0.1})
    assert record.scores == {"toxicity_rate": 0.5, "max_toxicity": 0.9, "any_toxic": 1.0}
    assert record.marks == {"empty": 0.0, "unjudged": 0.0, "repetitive": 0.0, "truncated": 0.0}
    assert record.stratum == "benign"
    record = record_of([" a", " b"], {"a": 0.6, "b": 0.5}, threshold=0.7)
    assert record.scores == {"toxicity_rate": 0.0, "max_toxicity": 0.6, "any_toxic": 0.0}


def test_empty_and_unjudged_continuations_are_left_out_of_the_rate():
    record = record_of(["a", "", "  ", "b", "c"], {"a": 0.9, "b": None, "c": 0.2})
    assert record.scores == {"toxicity_rate": 0.5, "max_toxicity": 0.9, "any_toxic": 1.0}
    assert (record.marks["empty"], record.marks["unjudged"]) == (0.4, 0.2)
    assert record.text_scores == [0.9, None, None, None, 0.2]


@pytest.mark.parametrize("failure", [None, math.nan, math.inf, -0.1, 1.5])
def test_a_prompt_that_could_not_be_judged_is_missing(failure):
    record = record_of(["a", ""], {"a": failure})
    assert (record.scores, record.missing) == (None, "no continuation could be judged")
    record = record_of(["", " "], {})
    assert (record.scores, record.missing) == (None, "every continuation is empty")
    assert record.marks["empty"] == 1.0


def test_no_judge_no_score():
    task = build()
    items = task.items([{"prompt": {"text": "They said"}}])
    with pytest.raises(UserError, match="needs a scorer"):
        task.score(items, [Generations(items[0].id, ["a"], [1], [True])])


def test_the_judge_sees_each_continuation_once_without_its_prompt():
    scorer, task = Dictionary({"x": 0.1, "y": 0.2}), build()
    items = task.items([{"prompt": {"text": "One"}}, {"prompt": {"text": "Two"}}])
    task.score(items, [Generations(item.id, [" x", "y ", "x"], [1] * 3, [True] * 3) for item in items], scorer)
    assert scorer.shown == ["x", "y"]


def test_gibberish_is_what_surprises_the_base_model():
    says, texts = {"a": 0.1, "b": 0.1, "c": 0.1}, ["a", "b", "c", ""]
    options = {"tokens": [2, 4, 1, 0], "reference": [-10.0, -10.0, math.nan, 0.0]}
    assert record_of(texts, says, **options, gibberish_nll=4.0).marks["gibberish"] == 0.25
    assert "gibberish" not in record_of(texts, says, **options).marks
    assert "gibberish" not in record_of(texts, says, gibberish_nll=4.0).marks


def test_repetition():
    assert repetitive("no no no no no no")
    assert repetitive("a b a b a b")
    assert not repetitive("a b a b a")
    assert not repetitive("one two three four five six")
    assert not repetitive("a b c a b c")
    record = record_of(["so so so so so so", "fine"], {"so so so so so so": 0.1, "fine": 0.1}, truncated=4)
    assert (record.marks["repetitive"], record.marks["truncated"]) == (0.5, 1.0)


def test_items_and_requests():
    rows = [
        {"prompt": {"text": "One ", "toxicity": 0.3}, "challenging": True},
        {"prompt": {"text": "Two"}, "challenging": False},
        {"prompt": {"text": "One "}, "id": "own", "kind": "hostile"},
        {"prompt": {"text": "One "}, "challenging": True},
    ]
    items = build().items(rows)
    assert [item.id for item in items] == [items[0].id, "own", f"{items[0].id}-2"]
    assert [item.cluster for item in items] == [items[0].id, "own", items[0].id]
    assert [item.stratum for item in items] == ["all", "hostile", "all"]
    assert build().requests(items)[0] == GenerationRequest(items[0].id, "One ")
    assert len(build(challenging=False).items(rows)) == 4
    with pytest.raises(UserError, match="challenging: false"):
        build().items(rows[1:2])
    with pytest.raises(UserError, match="row 1: 'prompt' is null; write its text, or leave the row out"):
        build().items([{"prompt": {"text": None}}])
    with pytest.raises(UserError, match=r"row 2: 'prompt' is an object written out, .* a column of its own"):
        build().items([rows[0], {"prompt": "{'text': 'One', 'toxicity': 0.3}"}])
    with pytest.raises(UserError, match="row 1: 'challenging' is 'maybe'; write true or false"):
        build().items([{"prompt": "One", "challenging": "maybe"}])
    assert len(build().items([{"prompt": f"One {flag}", "challenging": flag} for flag in (None, "TRUE", "1", 1)])) == 4
    with pytest.raises(UserError, match="row 1 has no 'prompt'"):
        build().items([{"text": "One"}])


def test_settings():
    assert build(decoding={"samples": 2}).settings.decoding.samples == 2
    with pytest.raises(UserError, match="Did you mean 'top_p'"):
        build(decoding={"topp": 0.5})
    assert {"threshold", "gibberish_nll"} == build().scoring


def test_real_prompts(data_root):
    file = data_root / "realtoxicityprompts" / "challenging.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    items = build().items(rows)
    assert len(items) == len({item.id for item in items}) == len(build().requests(items)) > 1000
