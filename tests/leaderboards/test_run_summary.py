"""What `evaluate` says last: a verdict a track, what was done at which cost, and where it lies, in at most 15 lines."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from unlearn_bench.harness.results.summary import RunSummary, verdict_lines
from unlearn_bench.leaderboards.board import build_board

SUMMARY = RunSummary(
    suite="toy, revision 3",
    verdicts=("knowledge: none of 3 above base and noise with utility kept",),
    cells=9,
    finished=6,
    stored=4,
    failed=2,
    warnings=5,
    seconds=83.4,
    core_seconds=1234.5,
    board=Path("out/leaderboards/toy.md"),
    report=Path("out/reports/toy.html"),
    no_report=None,
    store=Path("out"),
)


@pytest.fixture(scope="module")
def wide(toy):
    """Forty methods on each of three models, every second of which failed on one of them."""
    cells = [toy.base(model=model) for model in ("a", "b", "c")]
    cells += [
        toy.checkpoint(f"a_method_with_a_long_name_{number}", track=track, model=model, seed=0, **fate)
        for model in ("a", "b", "c")
        for track in ("knowledge", "toxicity")
        for number in range(40)
        for fate in [{"status": "failed", "failure": "x"} if model == "a" and number % 2 else {}]
    ]
    return build_board(toy.spec(resamples=60), cells)


def test_a_summary_has_at_most_15_lines_of_the_width_of_a_page(wide) -> None:
    lines = replace(SUMMARY, verdicts=verdict_lines(wide), failed=60).to_text().splitlines()
    assert len(verdict_lines(wide)) > 6
    assert len(lines) <= 15
    assert max(map(len, lines)) <= 120
    assert any(line.startswith("  … and ") for line in replace(SUMMARY, verdicts=("x",) * 99).to_text().splitlines())
    assert len(replace(SUMMARY, verdicts=("x",) * 99).to_text().splitlines()) <= 15


def test_it_says_what_was_done_at_which_cost_and_where_it_lies() -> None:
    text = SUMMARY.to_text()
    assert "6 of 9 finished, 4 of them before this run; 2 failed" in text
    assert "1 not finished" in text
    assert "Took 0:01:23, 1,234 core-seconds; 5 warnings" in text
    assert "core-seconds" not in replace(SUMMARY, core_seconds=None).to_text()
    assert "out/leaderboards/toy.md and .json; `unlearn-bench leaderboard --output out` prints it" in text
    assert "Report: out/reports/toy.html" in text
    assert "No report: no space" in replace(SUMMARY, report=None, no_report="no space").to_text()
    assert json.loads(SUMMARY.to_json())["core_seconds"] == 1234.5


def test_a_table_of_one_seed_speaks_of_points_and_names_who_lies_above_base(toy) -> None:
    good = {"wmdp": 0.3, "mmlu": 0.7}
    cells = [toy.base(), *toy.noised(toy.checkpoint("rmu", **good)), *toy.noised(toy.checkpoint("npo"))]
    (line, *_) = verdict_lines(build_board(toy.spec(), cells))
    assert line == "knowledge: points, not methods: not replicated; rmu above base and noise with utility kept"
    (line, *_) = verdict_lines(build_board(toy.spec(), [toy.base(), *toy.seeded("rmu", **good)]))
    assert line == "knowledge: rmu above base and noise with utility kept"
    (line, *_) = verdict_lines(build_board(toy.spec(), [toy.base(), *toy.seeded("npo")]))
    assert line == "knowledge: none of 1 above base and noise with utility kept"
    (line, *_) = verdict_lines(build_board(toy.spec(), [toy.base(mmlu=0.25), *toy.seeded("npo")]))
    assert line == "knowledge: not judged: base is at chance"
