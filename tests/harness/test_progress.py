"""Progress off a terminal: a line every few seconds that says what is done, running, left, and for how long."""

from __future__ import annotations

import io

from rich.console import Console
from unlearn_bench.harness.runner import EVERY, Display, ProgressLines
from unlearn_bench.harness.runtime import Event


def test_a_line_comes_every_few_seconds_and_never_more_often() -> None:
    now, said = [0.0], io.StringIO()
    answers = {"npo#0": 1, "blur#0": 1}
    lines = ProgressLines(4, list(answers), answers, Console(file=said), lambda: now[0])
    lines.cell("base")
    lines.cell("rmu#0")
    assert said.getvalue() == "", "what the store had takes no time"
    for second in range(1, 11):
        now[0] = float(second)
        lines.event(Event("npo#0", "train", second, 10))
    lines.event(Event("blur#0", "train", 1, 10))
    now[0] = 19.0
    lines.event(Event("blur#0", "train", 10, 10))
    now[0] = 24.0
    lines.event(Event("npo#0", "wmdp", 0, 60))
    now[0] = 27.0
    lines.event(Event("npo#0", "wmdp", 60, 60))
    lines.cell("npo#0")
    now[0] = 30.0
    lines.event(Event("blur#0", "wmdp", 1, 60))
    first, second, third, fourth, fifth = said.getvalue().splitlines()
    assert first == "2 of 4 cells done, 1 running (npo#0: train 5/10), 2 to go"
    assert second == "2 of 4 cells done, 0 running, 2 to go, at least 0:00:10 left"
    assert third == "2 of 4 cells done, 0 running, 2 to go", "no training is left, and no answers are known yet"
    assert fourth.startswith("2 of 4 cells done, 1 running (npo#0: wmdp 0/60), 2 to go")
    assert fifth == "3 of 4 cells done, 1 running (blur#0: wmdp 1/60), 1 to go, about 0:00:04 left"
    assert EVERY <= 5


def test_a_terminal_gets_bars_a_file_gets_lines_and_quiet_nothing() -> None:
    assert Display(3, [], {"base": 3}, Console(file=io.StringIO(), force_terminal=True)).lines is None
    quiet = io.StringIO()
    with Display(3, [], {"base": 3}, Console(file=quiet, quiet=True)) as display:
        assert display.lines is not None
        display.lines.said = -60.0
        display.cell("base")
    assert quiet.getvalue() == ""
