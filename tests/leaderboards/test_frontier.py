"""Methods at equal utility: the hull of a sweep, what is forgotten on it, and what is claimed of it."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unlearn_bench.leaderboards.board import build_board, load_board
from unlearn_bench.leaderboards.rows.frontier import chosen_at, forgetting_at, hull

PLACES = st.lists(st.tuples(*[st.floats(0, 1).map(lambda x: round(x, 3))] * 2), min_size=1, max_size=7, unique=True)


def at(points, level):
    forget, retain = np.array(points, dtype=float).T
    return forgetting_at(forget[None], retain[None], np.array([level]))[0]


def test_between_two_checkpoints_lies_their_mixture():
    points = [(0.0, 1.0), (1.0, 0.5)]
    assert at(points, 0.75) == pytest.approx(0.5)
    assert at(points, 0.9) == pytest.approx(0.2)
    assert at(points, 0.3) == 1.0
    assert np.isnan(at(points, 1.1))


def test_a_checkpoint_beneath_the_hull_changes_nothing():
    points = [(0.0, 1.0), (0.9, 0.8), (1.0, 0.2)]
    assert at([*points, (0.4, 0.85)], 0.85) == pytest.approx(at(points, 0.85)) == pytest.approx(0.675)


@settings(max_examples=60, deadline=None)
@given(PLACES, st.floats(0, 1))
def test_the_points_that_are_chosen_make_the_value(points, level):
    forget, retain = np.array(points).T
    chosen = chosen_at(forget, retain, level)
    value = at(points, level)
    assert bool(chosen) == (not np.isnan(value))
    if chosen:
        assert at([points[k] for k in chosen], level) == pytest.approx(value, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(PLACES)
def test_the_hull_holds_every_point_and_bends_one_way(points):
    forget, retain = np.array(points).T
    on = hull(forget, retain)
    assert all(retain[i] > retain[j] and forget[i] < forget[j] for i, j in itertools.pairwise(on))
    for x, y in points:
        assert at([points[k] for k in on], y) >= x - 1e-6


def swept(toy, method, places, seeds=(0,)):
    cells = [
        toy.checkpoint(f"{method}[alpha={n}]", wmdp=wmdp, mmlu=mmlu, seed=seed, key=str(seed or ""))
        for n, (wmdp, mmlu) in enumerate(places)
        for seed in seeds
    ]
    return toy.noised(*cells, key="")


MARGIN = 0.02
GOOD, POOR = [(0.55, 0.70), (0.30, 0.69), (0.27, 0.50)], [(0.60, 0.69), (0.50, 0.50), (0.40, 0.40)]


def frontier_of(toy, *more):
    found = build_board(toy.spec(margin=MARGIN), [toy.base(mmlu=0.71, key=""), *more]).frontiers
    return found[0] if found else None


def test_swept_methods_are_compared_where_each_keeps_as_much(toy):
    frontier = frontier_of(toy, *swept(toy, "good", GOOD), *swept(toy, "poor", POOR), toy.checkpoint("alone"))
    assert {each["method"] for each in frontier["methods"]} == {"good", "poor", "noise"}
    good = frontier["methods"][0]
    assert (good["settings"], good["seeds"]) == (3, 1)
    assert good["curve"][0] == "base"
    assert good["curve"][-1] == "good[alpha=2]"
    assert "good[alpha=1]" in good["at"]
    assert good["forgetting"]["low"] < good["forgetting"]["value"] < good["forgetting"]["high"]
    gain = next(each for each in frontier["gains"] if {each["method"], each["other"]} == {"good", "poor"})
    assert min(abs(gain["low"]), abs(gain["high"])) > 0
    assert gain["low"] * gain["high"] > 0
    assert "`good` forgets more than `poor`, noise" in frontier["sentence"]
    assert frontier["sentence"].startswith("Of these checkpoints, not replicated: where each may lose")
    assert f"may lose {MARGIN:g} of the retain metric" in frontier["sentence"]


def test_a_method_against_itself_is_not_told_apart(toy):
    one, other = swept(toy, "one", GOOD), swept(toy, "other", GOOD)
    frontier = frontier_of(toy, *one, *other)
    gain = next(each for each in frontier["gains"] if {each["method"], each["other"]} == {"one", "other"})
    assert gain["low"] <= 0 <= gain["high"]
    assert "`one` forgets more than `other`" not in frontier["sentence"]


def test_two_settings_are_no_sweep(toy):
    assert frontier_of(toy, *swept(toy, "good", GOOD[:2])) is None


def test_seeds_that_not_all_settings_have_are_left_out(toy):
    cells = swept(toy, "good", GOOD, seeds=(0, 1, 2))
    whole, less = frontier_of(toy, *cells), frontier_of(toy, *cells[:-2])
    assert [each["methods"][0]["seeds"] for each in (whole, less)] == [3, 2]
    assert whole["sentence"].startswith("Where each may lose")
    assert less["sentence"].startswith("Of these checkpoints, not replicated")


def test_a_board_keeps_and_tells_its_frontiers(toy, tmp_path):
    board = build_board(toy.spec(), [toy.base(), *swept(toy, "good", GOOD)])
    (tmp_path / "board.json").write_text(board.to_json())
    assert load_board(tmp_path / "board.json").frontiers == board.frontiers
    old = json.loads(board.to_json())
    del old["frontiers"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert load_board(tmp_path / "old.json").frontiers == []
    details = board.to_markdown()
    assert "## tiny · knowledge · at equal utility" in details
    assert "mostly ranks how it was tuned" in " ".join(details.split())
    assert max(map(len, details.splitlines())) <= 120
