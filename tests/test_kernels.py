"""A verdict is not that of one machine: its words are the same under the kernels of other processors."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from unlearn_bench.leaderboards.board import load_board

sys.path.insert(0, str(Path(__file__).resolve().parent))
from kernels import SETTINGS, runs, table, words


def test_rows_are_compared_by_the_words_that_are_said_of_them(root: Path) -> None:
    board = load_board(root / "leaderboards" / "published" / "micro.json")
    [key, *_] = words(board)
    [verdict, *rest] = board.verdicts
    other = replace(board, verdicts=[{**verdict, "leads": [], "winners": [], "others": {key[2]: "lost 5%"}}, *rest])
    assert {line["same"] for line in table({"a": board, "b": board})} == {"yes"}
    assert table({"a": board, "b": other})[0]["same"] == "NO"
    rows = [{**row, "unstable": "so and so"} for row in board.rows]
    assert table({"a": board, "b": replace(other, rows=rows)})[0]["same"] == "unstable"
    amounts = replace(other, verdicts=[{**other.verdicts[0], "others": {key[2]: "lost 7%"}}])
    assert table({"a": replace(other, verdicts=other.verdicts[:1]), "b": amounts})[0]["same"] == "yes"


@pytest.mark.slow
def test_the_words_of_a_verdict_are_those_of_other_kernels(cli, tmp_path: Path) -> None:
    small = ["--methods", "rmu,simnpo,grad_diff", "--tracks", "knowledge", "--tasks", "wmdp,mmlu", "--limit", "120"]
    lines = table(dict(runs(small, tmp_path)))
    assert [line["row"] for line in lines if line["same"] == "NO"] == [], lines
    stores = [str(tmp_path / name) for name in list(SETTINGS)[:2]]
    compared = cli("compare", *stores)
    assert "recorded capability" in compared.stdout, "two runs that differ by their kernels name these"
