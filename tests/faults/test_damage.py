"""A file of a store that is damaged, gone or out of reach is named and made again; no number of a board is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.maintenance.verify import verify
from unlearn_bench.harness.planning.plan import Plan
from unlearn_bench.harness.results.board import board_of
from unlearn_bench.harness.store.entries import Store

OURS = (
    "cells/*/manifest.json",
    "cells/*/delta.safetensors",
    "cells/*/training.jsonl",
    "outcomes/*/manifest.json",
    "outcomes/*/outcomes.jsonl",
    "records/*/manifest.json",
    "records/*/records.jsonl",
)
"""What numbers are made of."""
DERIVED = ("plans/micro.json", "leaderboards/micro.json", "leaderboards/micro.md")
"""What every run writes anew."""
REFUSED = ("store.json", "digests.json")
"""What a run may refuse, until it is removed as the message says."""


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flipped(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)


def closed(file: Path) -> None:
    file.chmod(0)


def gone(file: Path) -> None:
    file.unlink()


HARMS = (cut, flipped, closed, gone)


@pytest.fixture
def copies(warm, tmp_path: Path) -> Iterator[Path]:
    """Copies of the undisturbed store, each in a folder of its own, as files are known by name and time."""
    yield (Path(shutil.copytree(warm.calm, tmp_path / f"store{number}")) for number in count())
    for path in tmp_path.rglob("*"):
        path.chmod(0o755)


def values(board: str | bytes) -> dict[str, list[float | None]]:
    """Return by row S, both metrics, S of its noise, and what the control tasks gave."""
    parts = ("s_unlearning", "forget", "retain", "noise")
    return {
        row["variant"]: [(value or {}).get("value") for value in (*map(row.get, parts), *row["controls"])]
        for row in json.loads(board)["rows"]
    }


def look(root: Path) -> tuple[set[str], bool, dict[str, list[float | None]]]:
    """Return what `verify` or a message names as damaged, whether anything lacks, and the numbers of the board."""
    try:
        store = Store.open(root)
        found = verify(store)
        named, lacks = {each.what for each in found.damaged}, bool(found.lacking)
        return named, lacks, values(board_of(Plan.load(store), store).to_json()) if found.plans else {}
    except UserError as error:
        return {str(error)}, False, {}


def hurt(warm, copies, bound, pattern: str, harm: Callable[[Path], None]) -> None:
    """Harm a file: it is named, the board has no wrong number, and the next run makes it again."""
    store = next(copies)
    file = sorted(store.glob(pattern))[0]
    place = file.relative_to(store).as_posix()
    harm(file)
    with bound():
        named, lacks, numbers = look(store)
    undisturbed = values(warm.boards(warm.calm)[0])
    for variant, row in numbers.items():
        assert all(new in (None, old) for new, old in zip(row, undisturbed[variant], strict=True)), "a wrong number"
    if pattern in OURS:
        assert place.rpartition("/")[0] in named or harm is gone
        assert lacks
        assert numbers != undisturbed, "what is damaged is missing on the board"
    elif pattern == "store.json":
        assert str(file) in named.pop() or harm is gone
    elif pattern in DERIVED and harm is not gone:
        assert place in named
    status = warm.run(store, bound=True)
    if status:
        assert place in REFUSED
        assert status == 2
        assert f"{file} is damaged" in warm.said(store) or f"{file} cannot be opened" in warm.said(store)
        file.unlink()
        assert warm.run(store, bound=True) == 0, warm.said(store)
    assert warm.boards(store) == warm.boards(warm.calm)
    assert look(store) == (set(), False, undisturbed)


def test_a_harmed_file_is_named_and_made_again(warm, copies, bound) -> None:
    for number, pattern in enumerate((*OURS, *DERIVED, *REFUSED)):
        hurt(warm, copies, bound, pattern, HARMS[number % len(HARMS)])


@pytest.mark.slow
def test_a_file_of_each_kind_is_harmed_in_every_way(warm, copies, bound) -> None:
    patterns = (*OURS, *DERIVED, *REFUSED)
    for pattern in patterns:
        for harm in HARMS:
            hurt(warm, copies, bound, pattern, harm)
    ways = ", ".join(harm.__name__ for harm in HARMS)
    print(f"{len(patterns) * len(HARMS)} harmed files ({len(patterns)} kinds; {ways}): each named and made again")


def test_a_store_that_cannot_be_written_is_read_and_left_as_it_is(warm, copies, bound) -> None:
    store = next(copies)
    for path in (store, *store.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    with bound():
        assert look(store) == (set(), False, values(warm.boards(warm.calm)[0]))
    assert warm.run(store, bound=True) == 2
    assert f"Output folder {store} cannot be written (Permission denied)" in warm.said(store)
    assert warm.boards(store) == warm.boards(warm.calm)


@pytest.mark.parametrize("section", ["cells", "outcomes", "records", "plans", "leaderboards"])
def test_a_folder_that_cannot_be_written_is_named_until_it_can(warm, copies, bound, section: str) -> None:
    store = next(copies)
    for path in (store / section).iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (store / section).chmod(0o555)
    assert warm.run(store, bound=True) in (1, 2)
    assert f"{store / section}/" in warm.said(store)
    assert "cannot be written (Permission denied). Make room or give access there" in warm.said(store)
    (store / section).chmod(0o755)
    assert warm.run(store, bound=True) == 0, warm.said(store)
    assert warm.boards(store) == warm.boards(warm.calm)
