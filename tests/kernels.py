"""Whether a verdict is that of this machine: one run under the kernels of three kinds of processors, side by side.

`python tests/kernels.py --methods all` trains and measures three times, each in processes and a store of its own below
`build/kernels`, and prints what the verdict says of each row under each setting. Whatever stands behind it goes to
`unlearn-bench evaluate`. Exit status 1: a row that no board marks unstable has not the same words everywhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tabulate import tabulate
from unlearn_bench.leaderboards.board import Board, load_board
from unlearn_bench.leaderboards.rows.sentences import pattern

SETTINGS: dict[str, str | None] = {"default": "default", "avx2": "avx2", "own": None}
"""Of `ATEN_CPU_CAPABILITY`; None: what this machine has."""
STORES = Path("build/kernels")
Key = tuple[str, str, str]
"""Model, track and row."""


def words(board: Board) -> dict[Key, str]:
    """Return what the verdicts of a board say of each ranked row, without amounts."""
    said: dict[Key, str] = {}
    for verdict in board.verdicts:
        where = verdict["model"], verdict["track"]
        said |= {(*where, name): "beats base and noise, utility kept" for name in verdict["winners"]}
        said |= {(*where, name): "above base and noise, utility kept, not replicated" for name in verdict["leads"]}
        said |= {(*where, name): pattern(reason) for name, reason in verdict["others"].items()}
    return said


def unstable(boards: Sequence[Board]) -> set[Key]:
    """Return the rows that one of the boards marks as those of which another run may say otherwise."""
    rows = (row for board in boards for row in board.rows)
    return {(row["model"], row["track"], row["variant"]) for row in rows if row["unstable"] is not None}


def table(boards: Mapping[str, Board]) -> list[dict[str, str]]:
    """Return a line a row: what is said of it under each setting, and whether that is the same."""
    said, excused = {name: words(board) for name, board in boards.items()}, unstable(list(boards.values()))
    lines = []
    for key in dict.fromkeys(key for each in said.values() for key in each):
        each = {name: by_row.get(key, "no such row") for name, by_row in said.items()}
        same = "yes" if len(set(each.values())) == 1 else "unstable" if key in excused else "NO"
        lines.append({"track": key[1], "row": key[2], **each, "same": same})
    return lines


def runs(options: Sequence[str], stores: Path) -> Iterator[tuple[str, Board]]:
    """Run `evaluate` under each setting and give its board."""
    for name, capability in SETTINGS.items():
        environment = {key: value for key, value in os.environ.items() if key != "ATEN_CPU_CAPABILITY"}
        environment |= {} if capability is None else {"ATEN_CPU_CAPABILITY": capability}
        command = Path(sys.executable).with_name("unlearn-bench")
        line = [str(command), "evaluate", *options, "--output", str(stores / name)]
        subprocess.run(line, env=environment, check=True, stdout=subprocess.DEVNULL)
        yield name, load_board(next((stores / name / "leaderboards").glob("*.json")))


def main(options: Sequence[str], stores: Path = STORES) -> int:
    """Run, print the table and return the exit status."""
    lines = table(dict(runs(options, stores)))
    print(tabulate(lines, headers="keys", maxcolwidths=[None, None, 30, 30, 30, None]))
    return int(any(line["same"] == "NO" for line in lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
