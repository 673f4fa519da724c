"""BCa against scipy's, the jackknife against a plain loop, seeds, and what is done where there is no such interval."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from unlearn_bench.harness.records import Record
from unlearn_bench.leaderboards.rows.resampling import Resamples
from unlearn_bench.leaderboards.spec import BoardSpec, Checkpoint, TaskInfo, TrackRoles
from unlearn_bench.leaderboards.stats.arrays import Answers, collect
from unlearn_bench.leaderboards.stats.bootstrap import bootstrap_means, jackknife_means
from unlearn_bench.leaderboards.stats.intervals import SeedNoise, acceleration, estimate
from unlearn_bench.leaderboards.stats.metrics import s_unlearning


def records(values, strata=None):
    return [
        Record(f"i{i:04}", f"c{i:04}", f"s{0 if strata is None else strata[i]}", {"acc": float(value)})
        for i, value in enumerate(values)
    ]


def evidence_of(*cells, interval="bca", resamples=20_000):
    """Evidence of checkpoints given as (forget scores, retain scores)."""
    tasks = {name: TaskInfo(name, "acc", 0.25, "higher", 1) for name in ("f", "r")}
    spec = BoardSpec("toy", 1, "", {"k": TrackRoles("f", "r")}, tasks, resamples=resamples, interval=interval)
    found = [
        Checkpoint("m", None, f"x{k}", f"x{k}", "method", 0, f"x{k}", records={"f": records(f), "r": records(r)})
        for k, (f, r) in enumerate(cells)
    ]
    return Resamples(spec, found)


def without_expansion(evidence, quantity, columns):
    draws = evidence.values(quantity, columns)
    return estimate(draws, confidence=0.95, acceleration=evidence.acceleration(quantity, columns))


def agrees(found, low, high):
    assert found.bca
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.04 * (high - low))


def test_bca_of_a_skewed_mean_is_scipys():
    values = np.random.default_rng(1).exponential(size=60) / 10
    evidence = evidence_of((values, values))
    theirs = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=20_000, rng=np.random.default_rng(2))
    quantity = evidence.metric("f")
    agrees(without_expansion(evidence, quantity, [0]), *theirs.confidence_interval)
    plain = estimate(evidence.values(quantity, [0]), confidence=0.95)
    assert abs(plain.high - theirs.confidence_interval.high) > 0.05 * (plain.high - plain.low)


def test_bca_of_s_over_two_tasks_is_scipys():
    rng = np.random.default_rng(3)
    forget, retain = (rng.random(80) < 0.9).astype(float), (rng.random(120) < 0.93).astype(float)

    def s(f, r, axis=-1):
        return s_unlearning(f.mean(axis=axis), r.mean(axis=axis), forget_chance=0.25, retain_chance=0.25)

    theirs = stats.bootstrap((forget, retain), s, method="BCa", n_resamples=20_000, rng=np.random.default_rng(4))
    evidence = evidence_of((forget, retain))
    agrees(without_expansion(evidence, evidence.s("k"), [0]), *theirs.confidence_interval)


def test_the_jackknife_leaves_out_a_cluster_and_keeps_the_weight_of_its_stratum():
    rng = np.random.default_rng(5)
    strata, values = np.repeat([0, 1], [4, 7]), rng.random((11, 2))
    values[2, 1] = np.nan
    columns = [
        [row for row, value in zip(records(column, strata), column, strict=True) if not np.isnan(value)]
        for column in values.T
    ]
    found, groups = jackknife_means(collect([Answers.of(rows) for rows in columns], "acc"))
    assert groups.tolist() == strata.tolist()
    for left_out in range(11):
        size = (strata == strata[left_out]).sum()
        weights = np.where(strata == strata[left_out], size / (size - 1), 1.0)
        weights[left_out] = 0
        for k in range(2):
            held = ~np.isnan(values[:, k])
            expected = (weights * values[:, k])[held].sum() / weights[held].sum()
            assert found[left_out, k] == pytest.approx(expected)


def test_acceleration_of_a_mean_is_a_sixth_of_the_skewness_over_root_n():
    values = np.random.default_rng(6).exponential(size=200)
    left_out = (values.sum() - values) / 199
    expected = stats.skew(values) / 6 / 200**0.5
    assert acceleration(left_out, np.zeros(200, dtype=int)) == pytest.approx(expected)
    assert acceleration(np.ones(5), np.zeros(5, dtype=int)) is None
    assert acceleration(np.array([1.0, np.nan]), np.zeros(2, dtype=int)) is None


def test_degenerate_data_fall_back_to_percentiles():
    ones, mixed = np.ones(40), np.r_[np.ones(30), np.zeros(10)]
    evidence = evidence_of((mixed, ones), (mixed, mixed), resamples=500)
    constant = evidence.estimate(evidence.metric("r"), [0])
    assert (constant.low, constant.high) == pytest.approx((1, 1))
    assert (constant.constant, constant.bca) == (True, False)
    assert evidence.estimate(evidence.metric("r"), [1]).bca
    at_zero = evidence_of((mixed, np.zeros(40)), resamples=500)
    assert not at_zero.estimate(at_zero.s("k"), [0]).bca


def test_a_board_says_where_bca_does_not_exist(toy):
    from unlearn_bench.leaderboards.board import build_board

    cells = [toy.base(), toy.checkpoint("low", mmlu=0.22), toy.checkpoint("rmu", wmdp=0.3)]
    told = {
        kind: {row["variant"] for row in board.rows if any("BCa does not exist" in w for w in row["warnings"])}
        for kind in ("bca", "percentile")
        for board in [build_board(toy.spec(interval=kind), cells)]
    }
    assert told["bca"] == {"low"}
    assert told["percentile"] == set()
    text = build_board(toy.spec(interval="bca"), cells).to_markdown()
    assert "95% bias-corrected (BCa) intervals" in text
    assert "95% percentile intervals" in build_board(toy.spec(), cells).to_markdown()


def test_few_clusters_widen_the_percentiles_as_students_t():
    draws = np.r_[0.0, np.random.default_rng(7).normal(size=200_000)][:, None]
    found = estimate(draws, confidence=0.95, freedom=9)
    assert found.high == pytest.approx(stats.t.ppf(0.975, 9), abs=0.03)
    assert estimate(draws, confidence=0.95).high == pytest.approx(1.96, abs=0.02)


def test_what_seeds_differ_by_for_want_of_items_is_counted_once():
    """Seeds whose answers are independent coins differ by I; the interval is that of all their items together."""
    rng = np.random.default_rng(8)
    n, k = 400, 40
    table = collect([Answers.of(rows) for rows in [records(rng.random(n) < 0.5) for _ in range(k)]], "acc")
    draws = bootstrap_means(table, 2000, rng)
    noise = SeedNoise.of(draws)
    assert noise.shared == pytest.approx(0.25 / n / k, rel=0.1)
    assert noise.own >= noise.shared
    found = estimate(draws, confidence=0.95)
    assert found.high - found.low == pytest.approx(2 * 1.96 * (0.25 / n / k) ** 0.5, rel=0.25)


def test_seeds_that_agree_by_luck_do_not_narrow_the_interval_below_that_of_items():
    rng = np.random.default_rng(9)
    shared, own = rng.normal(0, 0.02, 2000), rng.normal(0, 0.02, (2000, 3))
    draws = np.vstack([np.full(3, 0.5), 0.5 + shared[:, None] + own])
    found = estimate(draws, confidence=0.95)
    low, high = np.quantile(draws[1:].mean(axis=1), [0.025, 0.975])
    assert found.high - found.low > high - low
