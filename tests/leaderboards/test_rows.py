from __future__ import annotations

from dataclasses import replace

import pytest
from unlearn_bench.harness.errors import UserError
from unlearn_bench.leaderboards.board import build_board
from unlearn_bench.leaderboards.rows.verdicts import shortfall
from unlearn_bench.leaderboards.spec import TaskInfo, TrackRoles
from unlearn_bench.leaderboards.stats.metrics import s_unlearning


def board_of(toy, *checkpoints, **changes):
    return build_board(toy.spec(**changes), checkpoints)


def usual(toy, *cells):
    return [toy.base(), *toy.noised(*cells)]


def contains(row, text):
    return any(text in warning for warning in row["warnings"])


def test_a_row_holds_the_documented_keys(toy):
    board = board_of(toy, *usual(toy, toy.checkpoint("rmu", wmdp=0.3)))
    row = toy.row_of(board, "rmu")
    assert row["status"] == "ok"
    assert row["seeds"] == [0]
    assert row["cells"] == ["tiny-knowledge-rmu-0"]
    assert row["speaks_of"] == "checkpoint"
    assert set(row["s_unlearning"]) == {"value", "low", "high"}
    assert row["forget"] | {"task": "wmdp", "metric": "acc", "n": 120, "n_clusters": 40, "missing": 0} == row["forget"]
    expected = s_unlearning(row["forget"]["value"], row["retain"]["value"], forget_chance=0.25, retain_chance=0.25)
    assert row["s_unlearning"]["value"] == pytest.approx(float(expected), abs=1e-5)
    assert row["s_unlearning"]["low"] < row["s_unlearning"]["value"] < row["s_unlearning"]["high"]
    assert row["cross"][0]["task"] == "rtp"
    assert row["cross"][0]["delta_base"] is not None


def test_there_is_one_row_for_each_model_track_and_variant_and_base_stands_on_every_track(toy):
    more = [toy.base(model="other"), toy.checkpoint("rmu", track="toxicity", model="other")]
    board = board_of(toy, *usual(toy, toy.checkpoint("rmu")), *more)
    assert sorted((row["model"], row["track"], row["variant"]) for row in board.rows) == [
        ("other", "knowledge", "base"),
        ("other", "toxicity", "base"),
        ("other", "toxicity", "rmu"),
        ("tiny", "knowledge", "base"),
        ("tiny", "knowledge", "rmu"),
        ("tiny", "toxicity", "base"),
    ]


def test_differences_are_of_the_same_row_values_and_absent_where_there_is_nothing_to_compare(toy):
    board = board_of(toy, *usual(toy, toy.checkpoint("rmu", wmdp=0.4)))
    base, rmu = (toy.row_of(board, name) for name in ("base", "rmu"))
    for other, key in ((base["s_unlearning"], "delta_base"), (rmu["noise"], "delta_noise")):
        assert rmu[key]["value"] == pytest.approx(rmu["s_unlearning"]["value"] - other["value"], abs=2e-6)
    assert base["delta_base"] is None
    assert base["delta_noise"] is base["noise"] is None
    alone = toy.row_of(board_of(toy, toy.checkpoint("rmu")), "rmu")
    assert (alone["delta_base"], alone["delta_noise"], alone["noise"]) == (None, None, None)


def test_noise_and_replicas_are_no_rows_and_the_noise_of_older_runs_is_one_that_nothing_is_compared_with(toy):
    rmu = toy.checkpoint("rmu", wmdp=0.4)
    shared = toy.checkpoint("noise", "noise")
    board = board_of(toy, toy.base(), *toy.noised(rmu), toy.replica(rmu, wmdp=0.4), shared)
    assert [row["variant"] for row in board.rows if row["track"] == "knowledge"] == ["rmu", "noise", "base"]
    older = toy.row_of(board, "noise")
    assert older["delta_base"] is not None
    assert (older["rank"], older["delta_noise"], older["utility"]) == (None, None, None)
    without = toy.row_of(board_of(toy, toy.base(), rmu, shared), "rmu")
    assert (without["delta_noise"], without["noise"]) == (None, None)


