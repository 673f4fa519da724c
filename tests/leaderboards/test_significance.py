from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from unlearn_bench.harness.records import Record
from unlearn_bench.leaderboards.board import build_board
from unlearn_bench.leaderboards.stats import significance
from unlearn_bench.leaderboards.stats.arrays import Answers, collect
from unlearn_bench.leaderboards.stats.significance import (
    compare_items,
    detectable_difference,
    holm,
    mcnemar,
    sign_flips,
)


def records(values, *, clusters=None):
    """One record a value; None is a missing item."""
    names = range(len(values)) if clusters is None else clusters
    return [
        Record(f"i{i:04}", f"c{cluster}", "s", None if value is None else {"acc": float(value)})
        for i, (value, cluster) in enumerate(zip(values, names, strict=True))
    ]


def compared(plus, minus, *, seed=0):
    """Compare lists of checkpoints (each a list of records)."""
    table = collect([Answers.of(rows) for rows in [*plus, *minus]], "acc")
    columns = list(range(len(plus) + len(minus)))
    rng = np.random.default_rng(seed)
    return compare_items(table, columns[: len(plus)], columns[len(plus) :], confidence=0.95, rng=rng)


@pytest.mark.parametrize(("wins", "losses"), [(0, 1), (3, 12), (7, 7), (40, 61), (1, 0), (900, 1000)])
def test_mcnemar_is_twice_the_binomial_tail(wins, losses):
    tail = stats.binom.cdf(min(wins, losses), wins + losses, 0.5)
    assert mcnemar(wins, losses) == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar(losses, wins) == mcnemar(wins, losses)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from([-1.0, -0.75, -0.375, 0.0, 0.25, 0.5, 1.0]), min_size=2, max_size=10))
def test_sign_flips_agree_with_scipys_exact_permutation_test(differences):
    sums = np.array(differences)
    exact = stats.permutation_test(
        (sums,),
        lambda x, axis: np.abs(x.sum(axis)),
        permutation_type="samples",
        alternative="greater",
        n_resamples=2000,
    )
    found = sign_flips(sums, np.random.default_rng(0))
    assert found == pytest.approx(exact.pvalue, abs=5 * (0.25 / 9999) ** 0.5)


def test_sign_flips_of_equal_items_agree_with_mcnemar():
    sums = np.array([1.0] * 30 + [-1.0] * 14 + [0.0] * 56)
    assert sign_flips(sums, np.random.default_rng(1)) == pytest.approx(mcnemar(30, 14), abs=0.006)


def test_signs_drawn_together_are_like_signs_drawn_one_by_one(monkeypatch):
    sums = np.random.default_rng(8).choice([-1.0, -0.4, 0.4, 1.0], 300)
    found = []
    for dear in (0, 1000):
        monkeypatch.setattr(significance, "_DEAR", dear)
        found.append(sign_flips(sums, np.random.default_rng(0)))
    assert 0.05 < found[0] < 0.95
    assert found[0] != found[1]
    assert found[0] == pytest.approx(found[1], abs=5 * (0.5 / 9999) ** 0.5)


def test_a_permutation_p_is_never_zero():
    assert sign_flips(np.ones(500), np.random.default_rng(0), flips=99) == 0.01


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_item_order_side_and_names_of_clusters_have_no_say(seed, seeds):
    rng = np.random.default_rng(seed)
    clusters = rng.integers(0, 12, 40)
    plus = [records(rng.choice([0, 0.5, 1, None], 40), clusters=clusters) for _ in range(seeds)]
    minus = [records(rng.choice([0, 0.5, 1], 40), clusters=clusters)]
    found = compared(plus, minus)
    names = {f"c{c}": f"c{new}" for c, new in enumerate(rng.permutation(12))}
    order = rng.permutation(40)

    def altered(side):
        return [[replace(rows[i], cluster=names[rows[i].cluster]) for i in order] for rows in side]

    other = compared(altered(plus), altered(minus))
    swapped = compared(minus, plus[::-1])
    for again in (other, swapped):
        assert (again.n, again.p) == (found.n, found.p)
        assert again.detectable == pytest.approx(found.detectable)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.booleans())
