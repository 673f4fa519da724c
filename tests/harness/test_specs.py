"""Specs and identity: every field is of a kind, and digests read identity fields only."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.specs import Kind, Spec, canonical, digest, identity, recorded, runtime
from unlearn_bench.harness.store.identity import CellSpec

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def every_spec() -> list[type[Spec]]:
    """Return every spec class of the project, plugins of the running environment included."""
    for package in ("harness", "methods", "tasks", "tasks.scorers", "harness.engines", "harness.transforms"):
        home = importlib.import_module(f"unlearn_bench.{package}")
        for module in pkgutil.iter_modules(home.__path__):
            importlib.import_module(f"unlearn_bench.{package}.{module.name}")
    found, queue = [], [Spec]
    while queue:
        children = [child for child in queue.pop().__subclasses__() if child.__module__.startswith("unlearn_bench")]
        found += children
        queue += children
    return found


def test_every_field_of_every_spec_says_what_it_is_for() -> None:
    specs = every_spec()
    assert len(specs) > 12
    for spec in specs:
        for field in spec.model_fields:
            assert spec.kind_of(field) is not None, f"{spec.__name__}.{field} is neither identity, runtime nor recorded"


def test_a_field_without_a_kind_is_found() -> None:
    class Forgetful(Spec):
        kept: int = identity(1)
        lost: int = 2

    assert Forgetful.kind_of("lost") is None
    assert Forgetful.kind_of("kept") is Kind.IDENTITY


def test_a_late_field_is_left_out_of_an_identity_while_it_has_its_default() -> None:
    class Inner(Spec):
        size: int = identity(1)
        late: dict[str, int] = identity({}, late=True)

    class Outer(Spec):
        inner: Inner = identity(Inner())

    assert Outer().identity() == {"inner": {"size": 1}}
    assert Outer(inner=Inner(late={"a": 1})).identity() == {"inner": {"size": 1, "late": {"a": 1}}}


def test_runtime_and_recorded_fields_do_not_change_an_identity() -> None:
    class Thing(Spec):
        size: int = identity()
        place: str = runtime("here")
        threads: int = recorded(1)

    assert Thing(size=1).identity() == Thing(size=1, place="there", threads=8).identity() == {"size": 1}
    assert Thing(size=1).identity() != Thing(size=2).identity()


@given(st.dictionaries(st.text(), JSON, max_size=6))
def test_a_digest_does_not_depend_on_the_order_of_keys(value: dict[str, Any]) -> None:
    backwards = dict(reversed(list(value.items())))
    assert digest(value) == digest(backwards)
    assert canonical(value) == canonical(backwards)


@given(JSON, JSON)
def test_different_values_have_different_digests(one: Any, other: Any) -> None:
    assert (digest(one) == digest(other)) == (canonical(one) == canonical(other))


def cell(**changes: Any) -> CellSpec:
    values = {"model": "m", "transform": "train", "track": "knowledge", "seed": 0, "method": "rmu", "variant": "rmu"}
    return CellSpec(**{**values, **changes})


@pytest.mark.parametrize(
    "change",
    [
        {"model": "n"},
        {"track": "toxicity"},
        {"seed": 1},
        {"settings": {"version": 2}},
        {"parents": ("a",)},
        {"transform": "noise"},
    ],
)
def test_a_cell_id_changes_with_everything_that_it_depends_on(change: dict[str, Any]) -> None:
    assert cell(**change).id != cell().id


def test_a_cell_id_does_not_depend_on_the_name_on_the_board() -> None:
    assert cell(variant="rmu[layer=7]").id == cell().id


def test_an_unknown_key_is_refused_with_the_nearest_known_one() -> None:
    class Settings(Spec):
        alpha: float = identity(1.0)
        layer: int = identity(7)

    with pytest.raises(UserError, match=r"unknown key 'alhpa'.*'alpha'"):
        Settings.parse({"alhpa": 3}, "rmu")
    with pytest.raises(UserError, match=r"rmu: layer: .*got 'seven'"):
        Settings.parse({"layer": "seven"}, "rmu")