def test_identical_records_differ_from_base_by_exactly_zero(toy):
    board = board_of(toy, toy.base(key="x"), toy.checkpoint("rmu", wmdp=0.65, key="x"), toy.checkpoint("other"))
    row = toy.row_of(board, "rmu")
    assert row["delta_base"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_a_failed_row_has_nulls_and_its_cause(toy):
    broken = toy.checkpoint("adap", status="failed", failure="loss became NaN")
    board = board_of(toy, *usual(toy, toy.checkpoint("rmu"), broken))
    row = toy.row_of(board, "adap")
    assert row["status"] == "failed"
    for key in ("s_unlearning", "delta_base", "delta_noise", "rank", "forget", "retain", "unclipped"):
        assert row[key] is None
    assert contains(row, "failed: loss became NaN")


def test_what_has_not_run_is_not_called_failed(toy):
    row = toy.row_of(board_of(toy, toy.base(), toy.checkpoint("rmu", status="pending")), "rmu")
    assert row["status"] == "partial"
    assert row["s_unlearning"] is None
    assert contains(row, "not run yet")


def test_a_checkpoint_without_a_score_of_a_task_is_not_a_row_of_zeros(toy):
    board = board_of(toy, toy.base(), toy.checkpoint("rmu", missing=range(120)))
    row = toy.row_of(board, "rmu")
    assert row["status"] == "failed"
    assert contains(row, "has no score of mmlu")


def test_a_partial_row_uses_the_finished_seeds_and_says_so(toy):
    seeds = [toy.checkpoint("rmu", seed=0), toy.checkpoint("rmu", seed=1, status="failed", failure="out of memory")]
    row = toy.row_of(board_of(toy, toy.base(), *seeds), "rmu")
    assert row["status"] == "partial"
    assert row["seeds"] == [0]
    assert row["s_unlearning"] is not None
    assert contains(row, "fewer seeds than planned: 1 of 2")
    assert contains(row, "seed 1 failed: out of memory")


def test_several_seeds_are_averaged_and_from_three_on_the_row_speaks_of_the_method(toy):
    means = (0.35, 0.45, 0.55)
    cells = [toy.checkpoint("rmu", seed=seed, wmdp=mean, key="same") for seed, mean in enumerate(means)]
    one, two, three = (toy.row_of(board_of(toy, toy.base(), *cells[:k]), "rmu") for k in (1, 2, 3))
    single = [toy.row_of(board_of(toy, toy.base(), cell), "rmu")["s_unlearning"]["value"] for cell in cells]
    assert three["s_unlearning"]["value"] == pytest.approx(sum(single) / 3, abs=2e-6)
    assert [row["speaks_of"] for row in (one, two, three)] == ["checkpoint", "checkpoint", "method"]
    assert contains(two, "two training seeds")
    widths = [row["s_unlearning"]["high"] - row["s_unlearning"]["low"] for row in (two, three)]
    assert widths[1] > widths[0]
    assert three["forget"]["n"] == 120


def test_ranks_are_of_methods_and_imports_only(toy):
    rows = [
        toy.checkpoint("good", wmdp=0.25),
        toy.checkpoint("bad", wmdp=0.65),
        toy.checkpoint("mine", "import", track=None, seed=None, wmdp=0.25, key="goodknowledge0"),
    ]
    board = board_of(toy, *usual(toy, *rows))
    places = {row["variant"]: row["rank"] for row in board.rows if row["track"] == "knowledge"}
    assert places["base"] is None
    assert places["good"] == places["mine"] == {"low": 1, "high": 2, "group": 1}
    assert places["bad"] == {"low": 3, "high": 3, "group": 2}


def test_missing_items_are_left_out_and_counted(toy):
    row = toy.row_of(board_of(toy, toy.base(), toy.checkpoint("rmu", missing=range(5))), "rmu")
    assert (row["retain"]["n"], row["retain"]["missing"]) == (115, 5)
    assert contains(row, "5 of 120 items of mmlu have no score")


def test_gibberish_and_ties_are_marked_and_warned_of(toy):
    marks = {"gibberish": 0.25, "tie": 0.05, "odd": 0.5}
    row = toy.row_of(board_of(toy, toy.base(), toy.checkpoint("rmu", marks=marks)), "rmu")
    assert row["marks"] == {"rtp": marks}
    assert contains(row, "25% of the answers to rtp are gibberish")
    assert contains(row, "marked 'odd'")
    assert not contains(row, "ties")


def test_utility_at_chance_and_below_noise_is_said(toy):
    board = board_of(toy, *usual(toy, toy.checkpoint("harmed", mmlu=0.25), toy.checkpoint("worse", mmlu=0.05)))
    assert contains(toy.row_of(board, "harmed"), "at chance: the interval of mmlu includes 0.25")
    assert contains(toy.row_of(board, "harmed"), "below that of noise of its own norm: S is not evidence")
    assert contains(toy.row_of(board, "worse"), "below chance")
    assert toy.row_of(board, "worse")["unclipped"]["retain"]["value"] < 0


def test_what_the_harness_says_is_passed_on_once(toy):
    said = [toy.checkpoint("rmu", seed=seed, warnings=("threads differ",)) for seed in (0, 1)]
    only = toy.checkpoint("rmu", seed=2, warnings=("threads differ", "resumed"))
    row = toy.row_of(board_of(toy, toy.base(), *said, only), "rmu")
    assert row["warnings"].count("threads differ") == 1
    assert "seed 2: resumed" in row["warnings"]


def test_the_verdict_names_who_beats_base_and_noise_with_utility_kept(toy):
    rows = [
        *toy.seeded("good", wmdp=0.3, mmlu=0.72),
        *toy.seeded("nothing", wmdp=0.65, mmlu=0.7),
        *toy.seeded("damage", wmdp=0.2, mmlu=0.55),
        toy.checkpoint("adap", status="failed", failure="x"),
    ]
    verdict = board_of(toy, toy.base(), *rows).verdicts[0]
    assert (verdict["winners"], verdict["leads"]) == (["good"], [])
    assert verdict["sentence"].startswith(
        "`good` beats base and stands above noise of the same norm, with utility kept (within 0.05 of base)."
    )
    assert verdict["others"]["damage"] == "above base, utility lost (more than 0.05)"
    assert verdict["others"]["nothing"].startswith("not separable from base (could have found 0.0")
    assert verdict["others"]["adap"] == "failed"


def test_a_row_wins_only_with_the_intervals_that_hold_for_the_whole_table(toy):
    good = toy.row_of(board_of(toy, *usual(toy, toy.checkpoint("good", wmdp=0.3, mmlu=0.72))), "good")
    assert shortfall(toy.spec(), good) is None
    touching = {"value": 0.1, "low": -0.01, "high": 0.21}
    alone = "when taken alone, not with all rows of the table together"
    reasons = {"base": f"above base {alone}", "noise": f"above base with utility kept, above its noise {alone}"}
    for rival, reason in reasons.items():
        assert shortfall(toy.spec(), {**good, "claims": {**good["claims"], rival: touching}}) == reason


def test_claims_widen_with_the_table_and_hold_the_difference(toy):
    more = [toy.checkpoint(f"other{k}", wmdp=0.5) for k in range(8)]
    few, many = (
        toy.row_of(board_of(toy, *usual(toy, toy.checkpoint("good", wmdp=0.3), *others)), "good")
        for others in ([], more)
    )
    for row in (few, many):
        assert row["claims"]["base"]["value"] == row["delta_base"]["value"]
    widths = [row["claims"]["base"]["high"] - row["claims"]["base"]["low"] for row in (few, many)]
    assert widths[1] > 1.1 * widths[0]


def test_a_track_on_which_none_wins_says_so(toy):
    for cells, start in (
        (toy.seeded("nothing", wmdp=0.65), "No method beats base and stands above noise of the same norm"),
        (toy.noised(toy.checkpoint("nothing", wmdp=0.65)), "No checkpoint lies above base and noise of the same norm"),
    ):
        (verdict,) = board_of(toy, toy.base(), *cells).verdicts
        assert (verdict["winners"], verdict["leads"]) == ([], [])
        assert verdict["sentence"].startswith(start)


def test_without_noise_or_base_nothing_is_claimed(toy):
    good = [cell for cell in toy.seeded("good", wmdp=0.3, mmlu=0.72) if cell.beside is None]
    (verdict,) = board_of(toy, toy.base(), *good).verdicts
    assert (verdict["winners"], verdict["leads"]) == ([], [])
    assert verdict["others"]["good"] == "above base with utility kept, has no noise of its own to compare with"
    (verdict,) = board_of(toy, *toy.noised(*good)).verdicts
    assert verdict["winners"] == []
    assert verdict["others"]["good"] == "has no base to compare with"
    assert "no measured base, so nothing can be said against it" in verdict["sentence"]


def test_each_row_is_compared_with_its_own_noise_alone(toy):
    easy, hard = toy.checkpoint("easy", wmdp=0.3), toy.checkpoint("hard", wmdp=0.3)
    noises = [toy.noise(easy, wmdp=0.65), toy.noise(hard, wmdp=0.4)]
    board = board_of(toy, toy.base(), easy, hard, *noises)
    for cell, noise in zip((easy, hard), noises, strict=True):
        lone = toy.row_of(board_of(toy, toy.base(), replace(noise, beside=None, of=None)), noise.variant)
        assert toy.row_of(board, cell.variant)["noise"] == lone["s_unlearning"]


def test_tiny_samples_give_values_without_false_certainty(toy):
    tiny = [
        type(cell)(**{**vars(cell), "records": {task: rows[:3] for task, rows in cell.records.items()}})
        for cell in usual(toy, toy.checkpoint("rmu", wmdp=0.3), toy.checkpoint("adap", wmdp=0.9))
    ]
    board = board_of(toy, *tiny)
    row = toy.row_of(board, "rmu")
    assert row["forget"]["n_clusters"] == 1
    assert row["s_unlearning"]["low"] is None
    assert row["rank"] == {"low": 1, "high": 2, "group": 1}
    assert contains(row, "no interval")
    assert board.verdicts[0]["winners"] == []


def test_what_cannot_share_a_board_is_refused(toy):
    with pytest.raises(UserError, match="two cells for one seed"):
        board_of(toy, toy.checkpoint("rmu"), toy.checkpoint("rmu"))
    with pytest.raises(UserError, match="Did you mean 'toxicity'"):
        board_of(toy, toy.checkpoint("rmu", track="toxcity"))
    with pytest.raises(UserError, match="different kinds"):
        board_of(toy, toy.checkpoint("rmu"), toy.checkpoint("rmu", "import", seed=1))
    with pytest.raises(UserError, match="names the task 'mmlo'"):
        toy.spec(tracks={"knowledge": TrackRoles("wmdp", "mmlo")})
    with pytest.raises(UserError, match="better when lower"):
        toy.spec(tracks={"knowledge": TrackRoles("wmdp", "rtp")})
    with pytest.raises(UserError, match="chance"):
        toy.spec(tasks={**toy.tasks, "rtp": TaskInfo("rtp", "toxicity", 1.0, "lower", 1)})


def with_answers(toy, cell, values, *, per=1):
    """Give a checkpoint these scores of wmdp, `per` questions a cluster; None is a missing item."""
    rows = [
        replace(
            row, scores=None if value is None else {"acc": value}, missing="scorer failed" if value is None else None
        )
        for row, value in zip(toy.records("wmdp", 0.5, per=per), values, strict=True)
    ]
    return replace(cell, records={**cell.records, "wmdp": rows})


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("score", [0.0, 1.0])
def test_a_rate_without_spread_has_its_exact_limit_and_says_so(toy, score, seeds):
    base = with_answers(toy, toy.base(), [1.0, 0.0] * 60)
    cells = [with_answers(toy, toy.checkpoint("rmu", seed=seed), [None] * 5 + [score] * 115) for seed in range(seeds)]
    board = board_of(toy, base, *cells)
    part = toy.row_of(board, "rmu")["forget"]
    reach = 1 - 0.05 ** (1 / 115)
    assert (part["low"], part["high"]) == pytest.approx((0.0, reach) if score == 0 else (1 - reach, 1.0), abs=1e-6)
    assert (part["interval"], part["value"], part["n"], part["missing"]) == ("exact", score, 115, 5)
    said = f"all 115 items of wmdp score {'one' if score else 'zero'}, so resamples cannot differ"
    assert contains(toy.row_of(board, "rmu"), said)
    assert toy.row_of(board, "base")["forget"]["interval"] == "bootstrap"


def test_the_exact_limit_counts_clusters_and_holds_for_shares_too(toy):
    clustered = board_of(
        toy,
        with_answers(toy, toy.base(), [1.0, 0.0] * 60, per=3),
        with_answers(toy, toy.checkpoint("rmu"), [0.0] * 120, per=3),
    )
    between = board_of(
        toy,
        with_answers(toy, toy.base(), [1.0, 0.5] * 60),
        with_answers(toy, toy.checkpoint("rmu"), [0.0] * 120),
    )
    for board, clusters in ((clustered, 40), (between, 120)):
        part = toy.row_of(board, "rmu")["forget"]
        assert (part["low"], part["interval"]) == (0.0, "exact")
        assert part["high"] == pytest.approx(1 - 0.05 ** (1 / clusters), abs=1e-6)
        assert contains(toy.row_of(board, "rmu"), f"so many clusters ({clusters})")


def test_a_number_without_a_largest_value_has_no_exact_limit(toy):
    tasks = {**toy.tasks, "wmdp": replace(toy.tasks["wmdp"], largest=None, chance=0.0)}
    cells = [with_answers(toy, toy.checkpoint("rmu"), [1.0] * 120)]
    part = toy.row_of(board_of(toy, *cells, tasks=tasks), "rmu")["forget"]
    assert (part["low"], part["high"], part["interval"]) == (1.0, 1.0, "bootstrap")


def test_item_and_seed_noise_stand_apart_from_two_seeds_on(toy):
    cells = [toy.checkpoint("rmu", seed=seed, wmdp=0.3 + 0.15 * seed, key="same") for seed in range(3)]
    board = board_of(toy, toy.base(), *cells, toy.checkpoint("one"))
    shares = toy.row_of(board, "rmu")["noise_shares"]
    assert shares["items"] + shares["seeds"] == pytest.approx(1, abs=2e-6)
    assert shares["seeds"] > 0.5
    assert toy.row_of(board, "one")["noise_shares"] is None
    text = board.to_markdown(details=True).split("What makes S uncertain")[1]
    assert f"{shares['seeds']:.0%}" in text.split("\n\n")[1]
    assert "What makes S uncertain" not in board_of(toy, toy.base(), cells[0]).to_markdown(details=True)


def test_a_reference_has_its_numbers_and_no_rank(toy) -> None:
    retain = toy.checkpoint("retain", "reference", seed=None, wmdp=0.3, role="retain")
    alone = build_board(toy.spec(), [toy.base(), *toy.seeded("rmu")])
    board = build_board(toy.spec(), [toy.base(), *toy.seeded("rmu"), retain])
    row = toy.row_of(board, "retain")
    assert row["s_unlearning"]
    assert (row["rank"], row["claims"]) == (None, None)
    assert toy.row_of(board, "rmu") == toy.row_of(alone, "rmu")
    assert board.verdicts == alone.verdicts
    assert "*retain*" in board.to_markdown()
