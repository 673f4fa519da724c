"""A store is checked, cleaned and merged: what is damaged is named and made again, never a wrong number."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unlearn_bench.harness import Request, evaluate
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.maintenance.garbage import collect, garbage
from unlearn_bench.harness.maintenance.merge import merge
from unlearn_bench.harness.maintenance.verify import verify
from unlearn_bench.harness.planning.plan import Plan
from unlearn_bench.harness.planning.status import status_of
from unlearn_bench.harness.results.board import board_of
from unlearn_bench.harness.store.entries import SECTIONS, Entry, Store
from unlearn_bench.harness.store.files import read_sealed, write_sealed

QUICK = {"methods": ("rmu",), "tracks": ("knowledge",), "limit": 8, "settings": ("training.steps=3",)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A finished store; never written to."""
    path = tmp_path_factory.mktemp("whole") / "store"
    evaluate(Request(**QUICK), output=path, executor="inline")
    return path


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Store:
    return Store.open(Path(shutil.copytree(whole, tmp_path / "store")))


def wrong(store: Store) -> set[str]:
    return {each.what for each in verify(store).damaged}


def finished(store: Store) -> dict[str, list[Path]]:
    return {section: [entry.path for entry in store.entries(section)] for section in SECTIONS}


def test_a_finished_store_is_whole(store: Store) -> None:
    found = verify(store)
    assert not found.damaged
    assert not found.lacking
    assert found.checked == {section: len(paths) for section, paths in finished(store).items()}
    assert found.plans == ["micro"]
    assert "Nothing is damaged, nothing is lacking." in found.to_text()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_or_cut_tail_is_noticed_where_it_is_read(store: Store, data: st.DataObject) -> None:
    files = [file for section in (*SECTIONS, "plans") for file in sorted((store.root / section).rglob("*.*"))]
    file = data.draw(st.sampled_from([*files, store.digests.path]))
    whole = file.read_bytes()
    place, bit = data.draw(st.integers(0, len(whole.rstrip()) - 1)), data.draw(st.integers(0, 7))
    flipped = whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
    file.write_bytes(data.draw(st.sampled_from([flipped, whole[:place]])))
    try:
        if file.parent.parent.name in SECTIONS:
            assert Entry(file.parent).manifest() is None
        elif file.parent.name == "plans":
            with pytest.raises(UserError, match=r"damaged|another version"):
                Plan.load(store)
        else:
            with pytest.raises(UserError, match="damaged"):
                read_sealed(file)
    finally:
        file.write_bytes(whole)


def test_what_is_damaged_is_missing_on_the_board_and_named(store: Store) -> None:
    plan = Plan.load(store)
    record = next(status_of(plan, cell, store).records["wmdp"] for cell in plan.cells if cell.spec.variant == "rmu")
    path = record.file("records.jsonl")
    path.write_text(path.read_text().replace('"acc": 1.0', '"acc": 0.0', 1))
    row = next(row for row in json.loads(board_of(plan, store).to_json())["rows"] if row["variant"] == "rmu")
    assert (row["status"], row["s_unlearning"]) == ("partial", None)
    found = verify(store)
    assert record.name in {each.what for each in found.damaged}
    assert [each.lacks for each in found.lacking] == [["wmdp"]]


def test_what_is_damaged_is_made_again_with_the_same_board(store: Store) -> None:
    board = (store.root / "leaderboards" / "micro.json").read_bytes()
    victims = [paths[0] for paths in finished(store).values()]
    for path in victims:
        target = next(file for file in sorted(path.iterdir()) if file.name != "manifest.json")
        target.write_bytes(target.read_bytes()[:-1])
    (store.root / "digests.json").write_bytes(b"\x00garbage")
    (store.root / "plans" / "micro.json").write_text("[]")
    (store.root / "leaderboards" / "micro.md").write_text("")
    assert wrong(store) >= {f"{path.parent.name}/{path.name}" for path in victims} | {"plans/micro.json"}
    assert not evaluate(Request(**QUICK), output=store.root, executor="inline").failures
    assert not verify(store).damaged
    assert (store.root / "leaderboards" / "micro.json").read_bytes() == board


@pytest.mark.parametrize("cache", ["", "[]", "{", '{"seal": "x"}', "null", "\x00"])
def test_garbage_in_the_cache_of_digests_is_no_digest(store: Store, cache: str) -> None:
    before = Plan.load(store)
    store.digests.path.write_text(cache)
    result = evaluate(Request(**QUICK), output=store.root, executor="inline")
    assert [cell.id for cell in result.plan.cells] == [cell.id for cell in before.cells]


def test_a_digest_that_was_changed_in_the_cache_is_not_believed(store: Store) -> None:
    before = Plan.load(store)
    text = store.digests.path.read_text()
    known = json.loads(text)
    name, [[*_, digest]] = next(item for item in known.items() if item[0] != "seal")
    store.digests.path.write_text(text.replace(digest, "0" * 64))
    assert name
    result = evaluate(Request(**QUICK), output=store.root, executor="inline")
    assert [cell.id for cell in result.plan.cells] == [cell.id for cell in before.cells]


def test_an_entry_under_another_id_is_not_that_entry(store: Store) -> None:
    entry = store.entries("records")[0]
    copied = Entry(Path(shutil.copytree(entry.path, entry.path.with_name("0" * 16))))
    assert copied.manifest() is None
    assert wrong(store) == {copied.name}
    manifest = {**read_sealed(copied.file("manifest.json")), "entry": copied.name}
    write_sealed(copied.file("manifest.json"), manifest)
    assert wrong(store) == {copied.name}, "its spec has another digest"


