"""A board as LaTeX: what a paper includes, and that no name does anything in it."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from unlearn_bench.leaderboards.board import Board, build_board, load_board
from unlearn_bench.leaderboards.text.latex import PACKAGES, ROWS, escape, number, words
from unlearn_bench.leaderboards.text.table import Table, Value
from unlearn_bench.leaderboards.text.tables import main_table

HOSTILE = '\\input{x} a_b&c#d%e$f^g~h <i> "j" `k` l|m --- ,, 中 \u202e\x00 Üÿ 𝔸\nn'


@pytest.fixture(scope="module")
def board(toy) -> Board:
    cells = [
        toy.base(),
        *toy.noised(toy.checkpoint("rmu[alpha=0.5,x_y=1]", wmdp=0.3)),
        toy.checkpoint("[%]&_", wmdp=0.5),
        toy.checkpoint("probe", track="toxicity", status="failed", failure="NaN"),
    ]
    return build_board(toy.spec(), cells)


def test_every_model_and_track_has_its_two_tables_with_the_verdict(board: Board) -> None:
    text = board.to_latex()
    assert all(f"% {package}\n" in text for package in PACKAGES)
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 4
    assert re.findall(r"\\label\{(.*?)\}", text) == [
        "tab:toy-tiny-knowledge",
        "tab:toy-tiny-knowledge-metrics",
        "tab:toy-tiny-toxicity",
        "tab:toy-tiny-toxicity-metrics",
    ]
    assert all(words(verdict["sentence"]) in text for verdict in board.verdicts)
    assert r"\textit{\texttt{base}}" in text
    assert r"\texttt{rmu[alpha=0.5,x\_y=1]} & 0." in text
    assert r"\texttt{[\%]\&\_}" in text
    assert r"forget: wmdp $\downarrow$ & retain: mmlu $\uparrow$ & n & missing & seeds" in text
    assert " & failed & " in text


def test_all_of_a_markdown_row_stands_in_the_latex_row(board: Board) -> None:
    rows = [row for row in board.rows if row["track"] == "knowledge"]
    lines = board.to_latex().split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    for row, line in zip(main_table(rows).rows, lines, strict=True):
        assert [number(value.text, strong=value.strong) for value in row if value.numeric] == [
            cell for place, cell in enumerate(line.removesuffix(r" \\").split(" & ")) if place != 1
        ]


def test_rows_that_may_be_first_are_bold_together_and_intervals_are_small(board: Board) -> None:
    ranked = {row["variant"]: row for row in board.rows if row["rank"] and row["track"] == "knowledge"}
    lines = board.to_latex().split(r"\midrule")[1].splitlines()
    bold = {row["variant"] for row in ranked.values() if row["rank"]["low"] == 1}
    assert 0 < len(bold) == sum(r"\textbf{0." in line for line in lines) < len(board.rows)
    assert number("0.41 [0.30, -0.45]", strong=True) == r"\textbf{0.41} {\scriptsize [0.30, $-$0.45]}"
    assert number("1-3") == "1--3"


def test_a_text_does_nothing_but_show() -> None:
    shown = escape(HOSTILE)
    assert r"a\_b\&c\#d\%e\$f\textasciicircum{}g\textasciitilde{}h \textless{}i\textgreater{}" in shown
    assert r"\textbackslash{}input\{x\}" in shown
    assert "-{}-{}-" in shown
    assert ",{}," in shown
    assert "[U+4E2D]" in shown
    assert "[U+202E][U+0000]" in shown
    assert "Üÿ" in shown
    assert "\n" not in shown
    assert escape("1 − 2 × Δ · …") == r"1 $-$ 2 $\times$ $\Delta$ $\cdot$ \dots{}"


def test_numbers_have_minus_signs_and_ranges_dashes() -> None:
    assert number("-0.031 [-0.070, +0.1]") == r"$-$0.031 {\scriptsize [$-$0.070, +0.1]}"
    assert number("1-3") == "1--3"
    assert number("–") == r"\textendash{}"


def test_marks_of_our_own_words_are_set_and_what_they_hold_is_text() -> None:
    assert words("**Be_st.** `a_b{` wins 5%") == r"\textbf{Be\_st.} \texttt{a\_b\{} wins 5\%"


def test_many_rows_become_several_floats_and_long_names_are_cut() -> None:
    names = [Value("x" * 300, code=True), *(Value(f"m{place}", code=True) for place in range(ROWS))]
    text = Table.of("All.", ("method",), [(name,) for name in names]).to_latex("a b")
    assert text.count(r"\begin{table}") == 2
    assert text.count(r"\label{tab:a-b}") == 1
    assert r"\caption{All. (continued)}" in text
    assert max(map(len, text.splitlines())) < 100
    assert r"\dots{}" in text


def test_a_row_that_starts_with_a_bracket_is_no_argument() -> None:
    text = Table.of("", ("of",), [("[1cm]",), ("*",)]).to_latex("t")
    assert "\n{}[1cm] \\\\\n{}* \\\\\n" in text


def test_an_empty_board_is_a_comment(toy) -> None:
    text = build_board(toy.spec(suite="a\nb"), []).to_latex()
    assert all(line.startswith("%") for line in text.splitlines())


def test_a_board_that_was_read_back_is_the_same(board: Board, tmp_path: Path) -> None:
    (tmp_path / "board.json").write_text(board.to_json(), encoding="utf-8")
    assert load_board(tmp_path / "board.json").to_latex() == board.to_latex()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_pdflatex_takes_it(board: Board, tmp_path: Path) -> None:
    table = main_table([row for row in board.rows if row["track"] == "knowledge"])
    hostile = replace(
        table, caption=HOSTILE, rows=[[*row[:1], Value(HOSTILE, code=True), *row[2:]] for row in table.rows]
    )
    parts = (r"\documentclass{article}", *PACKAGES, r"\begin{document}", board.to_latex(), hostile.to_latex("h"))
    (tmp_path / "a.tex").write_text("\n".join([*parts, r"\end{document}"]), encoding="utf-8")
    command = ("pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "a.tex")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in (tmp_path / "a.log").read_text(encoding="utf-8", errors="replace")
