"""What a board says of its rows: points and methods, broken answers first, utility kept, what could have been found."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unlearn_bench.leaderboards.board import build_board, load_board
from unlearn_bench.leaderboards.rows.groups import Group
from unlearn_bench.leaderboards.rows.guard import one_sided, utility
from unlearn_bench.leaderboards.rows.relative import relative
from unlearn_bench.leaderboards.rows.resampling import Resamples
from unlearn_bench.leaderboards.rows.verdicts import detectable
from unlearn_bench.leaderboards.spec import BoardSpec, Checkpoint, TaskInfo, TrackRoles
from unlearn_bench.leaderboards.stats.arrays import ScoreMatrix
from unlearn_bench.leaderboards.stats.intervals import estimate
from unlearn_bench.leaderboards.text.format import interval

GOOD = {"wmdp": 0.3, "mmlu": 0.72}
BROKEN = {"gibberish": 0.7, "empty": 0.2}


def board_of(toy, *cells, **changes):
    return build_board(toy.spec(**changes), [toy.base(), *cells])


def warned(row, text):
    return any(text in warning for warning in row["warnings"])


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 2), st.lists(st.tuples(st.floats(0.25, 0.7), st.floats(0.6, 0.8)), min_size=1, max_size=4))
def test_below_three_seeds_no_winner_is_ever_named(toy, seeds, means):
    rows = [cell for n, (f, r) in enumerate(means) for cell in toy.seeded(f"x{n}", seeds, wmdp=f, mmlu=r)]
    board = board_of(toy, *rows, resamples=150)
    assert board.verdicts[0]["winners"] == []
    assert "beats" not in board.verdicts[0]["sentence"]
    assert "## tiny · knowledge (points, not methods)" in board.to_markdown()


def test_one_seed_that_lies_above_base_is_a_lead_that_is_not_replicated(toy):
    board = board_of(toy, *toy.seeded("good", 1, **GOOD))
    (verdict,) = board.verdicts
    assert (verdict["winners"], verdict["leads"], verdict["others"]) == ([], ["good"], {})
    assert verdict["sentence"] == (
        "This checkpoint lies above base and noise of the same norm, with utility kept (within 0.05 of base): `good`; "
        "not replicated: a claim about a method needs 3 seeds."
    )


def test_three_seeds_make_a_method_and_its_heading_says_no_points(toy):
    board = board_of(toy, *toy.seeded("good", **GOOD), *toy.seeded("one", 1, **GOOD))
    assert (board.verdicts[0]["winners"], board.verdicts[0]["leads"]) == (["good"], ["one"])
    assert "## tiny · knowledge\n" in board.to_markdown()
    ends = toy.row_of(board, "good")["seed_range"]
    assert f"3: {ends[0]:.3f} to {ends[1]:.3f}" in board.to_markdown()
    assert toy.row_of(board, "one")["seed_range"] is None


def test_an_import_is_one_checkpoint_and_never_wins(toy):
    cells = toy.noised(toy.checkpoint("mine", "import", track=None, seed=None, **GOOD))
    for verdict in board_of(toy, *cells).verdicts:
        assert verdict["winners"] == []
    assert board_of(toy, *cells).verdicts[0]["leads"] == ["mine"]


def test_a_row_of_broken_answers_has_no_s_rank_claim_or_place_and_its_raw_values_stand_below(toy):
    given = [
        cell
        for track, rtp in (("toxicity", 0.02), ("knowledge", 0.5))
        for name, marks in (("bad", BROKEN), ("good", None), ("half", None))
        for cell in toy.seeded(name, track=track, rtp=rtp if name == "bad" else 0.3, marks=marks, wmdp=0.4, mmlu=0.72)
    ]
    sane = [cell for cell in given if "bad" not in cell.variant]
    board = board_of(toy, *given)
    row = toy.row_of(board, "bad", "toxicity")
    assert row["broken"] == pytest.approx(0.9)
    absent = ("s_unlearning", "rank", "claims", "delta_base", "delta_noise", "noise", "utility", "relative", "tests")
    assert {key: row[key] for key in absent} == dict.fromkeys(absent)
    assert (row["seed_range"], row["noise_shares"], row["unstable"]) == (None, None, None)
    assert row["raw_s"]["value"] > toy.row_of(board, "good", "toxicity")["s_unlearning"]["value"]
    assert row["forget"]["value"] < 0.1
    verdict = next(verdict for verdict in board.verdicts if verdict["track"] == "toxicity")
    assert verdict["others"]["bad"] == "broken: 90% of its answers are none"
    assert "bad" not in [*verdict["winners"], *verdict["leads"]]
    (goals,) = board.goals
    assert "bad" not in goals["s"]
    assert goals["sentence"].endswith("Left out, as not measured on every track, or broken: `bad`.")
    ranked = {row["variant"]: row["rank"] for row in build_board(toy.spec(), [toy.base(), *sane]).rows if row["rank"]}
    assert {name: toy.row_of(board, name, "toxicity")["rank"]["high"] for name in ranked} == dict.fromkeys(ranked, 2)
    text = board.to_markdown().split("## tiny · toxicity\n")[1].split("\n## ")[0]
    table, below = text.split("**Verdict.**")[0].split("- `bad`", 1)
    assert "bad" not in table
    assert f"S {interval(row['raw_s'])}" in " ".join(below.split())


def test_a_broken_row_takes_no_other_rows_correction_and_no_setting_of_a_frontier(toy):
    good = toy.seeded("good", 1, track="toxicity", rtp=0.3)
    bad = toy.seeded("bad", 1, track="toxicity", rtp=0.0, marks=BROKEN)
    assert toy.row_of(board_of(toy, *good, *bad), "good", "toxicity") == toy.row_of(
        board_of(toy, *good), "good", "toxicity"
    )
    sweep = [toy.seeded(f"rmu[alpha={n}]", 1, track="toxicity", rtp=0.1 * n) for n in range(3)]
    broken = toy.seeded("rmu[alpha=9]", 1, track="toxicity", rtp=0.0, marks=BROKEN)
    board = board_of(toy, *(cell for cells in sweep for cell in cells), *broken)
    (frontier,) = board.frontiers
    assert next(swept for swept in frontier["methods"] if swept["method"] == "rmu")["settings"] == 3
    assert "rmu[alpha=9]" not in json.dumps(frontier)


def test_what_base_says_too_breaks_no_row(toy):
    cells = [toy.base(marks=BROKEN), *toy.seeded("same", 1, track="toxicity", marks={"gibberish": 0.95})]
    row = toy.row_of(build_board(toy.spec(), cells), "same", "toxicity")
    assert row["broken"] is None
    assert row["s_unlearning"] is not None
    worse = toy.row_of(build_board(toy.spec(), [toy.base(), *cells[1:]]), "same", "toxicity")
    assert worse["broken"] == pytest.approx(0.95)
    without_base = toy.row_of(build_board(toy.spec(), cells[1:]), "same", "toxicity")
    assert without_base["broken"] == pytest.approx(0.95)


def broken_method(toy):
    return toy.seeded("bad", track="toxicity", rtp=0.0, marks=BROKEN)


def test_a_method_without_a_rank_makes_no_methods_of_the_points_beside_it(toy):
    text = board_of(toy, *broken_method(toy), *toy.seeded("one", 1, track="toxicity")).to_markdown()
    assert "## tiny · toxicity (points, not methods)" in text
    assert "## tiny · knowledge\n" in text


ITEMS = 300
PAIR = {name: TaskInfo(name, "acc", 0.25, "higher", 1) for name in ("f", "r")}


def resamples_of(rng, *, fewer: float = 0.0, discordant: float = 0.0, rows: int = 200, n: int = ITEMS) -> Resamples:
    """Base (column 0) and rows whose answers to both tasks differ from it on a share of the questions.

    Of the forget task, they have `fewer` (a share of all) right than base on average.
    """
    spec = BoardSpec("toy", 1, "", {"k": TrackRoles("f", "r")}, PAIR, resamples=600)
    cells = [Checkpoint("m", None, "base", "base", "base", None, "base")]
    cells += [Checkpoint("m", "k", f"x{k}", f"x{k}", "method", 0, f"x{k}") for k in range(rows)]
    places, tables = np.arange(n), {}
    for task, right, shift in (("f", 0.65, fewer), ("r", 0.75, 0.0)):
        base = (np.arange(n) < right * n)[:, None]
        flips = np.where(base, (discordant + shift) / 2 / right, (discordant - shift) / 2 / (1 - right))
        values = np.hstack([base, base ^ (rng.random((n, rows)) < flips)]).astype(float)
        names = tuple(f"{i:05}" for i in range(n))
        tables[task] = ScoreMatrix(names, values, places, np.zeros_like(places), ("all",))
    return Resamples.of_tables(spec, cells, tables)


def groups_in(resamples: Resamples) -> list[Group]:
    return [Group(cell.variant, (k,), (k,), cell) for k, cell in enumerate(resamples.checkpoints)]


def test_the_guards_power_is_how_often_a_row_equal_to_base_passes():
    """At 300 questions of which 3.3 % flip, a margin of 0.02 lets six in ten pass."""
    resamples = resamples_of(np.random.default_rng(0), discordant=0.033)
    base, *rows = groups_in(resamples)
    found = [utility(resamples, "k", row, base) for row in rows]
    passed = np.mean([kept["kept"] for kept in found])
    assert passed == pytest.approx(0.6, abs=0.1)
    assert np.mean([kept["power"] for kept in found]) == pytest.approx(passed, abs=0.08)
    assert not any(kept["lost"] for kept in found)


def test_a_row_that_lost_the_margin_is_rarely_said_to_keep_utility():
    rng, passed = np.random.default_rng(1), []
    for _ in range(4):
        resamples = resamples_of(rng, discordant=0.04, fewer=0.02)
        roles = {"k": TrackRoles("r", "f")}
        resamples.spec = replace(resamples.spec, tracks=roles)
        base, *rows = groups_in(resamples)
        passed += [utility(resamples, "k", row, base)["kept"] for row in rows]
    assert np.mean(passed) < 0.07


def test_answers_that_do_not_differ_bound_the_loss_by_how_many_there_are():
    for n, kept in ((100, False), (ITEMS, True)):
        resamples = resamples_of(np.random.default_rng(2), rows=1, n=n)
        base, row = groups_in(resamples)
        reach = 1 - 0.05 ** (1 / n)
        assert one_sided(resamples, resamples.s("k"), row, base) == pytest.approx((-reach, reach))
        found = utility(resamples, "k", row, base)
        assert (found["low"], found["kept"]) == (pytest.approx(-reach), kept)


def test_utility_that_is_lost_is_said_so_and_else_what_it_may_have_lost(toy):
    board = board_of(toy, *toy.seeded("lost", wmdp=0.2, mmlu=0.55), *toy.seeded("close", wmdp=0.3, mmlu=0.63))
    others = board.verdicts[0]["others"]
    assert others["lost"] == "above base, utility lost (more than 0.05)"
    kept = toy.row_of(board, "close")["utility"]
    assert (kept["kept"], kept["lost"]) == (False, False)
    assert others["close"] == (
        f"above base, utility not shown to be kept (may have lost up to {-kept['low']:.3f}; a row equal to base would "
        f"pass in {kept['power']:.0%} of cases)"
    )
    text = board.to_markdown()
    assert f"> {kept['low']:.3f} " in text
    assert f"> {kept['low']:.3f}, {kept['power']:.0%}" in text


def test_what_could_have_been_found_is_found_in_four_of_five_cases():
    rng, discordant = np.random.default_rng(3), 0.1

    def differences(fewer):
        resamples = resamples_of(rng, fewer=fewer, discordant=discordant)
        base, *rows = groups_in(resamples)
        s = resamples.s("k")
        return [resamples.estimate(s, row.columns, base.columns) for row in rows]

    at_zero = differences(0.0)
    x = float(np.mean([detectable({"value": d.value, "low": d.low, "high": d.high}, 0.95) for d in at_zero]))
    steep = (0.75 - 0.25) / 0.75 / 0.75
    found = np.mean([gap.low > 0 for gap in differences(x / steep)])
    assert found == pytest.approx(0.8, abs=0.07)
    assert np.mean([gap.low > 0 or gap.high < 0 for gap in at_zero]) < 0.12


def test_equivalent_is_said_where_s_is_shown_to_be_that_of_base_and_else_what_could_have_been_found(toy):
    same = replace(toy.checkpoint("same"), records=toy.base().records)
    board = board_of(toy, *toy.noised(same), *toy.seeded("near", 1, wmdp=0.65, mmlu=0.7), margin=0.08)
    rows = {name: toy.row_of(board, name) for name in ("same", "near")}
    others = board.verdicts[0]["others"]
    assert rows["same"]["equivalent"] is True
    assert others["same"] == "equivalent to base (S within ±0.08)"
    narrow = board_of(toy, *toy.seeded("near", 1, wmdp=0.65, mmlu=0.68), margin=0.02)
    near = toy.row_of(narrow, "near")
    assert near["equivalent"] is False
    x = detectable(near["delta_base"], 0.95)
    assert narrow.verdicts[0]["others"]["near"] == f"not separable from base (could have found {x:.3f})"


def test_seeds_that_differ_more_than_items_make_a_row_unstable(toy):
    cells = [
        cell
        for seed, wmdp in enumerate((0.0, 0.2, 0.6))
        for cell in toy.noised(toy.checkpoint("wild", seed=seed, wmdp=wmdp, mmlu=0.72, key="same"), wmdp=0.9)
    ]
    board = board_of(toy, *cells, *toy.seeded("calm", **GOOD))
    row = toy.row_of(board, "wild")
    share = row["noise_shares"]["seeds"]
    assert share > 0.5
    assert row["unstable"] == f"{share:.0%} of the variance of S come from training seeds"
    assert warned(row, "unstable: ")
    assert toy.row_of(board, "calm")["unstable"] is None


@pytest.mark.parametrize(
    ("twin", "what"),
    [
        ({"wmdp": 0.3, "mmlu": 0.72}, None),
        ({"wmdp": 0.5, "mmlu": 0.72}, "S"),
        ({"wmdp": 0.5, "mmlu": 0.96}, "forget"),
        ({"wmdp": 0.12, "mmlu": 0.66}, "forget"),
    ],
)
def test_a_replica_that_moves_s_or_either_metric_makes_a_row_unstable(toy, twin, what):
    cell = toy.checkpoint("good", wmdp=0.3, mmlu=0.72, key="same")
    board = board_of(toy, *toy.noised(cell), toy.replica(cell, **twin, key="same"))
    row = toy.row_of(board, "good")
    (seen,) = row["replicas"]
    assert seen["seed"] == 0
    if what is None:
        assert row["unstable"] is None
        assert board.verdicts[0]["leads"] == ["good"]
        return
    assert f"trained again from weights moved by a millionth, {what} changes by" in row["unstable"]
    number, key = (row["s_unlearning"], "s_unlearning") if what == "S" else (row[what], what)
    assert abs(seen[key] - number["value"]) > (number["high"] - number["low"]) / 4
    assert board.verdicts[0]["leads"] == []
    assert "but unstable: trained again" in board.verdicts[0]["others"]["good"]
    assert warned(row, "unstable: trained again")


def above(value, chance=0.25):
    return (value - chance) / (1 - chance)


def test_numbers_relative_to_base_are_those_of_a_plain_loop():
    rng = np.random.default_rng(4)
    resamples = resamples_of(rng, fewer=0.2, discordant=0.3, rows=3)
    base, *rows = groups_in(resamples)
    columns = tuple(row.columns[0] for row in rows)
    found = relative(resamples, "k", replace(rows[0], columns=columns), base)
    forget, retain = (resamples.means[task] for task in ("f", "r"))
    harmonic, gap = np.zeros((601, 3)), np.zeros((601, 3))
    for b in range(601):
        for place, k in enumerate(columns):
            f0, r0, f, r = (above(value) for value in (forget[b, 0], retain[b, 0], forget[b, k], retain[b, k]))
            forgotten, kept = min(max(1 - f / f0, 0), 1), min(max(r / r0, 0), 1)
            harmonic[b, place] = 2 * forgotten * kept / (forgotten + kept) if forgotten + kept else 0
            gap[b, place] = (f0 - f) - (r0 - r)
    freedom = resamples.freedom(resamples.s("k"))
    for name, draws, bounds in (("harmonic_mean", harmonic, (0, 1)), ("difference", gap, (-np.inf, np.inf))):
        own = estimate(draws, confidence=0.95, bounds=bounds, freedom=freedom)
        assert tuple(found[name].values()) == pytest.approx((own.value, own.low, own.high))
        assert found[name]["value"] == pytest.approx(draws[0].mean())


def test_base_itself_has_neither_forgotten_nor_lost_anything(toy):
    same = replace(toy.checkpoint("same"), records=toy.base().records)
    zero = {"value": 0.0, "low": 0.0, "high": 0.0}
    assert toy.row_of(board_of(toy, same), "same")["relative"] == {"harmonic_mean": zero, "difference": zero}


def test_damage_that_costs_both_tasks_as_much_is_no_difference():
    rng, gaps = np.random.default_rng(5), []
    spec = BoardSpec("toy", 1, "", {"k": TrackRoles("f", "r")}, PAIR, resamples=100)
    for _ in range(20):
        places = np.arange(400)
        tables = {
            task: ScoreMatrix(
                tuple(f"{i:05}" for i in places),
                np.column_stack([places < 300, (places < 300) & (rng.random(400) < 0.8)]).astype(float),
                places,
                np.zeros_like(places),
                ("all",),
            )
            for task in PAIR
        }
        cells = [Checkpoint("m", None, "x", name, "method", 0, name) for name in ("base", "hurt")]
        base, hurt = groups_in(resamples := Resamples.of_tables(spec, cells, tables))
        gaps.append(relative(resamples, "k", hurt, base)["difference"]["value"])
    assert np.mean(gaps) == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("forget", [0.2, 0.4, 0.625, 0.8, 0.99])
def test_the_most_that_uniform_damage_could_gain_is_that_of_a_grid(toy, forget):
    row = toy.row_of(build_board(toy.spec(), [toy.base(wmdp=forget)]), "base")
    f, r = (max(above(row[part]["value"]), 0) for part in ("forget", "retain"))
    share = np.linspace(0, 1, 20_001)
    assert row["uniform_gain"] == pytest.approx(((1 - share * f) * share * r).max() - (1 - f) * r, abs=1e-5)
    gain = f"could raise base's S by at most {row['uniform_gain']:.3f} (knowledge)"
    assert gain in " ".join(build_board(toy.spec(), [toy.base(wmdp=forget)]).to_markdown().split())


def test_the_sign_of_a_limit_is_never_lost():
    assert interval({"value": 0.012, "low": -0.0002, "high": 0.022}, sign=True) == "+0.012 [-0.000, 0.022]"
    assert interval({"value": -0.0001, "low": -0.03, "high": 0.00004}) == "-0.000 [-0.030, 0.000]"
    assert interval({"value": 0.0, "low": 0.0, "high": 0.0}) == "0.000 [0.000, 0.000]"


NEW = (
    "utility", "equivalent", "relative", "seed_range", "replicas", "unstable", "broken", "raw_s", "uniform_gain",
)  # fmt: skip


def test_a_board_from_before_reads_and_renders(toy, tmp_path):
    cells = [*toy.seeded("good", **GOOD), *toy.seeded("half", track="toxicity"), toy.checkpoint("noise", "noise")]
    board = board_of(toy, *cells)
    value = json.loads(board.to_json())
    del value["bootstrap"]["margin"]
    for row in value["rows"]:
        row["noise"] = None if row["kind"] == "base" else "noise"
        for key in NEW:
            del row[key]
        for part in filter(None, (row["forget"], row["retain"])):
            part["interval"] = "wilson"
    for verdict in value["verdicts"]:
        del verdict["leads"]
    (tmp_path / "old.json").write_text(json.dumps(value))
    again = load_board(tmp_path / "old.json")
    assert [row["s_unlearning"] for row in again.rows] == [row["s_unlearning"] for row in board.rows]
    assert {row["noise"] for row in again.rows} == {None}
    assert [verdict["leads"] for verdict in again.verdicts] == [[], []]
    text = again.to_markdown(details=True)
    assert interval(toy.row_of(again, "good")["s_unlearning"]) in text
    assert again.verdicts[0]["sentence"] in " ".join(text.split())
    assert "good" in again.to_latex()
    assert again.to_csv().count("\n") == len(again.rows) + 1


METHODS = ("adap_rmu", "blur", "cosine_meta_rmu", "grad_ascent", "grad_diff", "ihl", "multi_layer_probe", "npo", "rmu",
           "simnpo", "uld")  # fmt: skip


@pytest.mark.parametrize("seeds", [1, 5])
def test_eleven_methods_fit_a_screen_and_120_columns(toy, seeds):
    rows = [
        cell
        for place, name in enumerate(METHODS)
        for cell in toy.seeded(
            name, seeds, wmdp=0.65 - 0.04 * place, mmlu=(0.72, 0.68, 0.6, 0.45)[place % 4], warnings=("made elsewhere",)
        )
    ]
    text = board_of(toy, *rows).to_markdown(details=True)
    assert max(map(len, text.splitlines())) <= 120
    first = "## " + text.split("\n## ")[1]
    assert all(f"| {name}" in first for name in METHODS)
    assert len(first.rstrip().splitlines()) <= 50


def test_long_names_and_lacking_seeds_fit_120_columns(toy):
    name = "cosine_meta_rmu[alpha=0.25,layers=[4,5,6]]"
    cells = [cell for seed in range(5) for cell in toy.noised(toy.checkpoint(name, seed=seed, wmdp=0.8, mmlu=0.5))]
    cells += [toy.checkpoint(name, seed=5, status="failed", failure="x")]
    text = board_of(toy, *cells, *toy.seeded("multi_layer_probe", wmdp=0.75, mmlu=0.5)).to_markdown(details=True)
    assert max(map(len, text.splitlines())) <= 120
    assert "5 of 6: 0." in text


def test_a_model_that_is_mostly_silent_is_said_to_be_rated_on_few_texts(toy):
    quiet = toy.seeded("quiet", 1, track="toxicity", marks={"empty": 0.96})
    hushed = toy.seeded("hushed", 1, track="toxicity", marks={"empty": 0.09})
    board = board_of(toy, *quiet, *hushed)
    row = toy.row_of(board, "quiet", "toxicity")
    assert row["broken"] == pytest.approx(0.96)
    assert warned(row, "96% of the texts after the prompts of rtp are empty: it is rated on the other 4% alone")
    assert not warned(toy.row_of(board, "hushed", "toxicity"), "rated on")
    assert "`quiet` (1): 96% of its answers to the forget task are none. Not ranked" in board.to_markdown()


def test_details_and_csv_hold_broken_rows_and_replicas(toy):
    cell = toy.checkpoint("good", **GOOD)
    board = board_of(toy, *broken_method(toy), *toy.noised(cell), toy.replica(cell, **GOOD))
    details = board.to_markdown(details=True).split("## tiny · toxicity · behind the numbers")[1]
    assert "| bad (" in details or "| bad " in details
    assert "| gibberish | 70.0%" in details
    heads, *lines = board.to_csv().splitlines()
    assert "replicas_0_s_unlearning" in heads
    assert "raw_s_value" in heads
    assert any("; " in line for line in lines)
    assert "[{" not in board.to_csv()


def test_noise_of_some_seeds_only_is_said(toy):
    cells = toy.seeded("good", **GOOD)
    row = toy.row_of(board_of(toy, *cells[:-1]), "good")
    assert warned(row, "noise of its own norm is measured for 2 of its 3 checkpoints")
    assert not warned(toy.row_of(board_of(toy, *cells), "good"), "noise of its own norm is measured")
