"""The form shift: the same questions in forms that neither they nor the forget text have."""

from __future__ import annotations

from pathlib import Path

import pytest
from unlearn_bench.harness.data import load_rows
from unlearn_bench.harness.engines.transformers import TransformersEngine
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.models.load import ModelSpec
from unlearn_bench.harness.suite import load_suite
from unlearn_bench.tasks.base import tasks


def build(**settings):
    kind = tasks.get("form_shift")
    return kind(kind.Settings.parse(settings, "form_shift"))


def test_each_question_is_asked_in_each_template_and_stays_one_cluster() -> None:
    task = build(templates=["{question} It is", "Fill in: {question} ->"])
    rows = tasks.get("form_shift").example_rows()
    items = task.items(rows)
    assert len(items) == len({item.id for item in items}) == 2 * len(rows)
    assert len({item.cluster for item in items}) == len(rows)
    contexts = [request.context for request in task.requests(items)]
    asked = rows[0]["question"]
    assert contexts[:2] == [f"{asked} It is", f"Fill in: {asked} ->"]
    assert task.requests(items)[0].choices == tuple(f" {choice}" for choice in rows[0]["choices"])
    assert [item.doc["answer"] for item in items[:2]] == [rows[0]["answer"]] * 2


def test_a_template_without_a_place_for_the_question_is_refused() -> None:
    with pytest.raises(UserError, match="the template 'The answer is' has no"):
        build(templates=["The answer is"])


@pytest.fixture(scope="module")
def folder(root: Path) -> Path:
    return root / "harness" / "suites" / "micro"


def test_in_micro_it_asks_the_same_facts_in_forms_that_no_text_has(folder: Path) -> None:
    suite = load_suite("micro")
    shifted, plain = (load_rows(suite.tasks[name].data, folder).rows for name in ("form_shift", "wmdp"))
    by_choices = {(row["fact"], tuple(row["choices"])): row for row in plain}
    text = " ".join(
        str(row[column])
        for track in suite.tracks.values()
        for source in (*track.corpora.forget.values(), *track.corpora.relearn.values(), track.corpora.retain)
        for row in load_rows(source, folder).rows
        for column in ("text", "prompt", "answer")
        if column in row
    )
    assert {row["fact"] for row in shifted} == {row["fact"] for row in plain}
    for row in shifted:
        same = by_choices[row["fact"], tuple(row["choices"])]
        assert (row["answer"], row["known"]) == (same["answer"], same["known"])
        assert row["question"] != same["question"]
        assert row["question"] not in text


def test_the_base_of_micro_answers_these_forms_where_it_knows_the_fact(folder: Path) -> None:
    spec = load_suite("micro").tasks["form_shift"]
    task = build(**spec.settings)
    rows = load_rows(spec.data, folder).rows[:240]
    items = task.items(rows)
    engine = TransformersEngine(ModelSpec(name="micro", path=str(folder / "model")))
    right = [record.scores["acc"] for record in task.score(items, engine.score_choices(task.requests(items)))]
    known = [score for score, row in zip(right, rows, strict=True) if row["known"]]
    unknown = [score for score, row in zip(right, rows, strict=True) if not row["known"]]
    assert sum(known) / len(known) > 0.75
    assert sum(unknown) / len(unknown) < 0.5
