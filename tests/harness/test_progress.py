"""Progress off a terminal: a line every few seconds that says what is done, running, left, and for how long."""

from __future__ import annotations

import io

from rich.console import Console
from unlearn_bench.harness.runner import EVERY, Display, ProgressLines
from unlearn_bench.harness.runtime import Event


def test_a_line_comes_every_few_seconds_and_never_more_often() -> None:
    now, said = [0.0], io.StringIO()
    lines = ProgressLines(6, 4, Console(file=said), lambda: now[0])
    lines.cell("base")
    lines.cell("rmu#0")
    assert said.getvalue() == "", "what the store had takes no time"
    for second in range(1, 11):
        now[0] = float(second)
        lines.event(Event("npo#0", "training", second, 20))
        lines.event(Event("blur#0", "wmdp", 8, 8))
    now[0] = 20.0
    lines.cell("npo#0")
    first, second, third = said.getvalue().splitlines()
    assert first == "2 of 6 cells done, 1 running (npo#0: training 5/20), 4 to go"
    assert second.startswith("2 of 6 cells done")
    assert third == "3 of 6 cells done, 0 running, 3 to go, about 0:01:00 left"
    assert EVERY <= 5


def test_a_terminal_gets_bars_a_file_gets_lines_and_quiet_nothing() -> None:
    assert Display(3, 3, Console(file=io.StringIO(), force_terminal=True)).lines is None
    quiet = io.StringIO()
    with Display(3, 3, Console(file=quiet, quiet=True)) as display:
        assert display.lines is not None
        display.lines.said = -60.0
        display.cell("base")
    assert quiet.getvalue() == ""
