"""Tasks that audit a checkpoint beside its questions: perplexity, and choices in another order."""

from __future__ import annotations

import math

import pytest
import torch
from unlearn_bench.harness.engines.transformers import TransformersEngine
from unlearn_bench.harness.models.load import ModelSpec, load_model, load_tokenizer
from unlearn_bench.harness.records import Choices
from unlearn_bench.tasks.base import tasks

TEXTS = ["The river rose in spring and the bridge held.", "Bread is baked before dawn.", "   "]


def build(name, **settings):
    kind = tasks.get(name)
    return kind(kind.Settings(**settings))


@pytest.fixture(scope="module")
def micro(root_folder):
    return ModelSpec(name="micro", path=str(root_folder / "harness" / "suites" / "micro" / "model"))


@pytest.fixture(scope="module")
def root_folder(request):
    return request.getfixturevalue("root")


def test_perplexity_is_the_loss_of_the_model(micro):
    task = build("perplexity")
    items = task.items([{"text": text} for text in TEXTS])
    records = task.score(items, TransformersEngine(micro).score_choices(task.requests(items)))
    model, tokenizer = load_model(micro), load_tokenizer(micro)
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    assert len(records) == 2, "a blank text is no item"
    for text, record in zip(TEXTS, records, strict=False):
        ids = torch.tensor([[begin, *tokenizer.encode(text, add_special_tokens=False)]])
        with torch.no_grad():
            expected = model(input_ids=ids, labels=ids).loss.item()
        assert record.scores == {"nll": pytest.approx(expected, abs=1e-4)}


def test_a_long_text_is_cut_after_a_whole_word():
    task = build("perplexity", max_characters=10)
    texts = [item.doc["text"] for item in task.items([{"text": "seven arches"}, {"text": "The bridge held"}])]
    assert texts == ["seven", "The bridge"]


def test_a_text_that_cannot_be_scored_is_missing():
    task = build("perplexity")
    items = task.items([{"text": "a"}, {"text": "b"}])
    outcomes = [Choices("x", [math.nan], [3], [False]), Choices("x", [0.0], [0], [False])]
    named = [Choices(item.id, o.logprobs, o.tokens, o.greedy) for item, o in zip(items, outcomes, strict=True)]
    assert [record.missing for record in task.score(items, named)] == [
        "the log-probability is not finite",
        "the text has no token",
    ]
    with pytest.raises(ValueError, match="was given for"):
        task.score(items, outcomes)


def rows(count=60):
    return [
        {
            "question": f"Which is {n}?",
            "choices": [f"{n}a", f"{n}b", f"{n}c", f"{n}d"],
            "answer": n % 4,
            "subject": "bio",
        }
        for n in range(count)
    ]


@pytest.mark.parametrize("name", ["wmdp", "mmlu"])
def test_permuted_choices_are_the_same_questions_in_another_order(name):
    given, permuted = build(name).items(rows()), build(name, choice_order="permuted").items(rows())
    assert [item.id for item in given] == [item.id for item in permuted], "items pair across both"
    for one, other in zip(given, permuted, strict=True):
        assert sorted(one.doc["choices"]) == sorted(other.doc["choices"])
        assert one.doc["choices"] != other.doc["choices"]
        assert one.doc["choices"][one.doc["answer"]] == other.doc["choices"][other.doc["answer"]]
    assert permuted == build(name, choice_order="permuted").items(rows())[:60]
    assert (
        len({tuple(i.doc["choices"].index(c) for c in g.doc["choices"]) for g, i in zip(given, permuted, strict=True)})
        > 12
    )


def test_a_model_that_answers_by_position_is_at_chance_where_choices_are_permuted():
    """All right answers stand at A; one who always says A knows nothing."""
    questions = [{**row, "answer": 0} for row in rows(200)]
    accuracy = {}
    for order in ("given", "permuted"):
        task = build("mmlu", choice_order=order)
        items = task.items(questions)
        always_a = [Choices(item.id, [-1.0, -2.0, -2.0, -2.0], [1] * 4, [True] + [False] * 3) for item in items]
        accuracy[order] = sum(record.scores["acc"] for record in task.score(items, always_a)) / len(items)
    assert accuracy["given"] == 1
    assert accuracy["permuted"] == pytest.approx(5 / 23, abs=0.1)
