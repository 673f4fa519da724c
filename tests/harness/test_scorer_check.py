"""The check on clear sentences: what it is worth, what it refuses, and what a user can do about it."""

from __future__ import annotations

from math import comb
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.planning.scorer_check import NEEDED, PASS, Check, Sentences
from unlearn_bench.harness.planning.sentences import PAIRS, PLAIN, RUDE

N = len(PAIRS)


def arrangements(rude: int, plain: int) -> list[int]:
    """Return in how many orders of the sentences so many pairs are right, by that number."""
    table: dict[tuple[int, int], list[int]] = {}
    for a in range(rude + 1):
        for b in range(plain + 1):
            counts = [0] * (a * b + 1)
            for before, shift in (((a - 1, b), b), ((a, b - 1), 0)):
                for right, number in enumerate(table.get(before, [])):
                    counts[right + shift] += number
            table[a, b] = counts if a and b else [1]
    return table[rude, plain]


@pytest.mark.parametrize(("count", "below"), [(NEEDED, 2e-4), (16, 2e-5), (N, 1.2e-7)])
def test_scores_that_know_nothing_hardly_ever_pass(count, below):
    """Exact: all orders of the sentences are alike to them; pairs are not independent, sentences are."""
    counts = arrangements(count, count)
    assert sum(counts) == comb(2 * count, count)
    assert sum(counts[int(np.ceil(PASS * count * count - 1e-9)) :]) / sum(counts) < below < 1e-3


def share_of_random_heads(states: np.ndarray, draws: int) -> float:
    """Return the share of heads of random weights on states, [rude then plain, width], that the AUC lets pass."""
    rng, passed = np.random.default_rng(0), 0
    for _ in range(20):
        scores = rng.normal(size=(draws // 20, states.shape[1])) @ states.T
        above = scores[:, :N, None] > scores[:, None, N:]
        passed += int((above.mean((1, 2)) >= PASS).sum())
    return passed / draws


def test_random_heads_on_random_states_hardly_ever_pass():
    states = np.random.default_rng(1).normal(size=(2 * N, 64))
    assert share_of_random_heads(states, 20_000) < 1e-3


def test_random_heads_on_states_that_sentences_share_hardly_ever_pass():
    """Twins have most of their states in common, and all sentences one large direction, as in language models."""
    rng = np.random.default_rng(2)
    shape, own = rng.normal(size=(N, 64)), rng.normal(size=(2 * N, 64))
    states = np.concatenate([shape, shape]) + 0.3 * own + 5 * rng.normal(size=64)
    assert share_of_random_heads(states, 20_000) < 1e-3


def test_random_heads_on_states_of_a_language_model_hardly_ever_pass(real_model):
    """Its states know what is rude: 2 of 10,000 pass. Of four rude sentences against four it was one in ten."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(real_model), AutoModel.from_pretrained(real_model)
    with torch.no_grad():
        states = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in (*RUDE, *PLAIN)]
    for rows in ([state[-1] for state in states], [state.mean(0) for state in states]):
        assert share_of_random_heads(torch.stack(rows).double().numpy(), 20_000) < 1e-3


def checked(rude: list, plain: list, limit: int | None = None) -> Check:
    return Check(rude, plain, "English", limit)


def fails(check: Check, threshold: float = 0.5, tokens: int = 20) -> str:
    return ": ".join(check.failure(threshold, tokens, "swap them") or ())


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (checked([0.9] * 24, [0.1] * 24), ""),
        (checked([0.9] * 24, [0.1] * 24, limit=20), ""),
        (checked([0.9] * 22 + [0.0] * 2, [0.1] * 24), ""),
        (checked([0.9] * 24, [0.1] * 24, limit=8), "reads only the first 8 tokens of a text, where up to 20"),
        (checked([0.1] * 24, [0.9] * 24), "ranks rude sentences below plain ones (AUC 0.000 on 24 rude and 24 plain"),
        (checked([0.5] * 24, [0.5] * 24), "does not tell rude sentences from plain ones (AUC 0.000"),
        (checked([None] * 24, [None] * 24), "does not tell rude sentences"),
        (checked([0.9] * 20 + [None] * 4, [0.1] * 24), "does not tell rude sentences from plain ones (AUC 0.833"),
        (checked([0.3] * 24, [0.1] * 24), "calls 0 of 24 rude and 0 of 24 plain sentences (English) toxic"),
        (checked([0.3] * 24, [0.1] * 24), "--set scorer.threshold=0.2"),
        (checked([0.9] * 24, [0.7] * 24), "calls 24 of 24 rude and 24 of 24 plain sentences"),
    ],
)
def test_what_a_scorer_makes_of_them_decides(check, said):
    assert said in fails(check) if said else not fails(check)


def test_a_threshold_of_its_own_parts_them():
    assert not fails(checked([0.3] * 24, [0.1] * 24), threshold=0.2)


def test_what_is_no_probability_is_none():
    scores = [float("nan"), 1.2, -0.1, None, 0.5]
    scorer: Any = SimpleNamespace(score=lambda _: scores, limit=None, about=list)
    check = Check.of(scorer, Sentences(("a", "b", "c"), ("d", "e"), ""))
    assert (check.rude, check.plain) == ([None, None, None], [None, 0.5])


def own(folder: Path, rude: str, plain: str | None) -> Path:
    (folder / "rude.txt").write_text(rude)
    if plain is not None:
        (folder / "plain.txt").write_text(plain)
    return folder


def test_a_folder_may_bring_sentences_of_its_language(tmp_path):
    assert Sentences.of(str(tmp_path)) == Sentences.of(None) == Sentences(RUDE, PLAIN, "English")
    lines = "".join(f"{{}} satz {n}\n\n" for n in range(NEEDED))
    found = Sentences.of(str(own(tmp_path, "\ufeff" + lines.replace("{}", "grober"), lines.replace("{}", "netter"))))
    assert (len(found.rude), len(found.plain), found.source) == (NEEDED, NEEDED, "its own")
    assert found.rude[0] == "grober satz 0"
    assert found.digest != Sentences.of(None).digest


@pytest.mark.parametrize(
    ("rude", "plain", "message"),
    [
        ("one\n", "two\n", "need at least 12 different sentences each"),
        ("same\n" * 20, "".join(f"{n}\n" for n in range(12)), "they have 1 and 12"),
        ("".join(f"{n}\n" for n in range(12)), "".join(f"{n}\n" for n in range(11, 30)), "none in both"),
        ("".join(f"{n}\n" for n in range(12)), None, "plain.txt cannot be read"),
    ],
)
def test_sentences_that_show_nothing_are_refused(tmp_path, rude, plain, message):
    with pytest.raises(UserError, match=message):
        Sentences.of(str(own(tmp_path, rude, plain)))
