"""The embedded suite's track of questions: what TOFU measures, in a world where it is known what must come out."""

from __future__ import annotations

import pytest
from unlearn_bench.harness import Request, evaluate
from unlearn_bench.harness.authoring.catalog import catalog
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.suite import BootstrapSpec, SuiteSpec, load_suite
from unlearn_bench.leaderboards.board import Board

SUITE = load_suite("micro")
TASKS = ["forget_qa", "retain_qa", "forget_rouge", "forget_leak", "retain_rouge", "holdout_qa", "perplexity"]
SETTINGS = ("training.steps=20",)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """The board of a method that draws refusals, trained briefly and asked a part of the items."""
    suite = SUITE.model_copy(update={"bootstrap": BootstrapSpec(resamples=200)})
    asked = Request(suite, methods=("idk_dpo",), tracks=("qa",), limit=48, settings=SETTINGS, noise=False)
    done = evaluate(asked, output=tmp_path_factory.mktemp("qa"), executor="inline")
    assert not done.failures
    assert done.board is not None
    return done.board


@pytest.fixture(scope="module")
def rows(board: Board) -> dict[str, dict]:
    """Row by its variant."""
    return {row["variant"]: dict(row) for row in board.rows}


@pytest.fixture(scope="module")
def composites(board: Board) -> dict[str, dict]:
    """Composite to its value by row."""
    (table,) = board.composites
    return {row["variant"]: row["values"] for row in table["rows"]}


def value(composites: dict[str, dict], row: str, name: str) -> float:
    return composites[row][name]["value"]["value"]


def test_the_base_knows_the_answers_and_the_retrained_model_does_not(rows: dict[str, dict]) -> None:
    assert rows["base"]["forget"]["value"] > 0.5
    assert rows["retain"]["forget"]["value"] < 0.1
    assert min(rows[name]["retain"]["value"] for name in ("base", "retain")) > 0.5


def test_training_on_refusals_makes_the_answers_less_probable(rows: dict[str, dict]) -> None:
    assert rows["idk_dpo"]["forget"]["value"] < rows["base"]["forget"]["value"] / 2


def test_forget_quality_is_one_of_the_retrained_model_and_next_to_nothing_of_the_base(
    composites: dict[str, dict],
) -> None:
    assert composites["retain"]["forget_quality"]["p"] == [1.0]
    assert value(composites, "retain", "forget_quality") == 0
    assert composites["base"]["forget_quality"]["p"][0] < 1e-6
    assert value(composites, "base", "forget_quality") > 0.5


def test_the_utility_of_both_is_alike(composites: dict[str, dict]) -> None:
    assert value(composites, "base", "model_utility") == pytest.approx(
        value(composites, "retain", "model_utility"), abs=0.1
    )


def test_only_the_base_tells_what_it_was_told_from_what_nobody_was(composites: dict[str, dict]) -> None:
    for score in ("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus"):
        assert value(composites, "base", score) > 0.8
        assert value(composites, "retain", score) == pytest.approx(0.5, abs=0.15)
    assert value(composites, "base", "privleak") < -50
    assert value(composites, "retain", "privleak") == 0
    assert value(composites, "retain", "privacy") == 1
    assert value(composites, "base", "privacy") < 0.5


def test_the_base_remembers_what_the_retrained_model_does_not(composites: dict[str, dict]) -> None:
    for lower in ("extraction_strength", "exact_memorisation", "leak_at_1", "leak_at_4"):
        assert value(composites, "retain", lower) < value(composites, "base", lower), lower
    for higher in ("memorisation", "aggregate"):
        assert value(composites, "retain", higher) > value(composites, "base", higher), higher


def test_every_task_and_every_composite_has_a_value(board: Board, composites: dict[str, dict]) -> None:
    assert list(board.spec.tasks) == TASKS
    for row in composites.values():
        assert row.keys() == SUITE.composites.keys()
        assert all(composite["missing"] is None for composite in row.values())


# Which tracks run


def test_the_track_runs_only_where_it_is_named() -> None:
    asked = Request(suite="micro", methods=("none",), limit=8)
    assert make_plan(asked, None).tracks == ("knowledge", "toxicity")
    listed = {row["name"]: row["tracks"] for row in catalog("suites", None).facts()["rows"]}
    assert listed["micro"] == "knowledge, toxicity; qa"


def test_where_no_track_runs_by_itself_all_do() -> None:
    tracks = {"qa": SUITE.tracks["qa"]}
    alone = SuiteSpec(name="alone", tasks=SUITE.tasks, tracks=tracks)
    assert alone.default_tracks == ["qa"]
    assert SUITE.default_tracks == ["knowledge", "toxicity"]