def test_identical_records_have_p_one_and_nothing_to_go_by(seed, seeds, single):
    rng = np.random.default_rng(seed)
    rows = records(rng.choice([0.1, 1 / 3, 0.7, None], 30), clusters=None if single else np.arange(30) // 2)
    rows[0] = replace(rows[0], scores={"acc": 0.1})
    found = compared([rows] * seeds, [rows])
    assert (found.p, found.detectable) == (1.0, None)


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_missing_item_is_left_out_and_never_a_value(seeds):
    rng = np.random.default_rng(5)
    plus = [rng.integers(0, 2, 60).tolist() for _ in range(seeds)]
    minus = rng.integers(0, 2, 60).tolist()
    holed = [column.copy() for column in plus]
    holed[-1][:20] = [None] * 20
    found = compared([records(column) for column in holed], [records(minus)])
    without = compared([records(column[20:]) for column in plus], [records(minus[20:])])
    assert found == without
    assert found.n == 40
    assert compared([records([None] * 60)], [records(minus)]) is None
    assert compared([records([1] * 30 + [None] * 30)], [records([None] * 30 + [1] * 30)]) is None


def test_mcnemar_is_for_binary_items_of_one_checkpoint_against_one():
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 2, 80), rng.integers(0, 2, 80)
    one = compared([records(a)], [records(b)])
    assert one.test == "mcnemar"
    assert one.p == mcnemar(int((a > b).sum()), int((b > a).sum()))
    assert compared([records(a), records(a)], [records(b)]).test == "permutation"
    assert compared([records(a / 2)], [records(b)]).test == "permutation"
    clusters = np.arange(80) // 2
    assert compared([records(a, clusters=clusters)], [records(b, clusters=clusters)]).test == "permutation"


def test_a_cluster_counts_once_however_many_items_it_has():
    rng = np.random.default_rng(3)
    a, b = (rng.random(30) < 0.7) / 2, (rng.random(30) < 0.4) / 2
    clusters = np.repeat(np.arange(30), 5)
    once = compared([records(a)], [records(b)])
    often = compared([records(a.repeat(5), clusters=clusters)], [records(b.repeat(5), clusters=clusters)])
    loose = compared([records(a.repeat(5))], [records(b.repeat(5))])
    assert often.p == once.p
    assert often.detectable == pytest.approx(once.detectable)
    assert loose.p < once.p / 4
    assert loose.detectable < once.detectable / 2


def test_seeds_enter_with_their_mean():
    rng = np.random.default_rng(4)
    seeds, base = rng.integers(0, 2, (4, 90)), rng.integers(0, 2, 90)
    apart = compared([records(seed) for seed in seeds], [records(base)])
    together = compared([records(seeds.mean(axis=0))], [records(base)])
    assert apart == together


def test_false_alarms_of_the_permutation_test_are_as_rare_as_it_says():
    """Clusters of three items that agree: by cluster about 5 % false alarms, by item far more."""
    rng, rounds = np.random.default_rng(0), 600
    by_cluster = by_item = 0
    for _ in range(rounds):
        effect = rng.normal(0, 1, (40, 1))
        differences = np.round(effect + rng.normal(0, 0.5, (40, 3)), 1)
        by_cluster += sign_flips(differences.sum(axis=1), rng, flips=199) <= 0.05
        by_item += sign_flips(differences.ravel(), rng, flips=199) <= 0.05
    assert stats.binomtest(by_cluster, rounds, 0.05).pvalue > 0.005
    assert by_item / rounds > 0.15


def test_the_detectable_difference_is_millers():
    differences = np.random.default_rng(1).normal(0, 0.4, 250)
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    expected = z * differences.std(ddof=1) / 250**0.5
    assert detectable_difference(differences, np.ones(250), 0.95) == pytest.approx(expected)
    larger = detectable_difference(differences, np.ones(250), 0.99)
    assert larger > expected
    assert detectable_difference(differences[:1], np.ones(1), 0.95) is None
    assert detectable_difference(np.full(9, 0.5), np.ones(9), 0.95) is None


def test_the_detectable_difference_is_found_four_times_out_of_five():
    rng, rounds, found = np.random.default_rng(6), 400, 0
    spread = (1 / 60 + 0.5**2 / 180) ** 0.5
    true = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * spread
    reach = []
    for _ in range(rounds):
        items = true + rng.normal(0, 1, (60, 1)) + rng.normal(0, 0.5, (60, 3))
        reach.append(detectable_difference(items.sum(axis=1), np.full(60, 3.0), 0.95))
        found += sign_flips(items.sum(axis=1), rng, flips=199) <= 0.05
    assert np.mean(reach) == pytest.approx(true, rel=0.02)
    assert stats.binomtest(found, rounds, 0.79).pvalue > 0.005


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.0001, 1), min_size=1, max_size=7))
def test_holm_is_the_closure_of_bonferroni(p):
    """A claim holds where Bonferroni rejects every set of claims that it belongs to (Marcus, Peritz, Gabriel 1976)."""
    sets = [chosen for size in range(1, len(p) + 1) for chosen in combinations(range(len(p)), size)]
    for i, found in enumerate(holm(p)):
        assert found == pytest.approx(max(min(1.0, len(s) * min(p[j] for j in s)) for s in sets if i in s))


