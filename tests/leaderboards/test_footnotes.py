"""Warnings below a table: each row's own, and what rows share said once."""

from __future__ import annotations

from dataclasses import replace

from unlearn_bench.leaderboards.board import build_board
from unlearn_bench.leaderboards.rows.sentences import merged, pattern
from unlearn_bench.leaderboards.text.footnotes import runs


def test_texts_that_differ_in_numbers_only_become_one_with_ranges():
    texts = ["answers 'A' to 99% of the questions of mmlu_5", "answers 'A' to 100% of the questions of mmlu_5"]
    assert merged(texts) == "answers 'A' to 99-100% of the questions of mmlu_5"
    assert merged(["1,200 of 2,000 items", "900 of 2,000 items"]) == "900-1,200 of 2,000 items"
    assert pattern("mmlu_5 has 3 items") == "mmlu_5 has # items"
    assert pattern("'A' to 9% of x") != pattern("'B' to 9% of x")


def test_runs_of_numbers_are_joined():
    assert runs([3, 1, 2, 5]) == "1-3, 5"
    assert runs([4]) == "4"


def test_a_warning_of_all_rows_is_said_once_and_each_row_points_to_it(toy):
    cells = [toy.base(), toy.checkpoint("npo"), toy.checkpoint("rmu"), toy.checkpoint("adap", mmlu=0.1)]
    said = [replace(cell, warnings=(f"made with {40 + k}0 threads",)) for k, cell in enumerate(cells)]
    text = (
        build_board(toy.spec(), said)
        .to_markdown()
        .split("## tiny · knowledge (points, not methods)")[1]
        .split("\n## ")[0]
    )
    assert text.count("threads") == 1
    assert "(1-4) made with 400-430 threads." in text
    for number in range(1, 5):
        assert f"({number}) " in text.split("\n\n")[1]
    own = next(line for line in text.splitlines() if line.startswith("- ") and "`adap`" in line)
    assert "threads" not in own


def test_a_warning_of_one_row_stays_with_its_name(toy):
    cells = [toy.base(), replace(toy.checkpoint("rmu"), warnings=("resumed once",))]
    assert "`rmu`: resumed once." in build_board(toy.spec(), cells).to_markdown()
