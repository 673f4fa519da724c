"""Whatever stands in a suite file or a store's file, the answer is a spec or a message, never a traceback."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.maintenance.verify import verify
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.planning.plan import Plan
from unlearn_bench.harness.planning.request import Request
from unlearn_bench.harness.store.entries import Store
from unlearn_bench.harness.store.files import (
    FileDigests,
    folder_digest,
    read_json,
    read_jsonl,
    read_sealed,
    write_sealed,
)
from unlearn_bench.harness.suite import SuiteSpec, load_suite

LOOSE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
JUNK = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12)
VALUES = st.recursive(JUNK, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner))

TRIED: Counter[str] = Counter()
REFUSED: Counter[str] = Counter()


@pytest.fixture(scope="module", autouse=True)
def told() -> Iterator[None]:
    """Say at the end how many inputs were tried."""
    yield
    kinds = ", ".join(f"{count} {what}" for what, count in TRIED.items())
    print(f"\n{TRIED.total()} inputs ({kinds}): {REFUSED.total()} answered by a message, no traceback")


@contextmanager
def tried(what: str) -> Iterator[None]:
    """Count an input, and whether a message answers it; anything else that it raises fails the test."""
    TRIED[what] += 1
    try:
        yield
    except UserError:
        REFUSED[what] += 1


def places(value: Any, at: tuple = ()) -> list[tuple]:
    """Return the paths of all values inside a value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, each in inside for place in places(each, (*at, key)))]


def changed(value: Any, place: tuple, junk: Any) -> Any:
    """Return a value with junk at a place."""
    if not place:
        return junk
    key, rest = place[0], place[1:]
    if isinstance(value, dict):
        return {**value, key: changed(value[key], rest, junk)}
    return [changed(each, rest, junk) if number == key else each for number, each in enumerate(value)]


@pytest.fixture(scope="module")
def micro(root: Path) -> dict:
    return yaml.safe_load((root / "harness" / "suites" / "micro" / "suite.yaml").read_text(encoding="utf-8"))


@LOOSE
@given(data=st.data())
def test_a_suite_with_junk_in_it_is_a_suite_or_a_message(micro: dict, tmp_path: Path, data: st.DataObject) -> None:
    file = tmp_path / "suite.yaml"
    junk = data.draw(VALUES)
    file.write_text(yaml.safe_dump(changed(micro, data.draw(st.sampled_from(places(micro))), junk)), encoding="utf-8")
    with tried("suites"):
        assert isinstance(load_suite(str(file)), SuiteSpec)


@LOOSE
@given(content=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_in_place_of_a_file_are_a_message(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "suite.yaml"
    file.write_bytes(content)
    for read in (load_suite, *(lambda name, read=read: read(Path(name)) for read in (read_json, read_jsonl))):
        with tried("files of any bytes"):
            read(str(file))
    with pytest.raises(UserError, match="damaged"):
        read_sealed(file)
    (tmp_path / "model.json").write_text("{}")
    assert folder_digest(tmp_path, ["model.json"], FileDigests(file)) == folder_digest(tmp_path, ["model.json"])


@pytest.fixture(scope="module")
def planned(tmp_path_factory) -> tuple[Store, dict]:
    store = Store.create(tmp_path_factory.mktemp("planned"))
    make_plan(Request(methods=("rmu",), limit=8), None).save(store)
    return store, read_sealed(store.root / "plans" / "micro.json")


@LOOSE
@given(data=st.data())
def test_a_plan_with_junk_in_it_is_a_plan_or_a_message(planned: tuple[Store, dict], data: st.DataObject) -> None:
    store, values = planned
    junk = changed(values, data.draw(st.sampled_from([place for place in places(values) if place])), data.draw(VALUES))
    write_sealed(store.root / "plans" / "micro.json", junk)
    with tried("plans"):
        assert isinstance(Plan.load(store), Plan)


@LOOSE
@given(data=st.data())
def test_a_manifest_with_junk_in_it_is_named(tmp_path: Path, data: st.DataObject) -> None:
    store = Store.create(tmp_path)
    entry = store.entry("records", "abc")
    entry.commit({"records.jsonl": lambda path: path.write_text("")}, {"record": {}})
    values = read_sealed(entry.file("manifest.json"))
    junk = changed(values, data.draw(st.sampled_from([place for place in places(values) if place])), data.draw(VALUES))
    write_sealed(entry.file("manifest.json"), junk)
    with tried("manifests, each named by `verify`"):
        assert [each.what for each in verify(store).damaged] == ["records/abc"]
