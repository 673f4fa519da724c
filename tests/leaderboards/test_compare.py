from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from unlearn_bench.leaderboards.stats.bootstrap import bootstrap_weights
from unlearn_bench.leaderboards.stats.intervals import estimate, exact_reach, noise_shares
from unlearn_bench.leaderboards.stats.simultaneous import rank_intervals


def draws(value, spread=0.02, *, seeds=(0.0,), resamples=2000, key=0):
    """Return draws [B + 1, k] around a value; row 0 is the value itself, shifted for each seed."""
    noise = np.random.default_rng(key).normal(0, spread, resamples)
    column = value + np.concatenate([[0.0], noise])
    return column[:, None] + np.array(seeds)[None, :]


def test_one_seed_gives_the_percentile_interval():
    one = draws(0.5)
    found = estimate(one, confidence=0.9)
    assert (found.low, found.high) == tuple(np.quantile(one[1:, 0], [0.05, 0.95]))


def test_three_seeds_widen_the_interval_by_student_t_at_satterthwaites_degrees_of_freedom():
    shifts = (-0.03, 0.0, 0.03)
    one = draws(0.5)
    item = estimate(one, confidence=0.95)
    found = estimate(draws(0.5, seeds=shifts), confidence=0.95)
    own, items = np.var(shifts, ddof=1) / 3, one[1:].var()
    t = stats.t.ppf(0.975, (own + items) ** 2 / (own**2 / 2))
    z = stats.norm.ppf(0.975)
    assert found.value == pytest.approx(0.5)
    assert 0.5 - found.low == pytest.approx(t * np.hypot((0.5 - item.low) / z, own**0.5))
    assert found.high - 0.5 == pytest.approx(t * np.hypot((item.high - 0.5) / z, own**0.5))


def test_two_seeds_hold_items_only():
    found = estimate(draws(0.5, seeds=(-0.1, 0.1)), confidence=0.95)
    item = estimate(draws(0.5), confidence=0.95)
    assert found.low == pytest.approx(item.low)


def test_seeds_that_agree_add_nothing():
    found = estimate(draws(0.5, seeds=(0.0, 0.0, 0.0)), confidence=0.95)
    assert found.high == pytest.approx(estimate(draws(0.5), confidence=0.95).high)


def test_a_difference_takes_the_seeds_of_both_sides():
    shifts = (-0.02, 0.0, 0.02)
    plus, minus = draws(0.6, seeds=shifts), draws(0.5, seeds=shifts)
    found = estimate(plus, minus, confidence=0.95)
    se = (2 * np.var(shifts, ddof=1) / 3) ** 0.5
    assert found.value == pytest.approx(0.1)
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, 4) * se)


def test_the_interval_stays_within_its_bounds():
    found = estimate(draws(0.99, seeds=(-0.01, 0.0, 0.01)), confidence=0.95, bounds=(0.0, 1.0))
    assert found.high == 1.0


def test_a_difference_from_oneself_is_exactly_zero():
    one = draws(0.5)
    found = estimate(one, one, confidence=0.95)
    assert (found.value, found.low, found.high, found.constant) == (0.0, 0.0, 0.0, True)


def test_clearly_separated_rows_are_ranked_apart():
    ranks = rank_intervals([draws(0.2, key=1), draws(0.8, key=2), draws(0.5, key=3)], 0.95)
    assert [(rank.low, rank.high, rank.group) for rank in ranks] == [(3, 3, 3), (1, 1, 1), (2, 2, 2)]


def test_identical_rows_tie():
    ranks = rank_intervals([draws(0.5), draws(0.5), draws(0.9, key=1)], 0.95)
    assert [(rank.low, rank.high, rank.group) for rank in ranks] == [(2, 3, 2), (2, 3, 2), (1, 1, 1)]


def test_paired_differences_separate_what_single_intervals_would_not():
    shared = draws(0.5, 0.1, key=1)
    ranks = rank_intervals([shared, shared + 0.03 + draws(0.0, 0.005, key=2)], 0.95)
    assert [rank.low for rank in ranks] == [2, 1]


def test_seeds_that_disagree_keep_rows_together():
    apart = [draws(0.5, 0.005, key=1), draws(0.55, 0.005, key=2)]
    noisy = [draws(0.5, 0.005, seeds=(-0.1, 0, 0.1), key=1), draws(0.55, 0.005, seeds=(-0.1, 0, 0.1), key=2)]
    assert [rank.low for rank in rank_intervals(apart, 0.95)] == [2, 1]
    assert [rank.low for rank in rank_intervals(noisy, 0.95)] == [1, 1]


