"""A small share of the simulation of docs/statistics.md: worlds of known truth, asked through the board's functions."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location

import numpy as np
import pytest
from scipy import stats


@pytest.fixture(scope="module")
def coverage(root):
    found = spec_from_file_location("coverage_simulation", root / "tests" / "benchmarks" / "coverage.py")
    assert found is not None
    assert found.loader is not None
    module = module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    return module


def fits(rate, worlds, share):
    """Whether a rate of some worlds could be that of a true share, at odds of one in 10,000."""
    return stats.binomtest(round(rate * worlds), worlds, share).pvalue > 1e-4


def test_the_worlds_have_the_truth_that_they_claim(coverage):
    rng = np.random.default_rng(0)
    world = coverage.World(100_000, 5, rng)
    own = np.array([0.55, 0.60, 0.52])
    for task in ("f", "u", "r"):
        assert world.answers(task, 0.55, own).mean(axis=0) == pytest.approx(own, abs=0.006)
    values = world.answers("f", 0.55, own[:1])[:, 0]
    clusters = values.reshape(-1, 5)
    agree = np.corrcoef(clusters[:, 0], clusters[:, 1])[0, 1]
    assert agree == pytest.approx(1 / (1 + coverage.CONCENTRATION), abs=0.02)


@pytest.mark.slow
def test_intervals_cover_the_truth_about_as_often_as_they_say(coverage):
    worlds = 100
    found = coverage.rates(coverage.intervals, worlds, items=(300,), resamples=500)
    assert len(found) == 5 * 2 * 3 * 2 * 2
    odd = {key: rate for key, rate in found.items() if not fits(rate, worlds, 0.95)}
    assert not odd
    assert 0.935 < sum(found.values()) / len(found) < 0.965


@pytest.mark.slow
def test_a_table_of_equals_rarely_names_a_winner_and_a_lost_margin_is_rarely_granted(coverage):
    """Rows that are as good as base, under every law of seeds but rare collapses, which three seeds cannot show."""
    worlds = 25
    found = coverage.rates(coverage.tables, worlds, items=(300,), kinds=("probit",), resamples=300)

    def rate(event, *seeds):
        kept = [value for key, value in found.items() if key[-1] == event and key[3] in seeds and key[2] != "collapse"]
        return round(sum(kept) * worlds), len(kept) * worlds

    for event, seeds in (("named", (3, 5)), ("kept at 0.02", (1, 3, 5)), ("kept at 0.05", (1, 3, 5))):
        happened, of = rate(event, *seeds)
        assert stats.binomtest(happened, of, 0.05, alternative="greater").pvalue > 1e-3, (event, happened, of)
    named, of = rate("named", 3, 5)
    assert named <= rate("claim", 3, 5)[0] < rate("alone", 3, 5)[0], "what the correction is for"
    covered, of = rate("S", 3, 5)
    assert covered / of > 0.88
