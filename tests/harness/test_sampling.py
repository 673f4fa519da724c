"""Sampling: the nucleus distribution exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from unlearn_bench.harness.engines import _sampling
from unlearn_bench.harness.rng import sampling_noise


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (1.0, 0.9), (0.7, 0.6)])
def test_sampling_follows_the_nucleus_distribution(temperature, top_p):
    logits = torch.tensor([1.2, -0.3, 0.4, 2.0, -2.5, 0.0, 0.9])
    chances = (logits.double() / temperature).softmax(-1).numpy()
    kept, mass = [], 0.0
    for token in np.argsort(-chances):
        if mass >= top_p:
            break
        kept.append(token)
        mass += chances[token]
    exact = np.zeros(7)
    exact[kept] = chances[kept] / chances[kept].sum()
    n = 20_000
    uniform = torch.from_numpy(np.stack([sampling_noise(0, f"i{i}", 0, 1)[0] for i in range(n)]))
    drawn = _sampling.sample(logits.expand(n, -1), uniform, temperature=temperature, top_p=top_p)
    counts = np.bincount(drawn.numpy(), minlength=7)
    assert (counts[exact == 0] == 0).all()
    assert chisquare(counts[exact > 0], n * exact[exact > 0]).pvalue > 0.01


def test_equal_probabilities_enter_the_nucleus_in_the_order_of_their_ids():
    weights = _sampling.nucleus(torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 5.0, 0.0, 0.0]]), 1.0, 0.6)
    assert (weights > 0).tolist() == [[True, True, True, False], [False, True, False, False]]


def test_a_row_without_finite_logits_draws_nothing():
    logits = torch.tensor([[0.0, float("nan")], [0.0, 1.0], [-float("inf"), 1.0]])
    for temperature in (0.0, 1.0):
        drawn = _sampling.sample(logits, torch.tensor([0.5, 0.999, 0.0]), temperature=temperature, top_p=1.0)
        assert drawn.tolist() == [-1, 1, 1]
