"""Training text as batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.suite import TrainingSpec
from unlearn_bench.harness.training.batches import Batches, Corpora
from unlearn_bench.methods.testing import WORDS, tiny_corpora, tiny_tokenizer

torch.set_num_threads(1)


def batches(corpora=None, seed=0, **training):
    spec = TrainingSpec(**{"batch_size": 3, "max_length": 16, **training})
    return Batches(corpora or tiny_corpora(), tiny_tokenizer(), spec, seed, torch.device("cpu"))


def test_batches_are_a_pure_function_of_seed_and_step():
    forwards, backwards = batches(), batches()
    there = [forwards.batch(step) for step in range(20)]
    for step in reversed(range(20)):
        again = backwards.batch(step)
        assert again.topic == there[step].topic
        for part in ("forget", "retain"):
            assert torch.equal(getattr(again, part).ids, getattr(there[step], part).ids)
            assert torch.equal(getattr(again, part).mask, getattr(there[step], part).mask)
    other = [batches(seed=1).batch(step).forget.ids for step in range(20)]
    assert any(
        a.shape != b.forget.ids.shape or not torch.equal(a, b.forget.ids) for a, b in zip(other, there, strict=True)
    )


def test_topics_alternate_and_a_pass_holds_every_text_once():
    corpora = tiny_corpora()
    found = {"bio": [], "cyber": []}
    for step in range(8):
        batch = batches().batch(step)
        assert batch.topic == ("bio", "cyber")[step % 2]
        found[batch.topic] += [
            tuple(row[keep.bool()].tolist()) for row, keep in zip(batch.forget.ids, batch.forget.mask, strict=True)
        ]
    expected = {
        topic: [tuple(ids) for ids in tiny_tokenizer()(list(texts))["input_ids"]]
        for topic, texts in corpora.forget.items()
    }
    assert sorted(found["cyber"]) == sorted(expected["cyber"]), "12 texts, four batches of three"
    assert sorted(found["bio"][:9]) == sorted(expected["bio"]), "9 texts, then the next permutation"
    assert set(found["bio"][9:]) <= set(expected["bio"])


def test_text_is_cut_and_padded_on_the_right_whatever_the_tokenizer_says():
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = tokenizer.truncation_side = "left"
    corpora = Corpora({"one": [" ".join(WORDS[:20]), WORDS[0]]}, ["ba"])
    made = Batches(corpora, tokenizer, TrainingSpec(batch_size=2, max_length=8), 0, torch.device("cpu"))
    tokens = made.encode(corpora.forget["one"])
    assert tokens.ids[0].tolist() == [1, *range(3, 10)]
    assert tokens.mask.tolist() == [[1] * 8, [1, 1, 0, 0, 0, 0, 0, 0]]
    assert tokens.last.tolist() == [7, 1]


def test_steps_come_from_epochs_over_all_forget_text():
    assert batches(epochs=2).steps == 2 * 21 // 3
    assert batches(epochs=0.1).steps == 1
    assert batches(steps=5).steps == 5


def test_labelled_text_without_probes_is_forget_against_retain():
    every = np.concatenate([labels for _, labels in batches().labelled()])
    assert (every.sum(), len(every)) == (21, 36)
    some = batches().labelled(10)
    assert np.bincount(np.concatenate([labels for _, labels in some])).tolist() == [5, 5]
    assert all(len(tokens.ids) == len(labels) and tokens.ids.numel() <= 3 * 16 for tokens, labels in some)
    lengths = [length for tokens, _ in batches().labelled() for length in tokens.mask.sum(1).tolist()]
    assert lengths == sorted(lengths), "texts of a batch are about equally long"


def test_labelled_text_is_the_tracks_where_it_has_any():
    base = tiny_corpora()
    made = batches(Corpora(base.forget, base.retain, (["bab", "bad", " "], [1, 0, 1])))
    [(tokens, labels)] = made.labelled()
    assert labels.tolist() == [1, 0]
    assert tokens.ids[:, 1].tolist() == [3, 4]
    with pytest.raises(UserError, match="0 or 1"):
        batches(Corpora(base.forget, base.retain, (["bab"], [2]))).labelled()
    with pytest.raises(UserError, match="both labels"):
        batches(Corpora(base.forget, base.retain, (["bab"], [1]))).labelled()


@pytest.mark.parametrize("corpora", [Corpora({}, ["bab"]), Corpora({"a": [" "]}, ["bab"]), Corpora({"a": ["bab"]}, [])])
def test_empty_text_is_named(corpora):
    with pytest.raises(UserError, match=r"forget|retain"):
        batches(corpora)
