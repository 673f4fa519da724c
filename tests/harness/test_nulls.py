"""Null rows on request: what stands on the board of a run that asked for all of them."""

from __future__ import annotations

import json

import pytest
from unlearn_bench.harness import Request, evaluate
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.planning.status import delta_of


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with every null; its rows by name."""
    asked = Request(
        methods=("rmu",),
        tracks=("knowledge",),
        limit=24,
        settings=("training.steps=4",),
        nulls=("constant", "shuffled", "unrelated"),
    )
    result = evaluate(asked, output=tmp_path_factory.mktemp("nulls"), executor="inline")
    assert not result.failures
    return result, {row["variant"]: row for row in json.loads(result.board.to_json())["rows"]}


def test_they_are_shown_and_not_ranked(run) -> None:
    result, rows = run
    for name in ("constant", "shuffled", "unrelated"):
        assert (rows[name]["kind"], rows[name]["rank"]) == ("null", None)
        assert rows[name]["s_unlearning"] is not None
    assert rows["rmu"]["rank"] is not None
    assert "`unrelated` is a method trained with the retain text" in result.board.to_markdown().replace("\n  ", " ")


def test_constant_scores_the_share_of_first_choices(run) -> None:
    result, rows = run
    asked = result.plan.tasks["wmdp"].build()[1]
    share = sum(item.doc["answer"] == 0 for item in asked) / len(asked)
    assert rows["constant"]["forget"]["value"] == pytest.approx(share, abs=1e-6)
    assert rows["constant"]["retain"]["n"] == rows["base"]["retain"]["n"]


def test_shuffled_is_base_where_choices_are_not_shown(run) -> None:
    """micro asks for continuations, whose order nobody sees."""
    _, rows = run
    for side in ("forget", "retain"):
        assert rows["shuffled"][side]["value"] == rows["base"][side]["value"]


def test_unrelated_is_trained_on_other_text(run) -> None:
    result, _ = run
    deltas = {
        cell.spec.variant: delta_of(cell.spec, result.store)
        for cell in result.plan.cells
        if cell.spec.variant in ("rmu", "unrelated")
    }
    assert len(set(deltas.values())) == 2
    assert None not in deltas.values()


def test_an_unknown_null_is_named() -> None:
    with pytest.raises(UserError, match=r"Unknown null 'constnat'.*constant"):
        evaluate(Request(methods=("none",), nulls=("constnat",)))