def test_a_row_without_enough_resamples_ties_with_all():
    hollow = draws(0.9)
    hollow[1:] = np.nan
    ranks = rank_intervals([hollow, draws(0.2, key=1), draws(0.6, key=2)], 0.95)
    assert (ranks[0].low, ranks[0].high) == (1, 3)
    assert ranks[1].low == 2


def test_claims_of_a_family_of_equals_are_rarely_wrong():
    """Eight rows of equal truth: some pair is called separate in about 5 % of the worlds, not in 60 %."""
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(200):
        values = rng.normal(0.5, 0.02, 8)
        noise = rng.normal(0, 0.02, (400, 8))
        rows = [
            np.concatenate([[value], value + column])[:, None] for value, column in zip(values, noise.T, strict=True)
        ]
        wrong += any(rank.low > 1 for rank in rank_intervals(rows, 0.95))
    assert wrong <= 22


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.1, 0.9), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_ranks_do_not_depend_on_the_order_of_rows(values, random):
    rows = [draws(value, 0.05, key=key, resamples=200) for key, value in enumerate(values)]
    order = list(range(len(rows)))
    random.shuffle(order)
    direct = rank_intervals(rows, 0.95)
    shuffled = rank_intervals([rows[i] for i in order], 0.95)
    assert [(direct[i].low, direct[i].high) for i in order] == [(rank.low, rank.high) for rank in shuffled]
    assert all(1 <= rank.low <= rank.high <= len(rows) for rank in direct)


def test_nothing_to_rank():
    assert rank_intervals([], 0.95) == []
    assert [(rank.low, rank.high, rank.group) for rank in rank_intervals([draws(0.5)], 0.95)] == [(1, 1, 1)]


@pytest.mark.parametrize("n", [1, 40, 360])
def test_the_exact_reach_is_the_share_that_shows_none_among_so_many_in_one_of_twenty_cases(n):
    assert stats.binom.pmf(0, n, exact_reach(n, 0.95)) == pytest.approx(0.05)
    assert exact_reach(360, 0.95) == pytest.approx(0.0083, abs=1e-4)


def crossed(rng, seeds, items, *, own):
    """Return draws of the share of right answers: seeds whose accuracy varies with sd `own` answer independently."""
    truth = np.clip(0.5 + rng.normal(0, own, seeds), 0, 1)
    answers = (rng.random((items, seeds)) < truth).astype(float)
    weights = bootstrap_weights(np.zeros(items, dtype=np.intp), 200, rng)
    return np.concatenate([answers.mean(axis=0, keepdims=True), weights @ answers / items])


@pytest.mark.parametrize("own", [0.0, 0.03, 0.06])
def test_shares_of_item_and_seed_noise_are_those_of_the_world(own):
    """What seeds differ by because they were asked few items is not counted as theirs."""
    rng, seeds, items = np.random.default_rng(0), 30, 300
    found = [noise_shares(crossed(rng, seeds, items, own=own))[1] for _ in range(40)]
    assert np.mean(found) == pytest.approx(own**2 / (own**2 + 0.25 / items), abs=0.1)


def test_shares_where_only_items_or_only_seeds_vary():
    assert noise_shares(draws(0.5, seeds=(0.0, 0.0))) == (1.0, 0.0)
    assert noise_shares(draws(0.5, 0.0, seeds=(0.0, 0.1))) == pytest.approx((0.0, 1.0))


def test_no_shares_without_two_seeds_variance_or_resamples():
    assert noise_shares(draws(0.5)) is None
    assert noise_shares(draws(0.5, 0.0, seeds=(0.0, 0.0))) is None
    hollow = draws(0.5, seeds=(0.0, 0.1))
    hollow[1:] = np.nan
    assert noise_shares(hollow) is None


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-0.2, 0.2), min_size=2, max_size=5), st.randoms(use_true_random=False))
def test_shares_add_up_and_do_not_depend_on_the_order_of_seeds(shifts, random):
    one = draws(0.5, seeds=tuple(shifts)) + np.random.default_rng(0).normal(0, 0.01, (2001, len(shifts)))
    shares = noise_shares(one)
    order = random.sample(range(len(shifts)), len(shifts))
    assert sum(shares) == pytest.approx(1)
    assert noise_shares(one[:, order]) == pytest.approx(shares)
