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
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 5.0, 0.0, 0.0]])
    weights, _ = _sampling.nucleus(logits.double().exp(), 0.6, torch.zeros(2, 1, dtype=torch.float64))
    assert (weights > 0).tolist() == [[True, True, True, False], [False, True, False, False]]


@pytest.mark.parametrize("spread", [0.0, 0.2, 1.0, 4.0])
def test_a_nucleus_among_the_most_probable_tokens_draws_what_a_full_sort_draws(monkeypatch, spread):
    """Nuclei of one token and of nearly all, and logits rounded so that many tie at the edge."""
    torch.manual_seed(0)
    logits = (spread * torch.randn(60, 400)).round(decimals=1)
    uniform = torch.rand(60, dtype=torch.float64)
    drawn = {}
    for first in (3, 40, 400):
        monkeypatch.setattr(_sampling, "FIRST", first)
        drawn[first] = _sampling.sample(logits, uniform, temperature=0.8, top_p=0.7).tolist()
    assert drawn[3] == drawn[40] == drawn[400]
    assert len(set(drawn[400])) > 1


def test_a_row_without_finite_logits_draws_nothing():
    logits = torch.tensor([[0.0, float("nan")], [0.0, 1.0], [-float("inf"), 1.0]])
    for temperature in (0.0, 1.0):
        drawn = _sampling.sample(logits, torch.tensor([0.5, 0.999, 0.0]), temperature=temperature, top_p=1.0)
        assert drawn.tolist() == [-1, 1, 1]