def test_holm_of_nothing():
    assert holm([]) == []


def singles(toy, variant, kind="method", *, seed=0, wmdp=0.6, mmlu=0.7, track="knowledge"):
    """A checkpoint whose questions are a cluster each."""
    cell = toy.checkpoint(variant, kind, seed=seed, track=track)
    key = f"{variant}{seed}"
    return replace(
        cell,
        records={"wmdp": toy.records("wmdp", wmdp, key=key, per=1), "mmlu": toy.records("mmlu", mmlu, key=key, per=1)},
    )


def noised(toy, cell):
    """A checkpoint and its noise, whose questions are a cluster each too."""
    noise = singles(toy, f"noise({cell.variant})", "noise", seed=cell.seed, wmdp=0.62)
    return cell, replace(noise, beside="noise", of=cell.cell)


def test_a_row_holds_a_test_of_each_metric_against_base_and_noise(toy):
    cells = [
        singles(toy, "base", "base", seed=None, track=None, wmdp=0.65),
        *noised(toy, singles(toy, "rmu", wmdp=0.3)),
        *noised(toy, singles(toy, "adap", seed=0)),
        *noised(toy, singles(toy, "adap", seed=1)),
    ]
    board = build_board(toy.spec(), cells)
    rmu, adap, base = (toy.row_of(board, name) for name in ("rmu", "adap", "base"))
    assert base["tests"] is None
    assert {key: test["against"] for key, test in rmu["tests"].items()} == {
        "forget": "base",
        "retain": "base",
        "forget_noise": "noise",
        "retain_noise": "noise",
    }
    assert {test["test"] for test in rmu["tests"].values()} == {"mcnemar"}
    assert {test["test"] for test in adap["tests"].values()} == {"permutation"}
    differ = [
        (a.scores["acc"], b.scores["acc"])
        for a, b in zip(cells[1].records["wmdp"], cells[0].records["wmdp"], strict=True)
    ]
    expected = mcnemar(differ.count((1.0, 0.0)), differ.count((0.0, 1.0)))
    assert rmu["tests"]["forget"]["p"] == pytest.approx(max(expected, 1e-6), abs=1e-6)
    family = [*rmu["tests"].values(), *adap["tests"].values()]
    assert [test["p_holm"] for test in family] == pytest.approx(holm([test["p"] for test in family]), abs=1e-5)
    assert rmu["tests"]["forget"]["p_holm"] < 0.001
    assert rmu["tests"]["retain"]["p_holm"] > 0.05
    text = board.to_markdown(details=True)
    assert "Holm's p holds for the 8 comparisons" in " ".join(text.split())
    assert "| mcnemar " in text
    assert "tests_forget_noise_p_holm" in board.to_csv().splitlines()[0]


def test_the_detectable_difference_is_of_the_boards_confidence(toy):
    cells = [toy.base(), toy.checkpoint("rmu")]
    wide, narrow = (
        toy.row_of(build_board(toy.spec(confidence=confidence), cells), "rmu")["tests"]["forget"]["minimum_detectable"]
        for confidence in (0.99, 0.9)
    )
    assert wide / narrow == pytest.approx((stats.norm.ppf(0.995) + 0.8416) / (stats.norm.ppf(0.95) + 0.8416), abs=1e-4)


def test_a_p_too_small_to_print_is_not_printed_as_zero(toy):
    cells = [singles(toy, "base", "base", seed=None, track=None, wmdp=0.9), singles(toy, "rmu", wmdp=0.1)]
    test = toy.row_of(build_board(toy.spec(), cells), "rmu")["tests"]["forget"]
    assert test["p"] == 1e-6
    assert test["p_holm"] == 2e-6


def test_where_there_is_nothing_to_compare_with_there_is_no_test(toy):
    alone = build_board(toy.spec(), [toy.checkpoint("rmu"), toy.checkpoint("adap", status="failed", failure="x")])
    assert set(toy.row_of(alone, "rmu")["tests"].values()) == {None}
    assert toy.row_of(alone, "adap")["tests"] is None
    assert "Holm" not in alone.to_markdown(details=True)


def test_an_identical_checkpoint_is_not_told_from_base(toy):
    board = build_board(toy.spec(), [toy.base(key="x"), toy.checkpoint("rmu", wmdp=0.65, key="x")])
    for part in ("forget", "retain"):
        test = toy.row_of(board, "rmu")["tests"][part]
        assert (test["p"], test["p_holm"], test["minimum_detectable"]) == (1.0, 1.0, None)


def test_differences_that_cancel_but_for_rounding_are_no_difference():
    assert sign_flips(np.array([-1.0, -2 / 3, 1.0, 1 / 3, 1 / 3]), np.random.default_rng(0)) == 1.0
