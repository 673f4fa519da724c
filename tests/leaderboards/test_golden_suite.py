"""The composites of the suite `tofu10`, as its file writes them, have the digits of OpenUnlearning's log."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from unlearn_bench.harness.records import Record
from unlearn_bench.harness.suite import load_suite
from unlearn_bench.leaderboards.board import build_board
from unlearn_bench.leaderboards.spec import BoardSpec, Checkpoint, TaskInfo, TrackRoles
from unlearn_bench.leaderboards.stats.composite import Composite

LOGGED = {
    "forget_qa": "forget",
    "forget_rouge": "forget",
    "holdout_qa": "holdout",
    "retain_qa": "retain",
    "retain_rouge": "retain",
    "authors_qa": "real_authors",
    "authors_rouge": "real_authors",
    "facts_qa": "world_facts",
    "facts_rouge": "world_facts",
}
"""Task of the suite to its part of the log, which holds no sampled answers and no fluency."""
THEIRS = {
    "model_utility": ("model_utility", 1e-6),
    "forget_truth_ratio": ("forget_truth_ratio", 1e-6),
    "extraction_strength": ("extraction_strength", 1e-6),
    "exact_memorisation": ("exact_memorization", 1e-6),
    "mia_loss": ("mia_loss", 1e-6),
    "mia_zlib": ("mia_zlib", 1e-6),
    "mia_min_k": ("mia_min_k", 1e-6),
    "mia_min_k_plus_plus": ("mia_min_k_plus_plus", 1e-6),
    "privleak_half": ("privleak", 1e-5),
}
"""Composite to OpenUnlearning's name of it, and how near its value must come; a board has six digits."""


@pytest.fixture(scope="module")
def values(evaluated: dict[str, list[Record]]) -> dict[str, dict[str, Any]]:
    """The composites of the log as a row and as the retrained reference."""
    suite = load_suite("tofu10")
    composites = {
        name: Composite(**dict(spec))
        for name, spec in suite.composites.items()
        if not name.startswith("leak") and name not in ("utility", "aggregate")
    }
    records = {
        task: [replace(record, cluster=str(int(record.item) // 20)) for record in evaluated[part]]
        for task, part in LOGGED.items()
    }
    rows = [
        Checkpoint("llama", "tofu", "log", "log", "import", None, "log", records=records),
        Checkpoint("llama", "tofu", "retain", "retain", "reference", None, "retain", records=records, role="retain"),
    ]
    info = {name: TaskInfo(name, "prob", 0.0, "higher", 1) for name in LOGGED if not name.endswith("rouge")}
    info |= {name: TaskInfo(name, "rougeL_recall", 0.0, "higher", 1) for name in LOGGED if name.endswith("rouge")}
    controls = tuple(name for name in LOGGED if name not in ("forget_qa", "retain_qa"))
    roles = TrackRoles("forget_qa", "retain_qa", controls=controls)
    spec = BoardSpec("tofu", 1, "", {"tofu": roles}, info, resamples=300, composites=composites)
    return {row["variant"]: dict(row["values"]) for row in build_board(spec, rows).composites[0]["rows"]}


@pytest.mark.parametrize("name", THEIRS)
def test_a_composite_has_the_published_digits(values, published: dict[str, float], name: str) -> None:
    theirs, near = THEIRS[name]
    found = values["log"][name]["value"]
    assert found["value"] == pytest.approx(published[theirs], abs=near)
    assert found["low"] < found["value"] < found["high"]


def test_memorisation_is_that_of_the_published_means(values, published: dict[str, float], evaluated) -> None:
    preferred = [(record.scores or {})["prob_mean"] for record in evaluated["forget"]]
    names = ("extraction_strength", "exact_memorization", "forget_Q_A_PARA_Prob")
    parts = [1 - sum(preferred) / len(preferred), *(1 - published[name] for name in names)]
    assert values["log"]["memorisation"]["value"]["value"] == pytest.approx(4 / sum(1 / x for x in parts), abs=1e-6)


def test_what_is_held_to_itself_is_alike(values) -> None:
    own = {name: found["value"]["value"] for name, found in values["log"].items()}
    assert (own["forget_quality"], own["privleak"], own["privacy"], own["mia_reference"]) == (0.0, 0.0, 1.0, 0.5)
    assert values["log"]["forget_quality"]["p"] == [1.0]
