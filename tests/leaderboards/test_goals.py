"""Does the best method depend on the goal: worlds in which it does, does not, and in which none can tell."""

from __future__ import annotations

import json

import pytest
from unlearn_bench.leaderboards.board import build_board, load_board


def cells_of(toy, values, seeds=(0, 1, 2)):
    """Checkpoints of both tracks from (variant, forget metric on knowledge, on toxicity)."""
    found = [toy.base()]
    for variant, wmdp, rtp in values:
        for seed in seeds:
            found.append(toy.checkpoint(variant, wmdp=wmdp, seed=seed))
            found.append(toy.checkpoint(variant, track="toxicity", rtp=rtp, seed=seed))
    return found


def goals_of(toy, values, **more):
    (goals,) = build_board(toy.spec(), cells_of(toy, values, **more)).goals
    return goals


def test_the_best_differs_where_methods_swap_places(toy):
    goals = goals_of(toy, [("facts", 0.26, 0.60), ("manners", 0.60, 0.10)])
    assert goals["answer"] == "differs"
    assert goals["best"] == {"knowledge": ["facts"], "toxicity": ["manners"]}
    (found,) = goals["interactions"]
    assert found["low"] > 0
    assert goals["sentence"].startswith("The best method differs by goal, at 95% confidence")
    assert "1 of 1 pairs" in goals["sentence"]
    assert goals["differs"] > 0.99


def test_the_same_method_may_be_the_best_for_both(toy):
    goals = goals_of(toy, [("strong", 0.26, 0.10), ("weak", 0.60, 0.60)])
    assert goals["answer"] == "same"
    assert goals["best"] == {"knowledge": ["strong"], "toxicity": ["strong"]}
    assert goals["differs"] < 0.01


def test_methods_that_are_alike_cannot_be_told_apart(toy):
    goals = goals_of(toy, [("one", 0.40, 0.30), ("two", 0.40, 0.30)])
    assert goals["answer"] == "cannot tell"
    assert "cannot be told at 95% confidence" in goals["sentence"]
    assert "No pair of methods" in goals["sentence"]
    assert goals["interactions"][0]["low"] <= 0 <= goals["interactions"][0]["high"]


def test_a_distance_that_changes_is_no_order_that_changes(toy):
    goals = goals_of(toy, [("strong", 0.26, 0.30), ("weak", 0.75, 0.32)])
    assert goals["answer"] == "cannot tell"
    assert goals["interactions"][0]["low"] > 0
    assert "1 of 1 pairs" in goals["sentence"]


def test_the_interaction_is_the_difference_of_differences(toy):
    board = build_board(toy.spec(), cells_of(toy, [("a", 0.3, 0.4), ("b", 0.5, 0.2), ("c", 0.6, 0.5)]))
    s = {(row["variant"], row["track"]): row["s_unlearning"]["value"] for row in board.rows}
    found = board.goals[0]["interactions"]
    assert len(found) == 3
    for each in found:
        a, b, t, u = each["method"], each["other"], each["track"], each["other_track"]
        assert each["value"] == pytest.approx(s[a, t] - s[b, t] - s[a, u] + s[b, u], abs=3e-6)


def test_seeds_that_disagree_widen_the_interaction(toy):
    values = [("a", 0.3, 0.4), ("b", 0.5, 0.2)]
    calm = goals_of(toy, values)["interactions"][0]
    rough = cells_of(toy, values[:1], seeds=(0, 1, 2))
    for seed, wmdp in enumerate((0.3, 0.5, 0.7)):
        rough += [toy.checkpoint("b", wmdp=wmdp, seed=seed), toy.checkpoint("b", track="toxicity", rtp=0.2, seed=seed)]
    wide = build_board(toy.spec(), rough).goals[0]["interactions"][0]
    assert wide["high"] - wide["low"] > 1.5 * (calm["high"] - calm["low"])


def test_no_table_for_one_method_or_one_track(toy):
    assert build_board(toy.spec(), cells_of(toy, [("a", 0.3, 0.4)])).goals == []
    alone = [toy.base(), toy.checkpoint("a"), toy.checkpoint("b"), toy.checkpoint("c", track="toxicity")]
    assert build_board(toy.spec(), alone).goals == []


def test_a_method_that_is_not_measured_on_every_track_is_named_as_left_out(toy):
    cells = cells_of(toy, [("strong", 0.26, 0.10), ("weak", 0.60, 0.60)])
    (whole,) = build_board(toy.spec(), cells).goals
    (partly,) = build_board(toy.spec(), [*cells, toy.checkpoint("half", wmdp=0.26)]).goals
    assert "Left out" not in whole["sentence"]
    assert partly["sentence"].endswith("Left out, as not measured on every track, or broken: `half`.")


def test_the_table_is_on_the_board_and_reads_back(toy, tmp_path):
    board = build_board(toy.spec(), cells_of(toy, [("facts", 0.26, 0.60), ("manners", 0.60, 0.10)]))
    text = board.to_markdown(details=True)
    assert "does the best method depend on the goal?" in text
    assert "**Goal.** The best method differs by goal" in text
    assert "S: toxicity" in text
    assert "behind the goals" in text
    path = tmp_path / "board.json"
    path.write_text(board.to_json(), encoding="utf-8")
    assert load_board(path).to_markdown(details=True) == text
    assert json.loads(board.to_json())["goals"][0]["answer"] == "differs"
