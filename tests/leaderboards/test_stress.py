"""What remains of the forgetting after a stress: by hand on tiny records, and what a board does with derived cells."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from unlearn_bench.harness.records import Record
from unlearn_bench.leaderboards.board import build_board, load_board

STRESS = {"quantise4": "weights of four bits", "relearn": "twenty steps"}


def answers(checkpoint, right: int, n: int = 40):
    """Return a checkpoint whose first `right` of n forget questions are right."""
    found = [Record(f"wmdp-{i:02d}", f"c{i}", "s", {"acc": float(i < right)}) for i in range(n)]
    return replace(checkpoint, records={**checkpoint.records, "wmdp": found})


def after(checkpoint, stress: str, right: int | None = None):
    """Return a checkpoint after a stress, its answers as they were or with so many right."""
    derived = replace(
        checkpoint, variant=f"{checkpoint.variant}+{stress}", stress=stress, cell=f"{checkpoint.cell}+{stress}"
    )
    return derived if right is None else answers(derived, right)


def board_of(toy, *checkpoints, **changes):
    return build_board(toy.spec(**{"stress": STRESS, **changes}), checkpoints)


@pytest.fixture
def base(toy):
    return answers(toy.base(), 32)


@pytest.fixture
def rmu(toy):
    return answers(toy.checkpoint("rmu"), 16)


def part_of(toy, board, variant: str, stress: str = "quantise4"):
    return toy.row_of(board, variant)["stress"][stress]


def test_the_share_is_the_forgetting_after_over_that_before(toy, base, rmu) -> None:
    board = board_of(toy, base, rmu, after(base, "quantise4", 30), after(rmu, "quantise4", 26))
    part = part_of(toy, board, "rmu")
    assert part["remaining"]["value"] == pytest.approx((30 / 40 - 26 / 40) / (32 / 40 - 16 / 40))
    assert part["remaining"]["low"] < 0.25 < part["remaining"]["high"]
    assert part["forget"]["value"] == pytest.approx(26 / 40)
    assert part["forget_delta_base"]["value"] == pytest.approx(-4 / 40)
    assert part["cells"] == [f"{rmu.cell}+quantise4"]
    assert part["note"] == ""
    assert part_of(toy, board, "base")["remaining"] is None
    assert part_of(toy, board, "base")["forget"]["value"] == pytest.approx(30 / 40)


@pytest.mark.parametrize("seeds", [1, 3])
def test_answers_that_stay_the_same_leave_all_of_it(toy, base, rmu, seeds: int) -> None:
    rows = [answers(replace(rmu, seed=seed, cell=f"rmu-{seed}"), 14 + 2 * seed) for seed in range(seeds)]
    board = board_of(toy, base, after(base, "quantise4"), *rows, *(after(row, "quantise4") for row in rows))
    assert part_of(toy, board, "rmu")["remaining"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_what_comes_back_as_the_base_has_it_leaves_nothing(toy, base, rmu) -> None:
    board = board_of(toy, base, rmu, after(base, "relearn"), after(rmu, "relearn", 32))
    assert part_of(toy, board, "rmu", "relearn")["remaining"]["value"] == pytest.approx(0.0)


def test_several_seeds_give_the_ratio_of_their_means_and_widen_its_interval(toy, base, rmu) -> None:
    def with_rights(pairs):
        rows = [answers(replace(rmu, seed=seed, cell=f"rmu-{seed}"), before) for seed, (before, _) in enumerate(pairs)]
        late = [after(row, "relearn", left) for row, (_, left) in zip(rows, pairs, strict=True)]
        return part_of(toy, board_of(toy, base, after(base, "relearn"), *rows, *late), "rmu", "relearn")["remaining"]

    agree, differ = with_rights([(16, 24)] * 3), with_rights([(16, 32), (16, 16), (16, 24)])
    assert agree["value"] == differ["value"] == pytest.approx(0.5)
    assert differ["high"] - differ["low"] > agree["high"] - agree["low"]


def test_a_share_of_nothing_is_missing_with_its_reason(toy, base) -> None:
    weak = answers(toy.checkpoint("weak"), 31)
    board = board_of(toy, base, weak, after(base, "quantise4", 30), after(weak, "quantise4", 20))
    part = part_of(toy, board, "weak")
    assert part["remaining"] is None
    assert part["note"] == "the forgetting before it is not separable from zero"
    assert part["forget"]["value"] == pytest.approx(0.5)
    assert "quantise4, `weak`: the forgetting before it is not separable from zero." in board.to_markdown()


def test_a_base_that_the_stress_itself_brings_to_chance_allows_no_share(toy, base, rmu) -> None:
    board = board_of(toy, base, rmu, after(base, "quantise4", 10), after(rmu, "quantise4", 10))
    part = part_of(toy, board, "rmu")
    assert part["remaining"] is None
    assert "base itself is at chance after it" in part["note"]


def test_what_is_lacking_is_said(toy, base, rmu) -> None:
    failed = replace(after(rmu, "relearn"), status="failed", failure="the disk is full", records={})
    waiting = replace(after(base, "relearn"), status="pending", records={})
    board = board_of(toy, base, rmu, failed, waiting)
    assert part_of(toy, board, "rmu", "relearn")["note"] == "failed: the disk is full"
    assert part_of(toy, board, "rmu", "relearn")["forget"] is None
    assert part_of(toy, board, "base", "relearn")["note"] == "not run yet"
    assert part_of(toy, board, "rmu")["note"] == "not applicable: it changes no weights"


def test_derived_cells_are_no_rows_and_change_none(toy, base, rmu) -> None:
    rows = [base, toy.checkpoint("adap"), rmu, toy.checkpoint("npo", wmdp=0.5)]
    rows = [answers(row, 24 + place) if place else row for place, row in enumerate(rows)]
    plain = board_of(toy, *rows, stress={})
    stressed = board_of(toy, *rows, *(after(row, name, 20) for row in rows for name in STRESS))
    assert [{**row, "stress": {}} for row in stressed.rows] == plain.rows
    assert stressed.verdicts == plain.verdicts
    assert stressed.goals == plain.goals


def test_the_forms_of_the_board_hold_it(toy, base, rmu, tmp_path: Path) -> None:
    late = [after(row, name, 20) for row in (base, rmu) for name in STRESS]
    board = board_of(toy, base, rmu, *late)
    text = board.to_markdown(details=True)
    assert max(map(len, text.splitlines())) <= 120
    assert "**After stress.** quantise4: weights of four bits; relearn: twenty steps." in text
    line = next(csv.DictReader(io.StringIO(board.to_csv())))
    assert line["stress_relearn_forget_value"] == "0.5"
    (tmp_path / "board.json").write_text(board.to_json())
    again = load_board(tmp_path / "board.json")
    assert again.to_json() == board.to_json()
    assert again.to_markdown(details=True) == text


def test_a_board_from_before_reads_without_stress(toy, base, rmu, tmp_path: Path) -> None:
    value = json.loads(board_of(toy, base, rmu, stress={}).to_json())
    del value["stress"]
    for row in value["rows"]:
        del row["stress"]
    (tmp_path / "old.json").write_text(json.dumps(value))
    assert "After stress" not in load_board(tmp_path / "old.json").to_markdown()
