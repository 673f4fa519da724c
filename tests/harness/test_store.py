"""The store: finished means id and manifest; what does not match its manifest is made again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.planning.plan import Plan
from unlearn_bench.harness.store.entries import Entry, Store
from unlearn_bench.harness.store.files import (
    FileDigests,
    atomic,
    folder_digest,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
)


def committed(store: Store, text: bytes = b"line\n") -> Entry:
    entry = store.entry("records", "abc")
    entry.commit({"records.jsonl": lambda path: path.write_bytes(text)}, {"note": 1})
    return entry


def test_a_committed_entry_is_finished_and_keeps_its_facts(tmp_path: Path) -> None:
    entry = committed(Store.create(tmp_path))
    manifest = entry.manifest()
    assert manifest is not None
    assert manifest["note"] == 1
    assert manifest["files"]["records.jsonl"]["bytes"] == 5


def test_existence_is_not_completeness(tmp_path: Path) -> None:
    entry = Store.create(tmp_path).entry("records", "abc")
    entry.path.mkdir(parents=True)
    entry.file("records.jsonl").write_text("line\n")
    assert entry.manifest() is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.binary(min_size=1, max_size=60), st.data())
def test_any_flipped_bit_or_cut_tail_unfinishes_an_entry(tmp_path: Path, content: bytes, data: st.DataObject) -> None:
    entry = committed(Store.create(tmp_path), content)
    path = entry.file("records.jsonl")
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(content) - 1))
        path.write_bytes(
            content[:place] + bytes([content[place] ^ (1 << data.draw(st.integers(0, 7)))]) + content[place + 1 :]
        )
    else:
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    assert entry.manifest() is None


def test_a_damaged_manifest_is_no_manifest(tmp_path: Path) -> None:
    entry = committed(Store.create(tmp_path))
    for text in ("", "{", "[]", '{"schema": 1}', '{"schema": 2, "files": {}}'):
        entry.file("manifest.json").write_text(text)
        assert entry.manifest() is None


def test_a_failure_is_kept_until_the_entry_is_finished(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    store.entry("records", "abc").fail("out of memory", "trace")
    assert store.entry("records", "abc").failure() == "out of memory"
    assert committed(store).failure() is None


def test_a_writer_that_fails_leaves_no_file_and_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "file.json"
    write_json(target, 1)
    with pytest.raises(TypeError), atomic(target) as temporary:
        temporary.write_text(None)
    assert read_json(target) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]


INTEGERS = st.integers(-(2**63), 2**64 - 1)


@given(rows=st.lists(st.dictionaries(st.text(), st.text() | INTEGERS | st.none(), max_size=3), max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_json_lines_come_back_as_they_were(tmp_path: Path, rows: list[dict]) -> None:
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert read_jsonl(tmp_path / "rows.jsonl") == rows


def test_opening_what_is_no_store_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no store of unlearn-bench; run"):
        Store.open(tmp_path)
    write_json(tmp_path / "store.json", {"schema": 99})
    with pytest.raises(UserError, match="schema 99"):
        Store.open(tmp_path)


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Store.create(tmp_path / "file" / "inside")


def test_a_folder_digest_follows_content_through_its_cache(tmp_path: Path) -> None:
    folder, cache = tmp_path / "model", FileDigests(tmp_path / "digests.json")
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    first = folder_digest(folder, ["*.json"], cache)
    assert folder_digest(folder, ["*.json"], cache) == first
    (folder / "config.json").write_text("[]")
    os.utime(folder / "config.json", ns=(1, 1))
    assert folder_digest(folder, ["*.json"], cache) != first
    with pytest.raises(UserError, match="holds none of"):
        folder_digest(folder, ["*.safetensors"])


def test_a_plan_of_another_version_is_not_read_but_said(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    write_json(tmp_path / "plans" / "micro.json", {"schema_version": 1, "scorer": None})
    with pytest.raises(UserError, match="another version of unlearn-bench: run the same"):
        Plan.load(store)
