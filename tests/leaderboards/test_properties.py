"""What holds for any board: order and names have no say, equal is equal, more items tell more, missing is missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unlearn_bench.harness.records import Record
from unlearn_bench.leaderboards.board import build_board
from unlearn_bench.leaderboards.rows.resampling import Resamples
from unlearn_bench.leaderboards.spec import BoardSpec, Checkpoint, IntervalKind, TaskInfo, TrackRoles
from unlearn_bench.leaderboards.stats.simultaneous import rank_intervals

TASKS = {
    "facts": TaskInfo("facts", "acc", 0.25, "higher", 1),
    "manners": TaskInfo("manners", "acc", 0.0, "lower", 1),
    "rest": TaskInfo("rest", "acc", 0.25, "higher", 1),
}
TRACKS = {
    "knowledge": TrackRoles("facts", "rest", ("manners",), neighbours=("s0",)),
    "toxicity": TrackRoles("manners", "rest", ("facts",)),
}
KINDS: tuple[IntervalKind, ...] = ("bca", "percentile")
seeds = st.integers(0, 2**32 - 1)


def spec(interval: IntervalKind = "percentile") -> BoardSpec:
    return BoardSpec("any", 1, "", TRACKS, TASKS, resamples=200, interval=interval)


def records(rng, n, missing=0.0):
    """Records of clusters of two in three strata, of which some are missing and some scores are shares."""
    binary = rng.random() < 0.5
    found = []
    for i in range(n):
        value = float(rng.random() < 0.6) if binary else float(rng.random())
        place = (f"c{i // 2}", f"s{i // 2 % 3}")
        gone = rng.random() < missing
        found.append(Record(f"i{i}", *place, None if gone else {"acc": value}, "failed" if gone else None))
    return found


def cells(rng, n=24, variants=("a", "b"), count=2, missing=0.1):
    def cell(variant, kind, track, seed):
        answers = {task: records(rng, n, missing) for task in TASKS}
        return Checkpoint("m", track, variant, variant, kind, seed, f"{variant}{track}{seed}", records=answers)

    def noise(of):
        return replace(cell(f"noise({of.variant})", "noise", of.track, of.seed), beside="noise", of=of.cell)

    found = [cell("base", "base", None, None)]
    for track in TRACKS:
        made = [cell(variant, "method", track, seed) for variant in variants for seed in range(count)]
        found += [each for one in made for each in (one, noise(one))]
    return found


def renamed(cell, names):
    """Give clusters, strata and items other names that keep their order, which is the order of the draws."""
    rows = {
        task: [
            replace(row, item=f"{names}{row.item}", cluster=f"{names}{row.cluster}", stratum=row.stratum)
            for row in answers
        ]
        for task, answers in cell.records.items()
    }
    return replace(cell, records=rows)


@settings(max_examples=10, deadline=None)
@given(seeds, st.sampled_from(KINDS))
def test_the_order_of_cells_and_items_and_the_names_of_clusters_change_nothing(seed, interval):
    rng = np.random.default_rng(seed)
    given_cells = cells(rng, count=3)
    board = build_board(spec(interval), given_cells)
    shuffled = [
        replace(
            cell, records={task: [rows[i] for i in rng.permutation(len(rows))] for task, rows in cell.records.items()}
        )
        for cell in (given_cells[i] for i in rng.permutation(len(given_cells)))
    ]
    assert build_board(spec(interval), shuffled).to_json() == board.to_json()
    assert build_board(spec(interval), [renamed(cell, "x-") for cell in given_cells]).to_json() == board.to_json()


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_a_method_by_another_name_has_the_same_numbers(seed):
    given_cells = cells(np.random.default_rng(seed), count=3)
    swap = {"a": "z", "b": "b"}
    other = [
        replace(cell, variant=swap.get(cell.variant, cell.variant), method=swap.get(cell.method, cell.method))
        for cell in given_cells
    ]
    board, again = build_board(spec(), given_cells), build_board(spec(), other)
    keys = ("s_unlearning", "delta_base", "delta_noise", "rank", "claims", "forget", "selectivity", "unclipped")
    keys = (*keys, "noise", "utility", "relative", "equivalent", "unstable")
    for row in board.rows:
        twin = next(
            each
            for each in again.rows
            if each["variant"] == swap.get(row["variant"], row["variant"]) and each["track"] == row["track"]
        )
        assert {key: twin[key] for key in keys} == {key: row[key] for key in keys}
    assert board.goals[0]["answer"] == again.goals[0]["answer"]
    one, two = board.goals[0]["interactions"][0], again.goals[0]["interactions"][0]
    assert (one["value"], one["low"]) == pytest.approx((-two["value"], -two["high"]))


@settings(max_examples=10, deadline=None)
@given(seeds, st.sampled_from(KINDS))
def test_identical_records_differ_by_exactly_zero_everywhere(seed, interval):
    given_cells = cells(np.random.default_rng(seed), variants=("a",), count=3)
    base = given_cells[0]
    copied = [replace(cell, records=base.records) for cell in given_cells]
    zero = {"value": 0.0, "low": 0.0, "high": 0.0}
    for row in build_board(spec(interval), copied).rows:
        if row["kind"] == "method":
            assert row["delta_base"] == row["delta_noise"] == zero
            assert row["claims"] == {"base": zero, "noise": zero}
            assert row["forget"]["delta_base"] == zero
            assert row["selectivity"] is None or row["selectivity"]["gap"] == zero
            assert row["tests"]["forget"]["p"] == 1


def test_more_items_give_narrower_intervals_on_average():
    def width(n, interval):
        widths = []
        for seed in range(4):
            board = build_board(spec(interval), cells(np.random.default_rng(seed), n, variants=("a",), count=1))
            widths += [row["s_unlearning"]["high"] - row["s_unlearning"]["low"] for row in board.rows]
        return np.mean(widths)

    for interval in KINDS:
        few, many, most = (width(n, interval) for n in (30, 120, 480))
        assert few > 1.5 * many > 2 * most


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_a_missing_item_is_as_good_as_none_for_every_mean(seed):
    """Whether an item is asked and fails, or is not asked of anyone, no value or test changes; only counts do."""
    given_cells = cells(np.random.default_rng(seed), n=40, missing=0.0, count=1)
    gone = {"i3", "i10", "i11"}
    holed, absent = [], []
    for cell in given_cells:
        rows = [
            replace(row, scores=None, missing="failed") if row.item in gone else row for row in cell.records["rest"]
        ]
        holed.append(replace(cell, records={**cell.records, "rest": rows}))
        kept = [row for row in cell.records["rest"] if row.item not in gone]
        absent.append(replace(cell, records={**cell.records, "rest": kept}))
    for one, two in zip(build_board(spec(), holed).rows, build_board(spec(), absent).rows, strict=True):
        assert one["variant"] == two["variant"]
        assert one["s_unlearning"]["value"] == two["s_unlearning"]["value"]
        assert one["retain"]["value"] == two["retain"]["value"]
        assert (one["retain"]["n"], one["retain"]["missing"]) == (37, 3)
        assert (two["retain"]["n"], two["retain"]["missing"]) == (37, 0)


def test_luck_near_chance_is_not_called_a_difference():
    """Rows whose resamples pile up at zero have little spread there; ranks go by the spread before clipping."""
    rng = np.random.default_rng(0)
    apart = {"as shown": 0, "before clipping": 0}
    for _ in range(40):
        found = []
        for variant in range(6):
            answers = {
                task: [Record(f"i{i}", f"c{i}", "s", {"acc": float(rng.random() < p)}) for i in range(150)]
                for task, p in (("facts", 0.5), ("rest", 0.31), ("manners", 0.5))
            }
            found.append(
                Checkpoint("m", "knowledge", f"v{variant}", f"v{variant}", "method", 0, f"v{variant}", records=answers)
            )
        evidence = Resamples(spec(), found)
        for name, draws in (("as shown", evidence.s_draws), ("before clipping", evidence.s_unbounded)):
            rows = [draws("knowledge", [k]) for k in range(6)]
            assert rows[0][0, 0] == evidence.s_draws("knowledge", [0])[0, 0]
            apart[name] += any(rank.low > 1 for rank in rank_intervals(rows, 0.95))
    assert apart["before clipping"] <= 5
    assert apart["before clipping"] < apart["as shown"]
