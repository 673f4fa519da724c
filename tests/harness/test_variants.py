"""Which variants a run has: settings and grids, in the names on boards and in what is trained."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from unlearn_bench.harness.cli import main
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.planning.variants import choose_variants
from unlearn_bench.harness.suite import SuiteSpec, VariantSpec, load_suite
from unlearn_bench.leaderboards.board import load_board


@pytest.fixture(scope="module")
def suite() -> SuiteSpec:
    return load_suite("micro")


def chosen(suite: SuiteSpec, grid=(), settings=(), names=("rmu",)) -> dict[str, VariantSpec]:
    return choose_variants(names, settings, suite, ["knowledge"], grid)["knowledge"]


def test_a_grid_is_the_product_of_its_keys_named_as_set_names_them(suite):
    swept = chosen(suite, ["rmu.layer=3,5", "rmu.alpha=1,10.5"])
    assert list(swept) == [f"rmu[alpha={alpha},layer={layer}]" for layer in (3, 5) for alpha in (1, 10.5)]
    one = chosen(suite, settings=["rmu.layer=5", "rmu.alpha=1"])
    assert one["rmu[alpha=1,layer=5]"] == swept["rmu[alpha=1,layer=5]"]


def test_values_that_are_lists_stand_in_brackets(suite):
    swept = chosen(suite, ["multi_layer_probe.layers=[0,1,2],[5],null"], names=("multi_layer_probe",))
    assert {name: variant.settings["layers"] for name, variant in swept.items()} == {
        "multi_layer_probe[layers=[0,1,2]]": [0, 1, 2],
        "multi_layer_probe[layers=[5]]": [5],
        "multi_layer_probe[layers=None]": None,
    }


def test_a_grid_over_training_varies_every_method_and_keeps_what_the_suite_says(suite):
    swept = chosen(suite, ["training.steps=5,10"], names=("rmu", "adap_rmu"))
    assert list(swept) == [f"{name}[training.steps={n}]" for name in ("adap_rmu", "rmu") for n in (5, 10)]
    own = suite.variants["knowledge"]["rmu"]
    assert swept["rmu[training.steps=10]"].training == {**own.training, "steps": 10}
    assert swept["rmu[training.steps=10]"].settings == own.settings


def test_a_suite_may_hold_a_grid_that_set_narrows_and_grid_replaces(suite):
    own = VariantSpec(method="rmu", settings={"layer": 4}, grid={"alpha": [1, 2], "training.steps": [5, 6]})
    held = suite.model_copy(update={"variants": {"knowledge": {"mine": own}}})
    assert list(chosen(held)) == [f"mine[alpha={alpha},training.steps={n}]" for alpha in (1, 2) for n in (5, 6)]
    assert all(variant.settings["layer"] == 4 and not variant.grid for variant in chosen(held).values())
    assert list(chosen(held, settings=["rmu.alpha=7", "training.steps=3"])) == ["mine[alpha=7]"]
    assert [v.settings["alpha"] for v in chosen(held, ["rmu.alpha=8", "training.steps=3"]).values()] == [8]
    empty = suite.model_copy(
        update={"variants": {"knowledge": {"mine": VariantSpec(method="rmu", grid={"alpha": []})}}}
    )
    with pytest.raises(UserError, match="Variant mine, grid of alpha has no value"):
        chosen(empty)


@pytest.mark.parametrize(
    ("grid", "settings", "said"),
    [
        ("rmu.alpha=1,1", (), "has the value 1 twice"),
        ("rmu.alpha=", (), "has no value"),
        ("rmu=3", (), "METHOD.KEY=VALUE,VALUE"),
        ("rmu.alpha=[2", (), "is not YAML"),
        ("rmx.alpha=2", (), "Did you mean 'rmu'"),
        ("adap_rmu.alpha=2", (), r"--grid adap_rmu.*not among the methods of this run \(rmu\)"),
        ("rmu.alpha=2,3", ("rmu.alpha=2",), "stands in --set and in --grid"),
        ("training.steps=2,3", ("training.steps=2",), "stands in --set and in --grid"),
    ],
)
def test_a_grid_that_cannot_be_is_refused_with_what_to_do(suite, grid, settings, said):
    with pytest.raises(UserError, match=said):
        chosen(suite, [grid], settings)


def test_a_key_given_twice_is_refused(suite):
    with pytest.raises(UserError, match="stands twice; give all its values at once"):
        chosen(suite, ["rmu.alpha=1", "rmu.alpha=2"])


def test_a_grid_resumes_and_stands_in_the_boards_command(tmp_path):
    asked = ["--methods", "rmu", "--tracks", "knowledge", "--tasks", "wmdp,mmlu", "--limit", "8"]
    asked += ["--executor", "inline", "--set", "training.steps=2", "--output", str(tmp_path / "out")]

    def run(*grid: str):
        done = CliRunner().invoke(main, ["evaluate", *asked, "--grid", *grid])
        assert done.exit_code == 0, done.output
        return done.output

    run("rmu.layer=2,3")
    board = load_board(tmp_path / "out" / "leaderboards" / "micro.json")
    assert {row["variant"] for row in board.rows} >= {"base", "rmu[layer=2]", "rmu[layer=3]"}
    assert "--grid rmu.layer=2,3" in board.spec.command
    cells = json.loads(run("rmu.layer=2,3,4", "--dry-run", "--json"))["cells"]
    state = {cell["name"]: cell["state"] for cell in cells}
    assert [state[f"knowledge/rmu[layer={layer}]#0"] for layer in (2, 3, 4)] == ["finished", "finished", "to do"]
