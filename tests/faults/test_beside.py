"""Several processes on one store do each thing once, and one that dies or breaks does not stop the others."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from unlearn_bench.harness.errors import EntryLocked
from unlearn_bench.harness.maintenance.verify import verify
from unlearn_bench.harness.store.entries import Store


def sound(store: Path) -> None:
    found = verify(Store.open(store))
    assert (found.damaged, found.lacking, found.unneeded) == ([], [], 0)


def test_four_processes_share_the_work_and_do_nothing_twice(warm, tmp_path: Path) -> None:
    store, alone = tmp_path / "store", tmp_path / "alone"
    assert warm.run(alone, count=True) == 0
    assert warm.together(store, beside=3, count=True) == [0, 0, 0, 0], warm.said(store)
    (once,) = warm.calls(alone)
    made = [calls.get("entries", 0) for calls in warm.calls(store)]
    assert sum(made) == once["entries"] > 10
    print(f"4 processes made {' + '.join(map(str, made))} of {once['entries']} entries, each once")
    assert warm.boards(store) == warm.boards(warm.calm)
    assert not list(store.rglob(".lock"))
    sound(store)


def test_those_beside_a_killed_process_finish_its_work(warm, tmp_path: Path) -> None:
    store = tmp_path / "store"
    statuses = warm.together(store, beside=1, primitive="any", at=30, how="KILL")
    assert statuses == [-signal.SIGKILL, 0], warm.said(store)
    assert warm.boards(store) == warm.boards(warm.calm)
    sound(store)


def test_a_plugin_that_ends_its_process_costs_nothing_finished(warm, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert warm.run(store, methods=["rmu", "vanishes"]) == 77
    kept = {path: path.stat().st_mtime_ns for path in store.rglob("manifest.json")}
    assert kept
    assert any(each.name == "micro knowledge/vanishes#0" for each in verify(Store.open(store)).lacking)
    assert warm.run(store) == 0, warm.said(store)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "nothing finished was done again"
    assert warm.boards(store) == warm.boards(warm.calm)


def test_who_does_not_wait_is_told_and_who_waits_gets_it(tmp_path: Path) -> None:
    entry = Store.create(tmp_path).entry("records", "abc")

    def wait() -> bool:
        with entry.claim():
            return entry.manifest() is not None

    with ThreadPoolExecutor(1) as pool:
        with entry.claim():
            with (
                pytest.raises(EntryLocked, match="records/abc is in the work of another process"),
                entry.claim(wait=False),
            ):
                pass
            waiting = pool.submit(wait)
            entry.commit({}, {})
        assert waiting.result(), "it gets the entry when it is finished"
    with entry.claim(wait=False):
        assert entry.file(".lock").exists()
    assert not entry.file(".lock").exists()
