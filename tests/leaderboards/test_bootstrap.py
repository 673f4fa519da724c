from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.records import Record
from unlearn_bench.leaderboards.stats.arrays import Answers, collect
from unlearn_bench.leaderboards.stats.bootstrap import bootstrap_means, bootstrap_weights, collapse_strata
from unlearn_bench.leaderboards.stats.intervals import estimate


def generator(seed=0):
    return np.random.default_rng(seed)


def records(values, *, clusters=None, strata=None):
    found = []
    for i, value in enumerate(values):
        scores = None if value is None else {"acc": value}
        cluster = f"c{clusters[i] if clusters is not None else i}"
        stratum = f"s{strata[i] if strata is not None else 0}"
        found.append(Record(f"i{i:05}", cluster, stratum, scores, None if scores else "failed"))
    return found


def means(columns, resamples=500, seed=0):
    return bootstrap_means(collect([Answers.of(rows) for rows in columns], "acc"), resamples, generator(seed))


def width(columns, **options):
    found = estimate(means(columns, **options), confidence=0.95)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    return found.high - found.low


def test_equals_a_plain_loop_over_items():
    rng = generator(1)
    places = {"clusters": [i // 3 for i in range(30)], "strata": [i // 15 for i in range(30)]}
    values = [[None if rng.random() < 0.1 else float(rng.random()) for _ in range(30)] for _ in range(2)]
    columns = [records(column, **places) for column in values]
    table = collect([Answers.of(rows) for rows in columns], "acc")
    fast = bootstrap_means(table, 20, generator(7))
    weights = bootstrap_weights(table.strata, 20, generator(7))
    order = sorted({(record.stratum, record.cluster) for record in columns[0]})
    for k, column in enumerate(columns):
        scored = [(order.index((r.stratum, r.cluster)), r.scores["acc"]) for r in column if r.scores]
        assert fast[0, k] == pytest.approx(np.mean([value for _, value in scored]))
        for b in range(20):
            top = sum(weights[b, cluster] * value for cluster, value in scored)
            assert fast[b + 1, k] == pytest.approx(top / sum(weights[b, cluster] for cluster, _ in scored))


def test_weights_of_a_stratum_always_add_up_to_its_clusters():
    strata = np.array([0] * 5 + [1] * 2 + [2] * 40)
    weights = bootstrap_weights(strata, 200, generator())
    for code, size in ((0, 5), (1, 2), (2, 40)):
        assert weights[:, strata == code].sum(axis=1) == pytest.approx(size)


def test_the_variance_of_a_mean_is_right_in_small_strata_too():
    """Two clusters a stratum: drawing as many as there are would give half of the variance."""
    values = generator(3).normal(size=200)
    strata = np.repeat(np.arange(100), 2)
    found = means([records(values.tolist(), strata=strata)], 20_000)[1:, 0].var()
    pairs = values.reshape(100, 2)
    assert found == pytest.approx(np.sum(pairs.var(axis=1, ddof=1) / 2) / 100**2, rel=0.05)


def test_strata_of_one_cluster_are_pooled():
    assert collapse_strata(np.array([0, 1, 2, 3])).tolist() == [0, 0, 0, 0]
    assert collapse_strata(np.array([0, 0, 0, 1, 1, 2])).tolist() == [0, 0, 0, 1, 1, 1]
    assert collapse_strata(np.array([0, 0, 1, 1])).tolist() == [0, 0, 1, 1]
    assert width([records([0.0, 1.0] * 12, strata=range(24))]) > 0.2


def test_differences_between_strata_are_not_noise():
    values, strata = [0.0] * 50 + [1.0] * 50, [0] * 50 + [1] * 50
    assert width([records(values, strata=strata)]) == pytest.approx(0, abs=1e-12)
    assert width([records(values)]) > 0.15


def test_clusters_that_agree_widen_the_interval():
    answers = generator(2).integers(0, 2, 60).repeat(5).astype(float).tolist()
    clustered = width([records(answers, clusters=np.arange(300) // 5)])
    assert clustered == pytest.approx(width([records(answers)]) * 5**0.5, rel=0.2)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    hits, rounds, rng = 0, 400, generator(11)
    for _ in range(rounds):
        truth = np.clip(rng.beta(6, 4, 100), 0, 1).repeat(3)
        column = records((rng.random(300) < truth).astype(float).tolist(), clusters=np.arange(300) // 3)
        draws = bootstrap_means(collect([Answers.of(rows) for rows in [column]], "acc"), 300, rng)
        found = estimate(draws, confidence=0.95)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.6 <= found.high
    assert stats.binomtest(hits, rounds, 0.94).pvalue > 0.005


def test_agrees_with_the_normal_interval_of_a_mean():
    answers = (generator(5).random(1000) < 0.3).astype(float)
    expected = 2 * 1.96 * answers.std(ddof=1) / 1000**0.5
    assert width([records(answers.tolist())], resamples=5000) == pytest.approx(expected, rel=0.06)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(2, 40))
def test_identical_records_differ_by_exactly_zero(seed, others, n):
    rng = generator(seed)
    values = [None if rng.random() < 0.2 else float(rng.random()) for _ in range(n)]
    values[0] = values[-1] = 0.5
    different = [records(rng.random(n).tolist()) for _ in range(others)]
    draws = means([records(values), *different, records(values)], 50)
    difference = draws[:, 0] - draws[:, -1]
    assert (difference[~np.isnan(difference)] == 0).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_items_has_no_say(seed):
    rng = generator(seed)
    column = records(rng.random(40).tolist(), clusters=np.arange(40) // 2, strata=np.arange(40) // 2 % 3)
    shuffled = [column[i] for i in rng.permutation(40)]
    assert np.array_equal(means([column], 40), means([shuffled], 40))


def test_a_missing_item_has_no_weight_and_is_never_a_value():
    whole = means([records([1.0, 0.0, 1.0, 0.0])])
    holed = means([records([1.0, 0.0, 1.0, 0.0, None, None])])
    assert holed[0, 0] == whole[0, 0] == 0.5
    assert means([records([1.0] * 30 + [None] * 20)])[:, 0].tolist() == [1.0] * 501
    nan = [Record("a", "a", "s", {"acc": float("nan")}), *records([1.0, 1.0])]
    assert means([nan])[0, 0] == 1.0


def test_items_that_one_checkpoint_lacks_are_still_drawn_for_both():
    """Pairing holds over the union: where both have an item, both weigh it alike."""
    rng = generator(4)
    values = rng.random(60).tolist()
    full, part = records(values), records(values)[:50]
    draws = means([full, part], 400)
    assert np.corrcoef(draws[1:, 0], draws[1:, 1])[0, 1] > 0.8


def test_resamples_without_a_scored_item_do_not_become_values():
    draws = means([records([1.0, 0.0, *[None] * 6])], 400)
    found = estimate(draws, confidence=0.95)
    assert np.isnan(draws[1:, 0]).any()
    assert found is not None
    assert found.value == 0.5
    assert (found.low, found.high) == (None, None)


def test_one_cluster_gives_a_value_without_an_interval():
    found = estimate(means([records([1.0, 0.0, 1.0], clusters=[0, 0, 0])]), confidence=0.95)
    assert found is not None
    assert (found.low, found.high) == (None, None)


def test_equal_scores_give_an_interval_without_width_and_a_flag():
    found = estimate(means([records([1.0] * 20)]), confidence=0.95)
    assert found is not None
    assert (found.low, found.high, found.constant) == (1.0, 1.0, True)


def test_no_scored_item_gives_no_estimate():
    assert estimate(means([records([None, None])]), confidence=0.95) is None
    assert means([[]]).shape == (501, 1)


def test_records_of_different_data_are_refused():
    with pytest.raises(UserError, match="different data"):
        collect([Answers.of(rows) for rows in [records([1.0]), records([1.0], strata=[4])]], "acc")
    with pytest.raises(UserError, match="twice"):
        collect([Answers.of(rows) for rows in [records([1.0]) * 2]], "acc")


def test_chunks_of_resamples_do_not_change_what_is_drawn_for_whom(monkeypatch):
    from unlearn_bench.leaderboards.stats import bootstrap

    monkeypatch.setattr(bootstrap, "_CHUNK", 64)
    rng = generator(6)
    columns = [records(rng.random(20).tolist()) for _ in range(3)]
    draws = means(columns, 100)
    assert draws.shape == (101, 3)
    assert draws[:, 1] == pytest.approx(means(columns[1:2], 100)[:, 0])