def test_a_damaged_failure_is_still_a_failure(store: Store) -> None:
    cell = next(cell for cell in Plan.load(store).cells if cell.spec.variant == "rmu")
    entry = store.entry("cells", cell.id)
    shutil.rmtree(entry.path)
    entry.path.mkdir()
    for text in ("[]", "", "{}", "7"):
        entry.file("failure.json").write_text(text)
        found = {each.name: each for each in verify(store).lacking}
        assert found["micro knowledge/rmu#0"].failure == "its failure.json is damaged"


def test_a_store_that_lacks_something_says_what_and_exits_with_1(store: Store, cli) -> None:
    shutil.rmtree(store.entries("records")[0].path)
    done = cli("verify", "--output", store.root)
    assert done.returncode == 1
    assert "Lacking for micro" in done.stdout
    said = json.loads(cli("verify", "--output", store.root, "--json").stdout)
    assert len(said["lacking"]) == 1
    assert [row["what"] for row in said["damaged"]] == ["leaderboards/micro.json", "leaderboards/micro.md"]


def test_gc_takes_what_no_plan_needs_and_nothing_else(store: Store) -> None:
    assert garbage(store).sizes == {}
    kept = finished(store)
    evaluate(Request(**{**QUICK, "methods": ("none",)}), output=store.root, executor="inline")
    (store.root / "records" / ".x.partial").write_text("left by a killed process")
    paths = garbage(store).sizes.keys()
    assert set(kept["cells"]) <= paths
    removed = collect(store).sizes
    assert removed.keys() == paths
    assert all(size > 0 for size in removed.values())
    found = verify(store)
    assert (found.damaged, found.lacking, found.unneeded, found.partial) == ([], [], 0, 0)
    assert store.entries("outcomes")


def test_gc_takes_spent_pieces_and_logs_of_other_plans(store: Store) -> None:
    made = next(entry for entry in store.entries("cells") if entry.manifest() is not None)
    begun = next(entry for entry in store.entries("records"))
    begun.file("manifest.json").unlink()
    logs = store.root / "logs"
    logs.mkdir()
    pieces = [made.file(".training-3.piece"), begun.file(".judged-0.piece")]
    files = [*pieces, *(logs / f"{name}.log" for name in (made.path.name, "feedbeef"))]
    for file in files:
        file.write_text("left")
    assert list(collect(store).sizes) == [files[0], files[3]]
    assert [file.is_file() for file in files] == [False, True, True, False]


def test_gc_removes_nothing_while_another_works_on_the_store(store: Store) -> None:
    (store.root / "plans" / "micro.json").rename(store.root / "plans" / "other.json")
    with store.used(), pytest.raises(UserError, match="Another process works on"):
        collect(store)


def test_gc_without_a_plan_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no plan that says what is needed"):
        garbage(Store.create(tmp_path))


def test_gc_leaves_what_is_in_work(store: Store) -> None:
    busy = store.entry("cells", "feedbeef")
    with busy.claim():
        busy.file("rows.jsonl").write_text("half")
        assert busy.path in garbage(store).sizes
        assert busy.path not in collect(store).sizes
    assert busy.file("rows.jsonl").is_file()


def test_gc_lists_by_default_and_removes_when_told(store: Store, cli) -> None:
    extra = store.entry("cells", "feedbeef")
    extra.commit({"log": lambda path: path.write_bytes(b"12345")}, {})
    said = cli("gc", "--output", store.root)
    assert "cells/feedbeef" in said.stdout
    assert "Nothing is removed yet" in said.stdout
    assert extra.manifest()
    assert cli("gc", "--output", store.root, "--delete", "--dry-run").returncode == 2
    told = json.loads(cli("gc", "--output", store.root, "--delete", "--json").stdout)
    assert told["removed"]
    assert [row["path"] for row in told["found"]] == ["cells/feedbeef"]
    assert not extra.path.exists()


def test_seeds_from_two_stores_merge_into_the_board_of_one_run(whole: Path, tmp_path: Path) -> None:
    other, both, merged = tmp_path / "other", tmp_path / "both", tmp_path / "merged"
    evaluate(Request(**QUICK, seeds=(1,)), output=other, executor="inline")
    said = merge((whole, other), merged)
    assert (said.plans, said.apart) == (["micro"], [])
    store = Store.open(merged)
    assert not verify(store).lacking
    asked = Request(**QUICK, seeds=(0, 1))
    before = finished(store)
    result = evaluate(asked, output=merged, executor="inline")
    assert finished(store) == before, "nothing was done again"
    shutil.copytree(whole, both)
    assert evaluate(asked, output=both, executor="inline").board.to_json() == result.board.to_json()
    assert merge((merged, whole), merged).copied == dict.fromkeys(SECTIONS, 0)


def test_plans_that_ask_different_things_are_not_joined(whole: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    evaluate(Request(**{**QUICK, "limit": 6, "methods": ("none",)}), output=other, executor="inline")
    said = merge((whole, other), tmp_path / "merged")
    assert said.apart == ["micro"]
    assert Store.open(tmp_path / "merged").entries("records")


def test_other_bytes_under_one_id_are_named_and_nothing_is_written(store: Store, whole: Path, tmp_path: Path) -> None:
    entry = store.entries("records")[0]
    kept = read_sealed(entry.file("manifest.json"))
    facts = {key: value for key, value in kept.items() if key not in ("schema", "entry", "files")}
    entry.commit({"records.jsonl": lambda path: path.write_bytes(b"")}, facts)
    with pytest.raises(UserError, match=rf"1 entries have the same id and other contents: {entry.name} in"):
        merge((whole, store.root), tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
