"""Shared mathematics against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from unlearn_bench.methods.base import Tokens
from unlearn_bench.methods.representation import (
    control_vectors,
    cosine_distance,
    last_token,
    mean_token,
    nine_layers,
    permute_tokens,
    squared_distance,
)
from unlearn_bench.methods.testing import tiny_trainer

H = torch.tensor([[[3.0, 4.0], [1.0, 0.0]], [[0.0, 2.0], [9.0, 9.0]]])  # the last token is padding
MASK = torch.tensor([[1, 1], [1, 0]])
TARGET = torch.tensor([1.0, 0.0])


def test_squared_distance_averages_over_real_tokens_and_hidden_size():
    # squares per token: 4 + 16 = 20, 0, 1 + 4 = 5; three real tokens of two dimensions
    assert squared_distance(H, TARGET, MASK).item() == pytest.approx(25 / 6)


def test_squared_distance_as_the_equation_sums_over_tokens():
    assert squared_distance(H, TARGET, MASK, "sum").item() == pytest.approx((20 + 5) / 2)


def test_cosine_distance_ignores_the_targets_length():
    # cosines with (1, 0): 0.6, 1, 0
    for c in (1.0, 6.5):
        assert cosine_distance(H, (c * TARGET).expand_as(H), MASK).item() == pytest.approx((0.4 + 0 + 1) / 3)


def test_padding_counts_nowhere():
    changed = H.clone()
    changed[1, 1] = -50.0
    for reduction in ("mean", "sum"):
        assert squared_distance(H, TARGET, MASK, reduction) == squared_distance(changed, TARGET, MASK, reduction)
    assert torch.equal(mean_token(H, MASK), mean_token(changed, MASK))


def test_the_last_token_is_the_last_real_one():
    tokens = Tokens(torch.zeros(2, 2, dtype=torch.long), MASK)
    assert tokens.last.tolist() == [1, 0]
    assert last_token(H, tokens.last).tolist() == [[1.0, 0.0], [0.0, 2.0]]
    assert mean_token(H, MASK).tolist() == [[2.0, 2.0], [0.0, 2.0]]


def test_permuted_tokens_keep_padding_and_the_set_of_states():
    permuted = permute_tokens(H, MASK, np.random.default_rng(3))
    assert permuted[1, 1].tolist() == [9.0, 9.0]
    assert sorted(permuted[MASK.bool()].tolist()) == sorted(H[MASK.bool()].tolist())


def test_control_vectors_are_positive_unit_vectors_one_a_topic():
    vectors = control_vectors(tiny_trainer("rmu").context)
    assert list(vectors) == ["bio", "cyber"]
    for u in vectors.values():
        assert (u >= 0).all()
        assert torch.linalg.vector_norm(u).item() == pytest.approx(1)
    assert not torch.equal(vectors["bio"], vectors["cyber"])


def test_nine_layers_are_three_of_each_third():
    assert nine_layers(32) == [1, 5, 8, 12, 16, 19, 23, 26, 30]
    assert nine_layers(9) == list(range(9))
    assert nine_layers(4) == [0, 1, 2, 3]
    for depth in range(10, 100):
        chosen = nine_layers(depth)
        thirds = [sum(part * depth <= 3 * (layer + 0.5) < (part + 1) * depth for layer in chosen) for part in range(3)]
        assert len(set(chosen)) == 9
        assert thirds == [3, 3, 3]
