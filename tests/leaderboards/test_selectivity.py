"""Utility on the subjects next to the forget topic against the rest."""

from __future__ import annotations

from dataclasses import replace

import pytest
from unlearn_bench.leaderboards.board import build_board
from unlearn_bench.leaderboards.spec import TrackRoles

TRACKS = {"knowledge": TrackRoles("wmdp", "mmlu", neighbours=("s1", "s3"))}


def board_of(toy, *cells, tracks=TRACKS):
    return build_board(toy.spec(tracks=tracks), [toy.base(), *cells])


def hurt(cell, strata):
    """Take all right answers of some strata of mmlu away."""
    rows = [replace(row, scores={"acc": 0.0}) if row.stratum in strata else row for row in cell.records["mmlu"]]
    return replace(cell, records={**cell.records, "mmlu": rows})


def mean(cell, strata):
    values = [row.scores["acc"] for row in cell.records["mmlu"] if row.stratum in strata]
    return sum(values) / len(values)


def test_a_loss_next_to_the_topic_is_a_gap_below_zero(toy):
    cell = hurt(toy.checkpoint("blunt"), {"s1"})
    part = toy.row_of(board_of(toy, cell), "blunt")["selectivity"]
    assert part["neighbours"] == ["s1", "s3"]
    assert part["near"]["value"] == pytest.approx(mean(cell, {"s1", "s3"}), abs=1e-6)
    assert part["rest"]["value"] == pytest.approx(mean(cell, {"s0", "s2"}), abs=1e-6)
    near, rest = part["near_delta"]["value"], part["rest_delta"]["value"]
    assert part["gap"]["value"] == pytest.approx(near - rest, abs=2e-6)
    assert part["gap"]["high"] < 0


def test_a_loss_everywhere_is_no_gap(toy):
    base = toy.base()
    cell = replace(toy.checkpoint("even", key=""), records={**base.records})
    part = toy.row_of(board_of(toy, cell), "even")["selectivity"]
    assert part["gap"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_nothing_is_shown_where_no_subjects_are_named_or_none_is_left(toy):
    for names in ((), ("s9",), ("s0", "s1", "s2", "s3")):
        board = board_of(toy, toy.checkpoint("rmu"), tracks={"knowledge": TrackRoles("wmdp", "mmlu", neighbours=names)})
        assert toy.row_of(board, "rmu")["selectivity"] is None
        assert "Selectivity" not in board.to_markdown()


def test_it_stands_beside_s_and_changes_nothing_else(toy):
    cells = toy.noised(toy.checkpoint("rmu"))
    board = board_of(toy, *cells)
    plain = board_of(toy, *cells, tracks={"knowledge": TrackRoles("wmdp", "mmlu")})
    assert "**Selectivity.** What mmlu lost" in board.to_markdown()
    assert "next to it" in board.to_markdown(details=True)
    assert "s1; s3" in board.to_csv()
    strip = [{**row, "selectivity": None} for row in board.rows]
    assert strip == plain.rows
