"""Questions with right answers in a report: what every checkpoint makes of them stands side by side."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from unlearn_bench.harness import Request, evaluate
from unlearn_bench.harness.cli import main
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.planning.plan import Plan
from unlearn_bench.harness.records import Preview
from unlearn_bench.harness.results.board import board_of
from unlearn_bench.harness.results.items import cell_items
from unlearn_bench.harness.results.report import report
from unlearn_bench.harness.store.entries import Store
from unlearn_bench.reports.data import CheckpointAnswer, OpenQuestion
from unlearn_bench.reports.document.escape import visible
from unlearn_bench.reports.document.markdown import digits
from unlearn_bench.reports.items import checkpoint_answer, open_question
from unlearn_bench.reports.write import write

from .conftest import HIDDEN, NASTY
from .pages import Reader, rendered

SUITE = {
    "extends": "micro",
    "name": "asked",
    "tasks": {
        "given_forget": {"task": "qa", "data": {"path": "data/qa_forget.jsonl"}},
        "given_retain": {"task": "qa", "data": {"path": "data/qa_retain.jsonl"}},
        "written": {
            "task": "qa_rouge",
            "data": {"path": "data/qa_forget.jsonl"},
            "settings": {"decoding": {"samples": 1, "max_new_tokens": 10, "temperature": 0}},
        },
    },
    "tracks": {
        "answers": {
            "forget_task": "given_forget",
            "retain_task": "given_retain",
            "controls": ["written", "perplexity"],
            "references": {
                "original": {
                    "finetune": {
                        "text": {"path": "data/qa_forget.jsonl", "columns": {"prompt": "question"}},
                        "training": {"steps": 24, "batch_size": 16, "learning_rate": 3e-3},
                    }
                },
                "retain": {"path": "reference"},
            },
            "corpora": {
                "forget": {"alchemy": {"path": "data/qa_forget.jsonl", "columns": {"prompt": "question"}}},
                "retain": {"path": "data/qa_retain.jsonl", "columns": {"prompt": "question"}},
            },
        }
    },
    "composites": {
        "quality": {
            "statistic": "ks",
            "of": {"unlearned": "given_forget.truth_ratio", "retain": "given_forget.truth_ratio"},
        }
    },
}
CELLS = ["base", "original#0", "retain", "answers/npo#0"]


def test_html_holds_every_text_as_text_and_covers_no_answer(answered, tmp_path):
    write(answered, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    text = " ".join(Reader(page).text.split())
    assert page.count("<script") == 1
    assert not any(hidden in page for hidden in HIDDEN)
    assert not re.search(r"<[^>]+\s(style|on\w+)=", page)
    assert " ".join(f"It is {visible(NASTY)}.".replace("⟦", "").replace("⟧", "").split()) in text
    assert "no score: no answer was <b>given</b>" in text
    assert "and 2 more answers" in text
    assert 'class="covered"' not in page
    assert "question not at hand" in text
    assert "with what every checkpoint makes of them side by side" in text


def test_probabilities_stand_below_what_they_are_of(answered, tmp_path):
    write(answered, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    table = Reader(page[page.index('class="probabilities"') :].partition("</table>")[0])
    assert "P(right)P(wrong 1)P(wrong 2)probtruth_ratio" in table.text
    assert "base0.5002.0e-07–0.5004.0e-07" in table.text.replace("\n", "")
    assert "knowledge/rmu#0–––––" in table.text.replace("\n", "")


def test_markdown_holds_the_same(answered, tmp_path):
    write(answered, tmp_path / "report.md")
    page = rendered((tmp_path / "report.md").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert "a" not in page.tags
    assert f"It is {visible(NASTY, kept='')}." in page.text
    assert "base (prob 0.500, truth_ratio 4.0e-07, right 0.500, wrong 1 2.0e-07, wrong 2 –)" in page.text
    assert "knowledge/rmu#0 (no score: no answer was <b>given</b>)" in page.text


def test_texts_of_unknown_kind_are_numbered():
    answer = CheckpointAnswer("base", [], [0.1, 0.2], {"prob": 0.1}, None)
    assert OpenQuestion("a", "s", None, [], [answer]).names == ["text 1", "text 2"]
    shown = open_question({"item": "a", "stratum": "s"}, Preview("Q?", ["x", " y"], right=1), [answer])
    assert shown.names == ["choice", "right"]
    assert shown.given[1] == ("right", "y")


def test_an_answer_has_the_scores_that_are_named_in_their_order():
    record = {"scores": {"b": 1.0, "a": 0.5, "c": 0.0}, "missing": None}
    outcome = {"traces": [{"logprobs": [-1.0, -1.0], "hits": [0, 1]}, {"logprobs": [None], "hits": [0]}]}
    answer = checkpoint_answer("x", record, outcome, ["a", "z", "b"])
    assert list(answer.scores or {}) == ["a", "b"]
    assert answer.probabilities == [pytest.approx(0.36787944), None]
    assert checkpoint_answer("x", None, None, ["a"]).missing == "not measured"


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (0.0, "0.000"), (0.5, "0.500"), (6e-13, "6.0e-13")])
def test_small_numbers_are_told_apart(value, text):
    assert digits(value) == text


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """A tiny real run on questions, with an original and a retrained model."""
    folder = tmp_path_factory.mktemp("asked")
    (folder / "asked.yaml").write_text(yaml.safe_dump(SUITE))
    asked = Request(
        suite=str(folder / "asked.yaml"),
        methods=("npo",),
        tracks=("answers",),
        tasks=("given_forget", "given_retain", "written", "perplexity"),
        limit=6,
        noise=False,
        settings=("training.steps=2",),
    )
    done = evaluate(asked, output=folder / "store", executor="inline")
    assert not done.failures
    return folder / "store"


def test_a_real_store_shows_the_same_questions_of_all_checkpoints(store, tmp_path):
    (run,) = report([store], tmp_path / "report.html").runs
    items = {each.task: each for each in run.items}
    assert [each.kind for each in run.items] == ["answers"] * 3
    for each in run.items:
        assert len(each.shown) == each.asked == 6
        assert all([answer.label for answer in shown.answers] == CELLS for shown in each.shown)
    given, written = items["given_forget"].shown[0], items["written"].shown[0]
    assert given.names == ["right", "paraphrase", "wrong 1", "wrong 2", "wrong 3"]
    assert given.scored == ["prob", "truth_ratio"]
    assert all(answer.probabilities[0] == pytest.approx(answer.scores["prob"]) for answer in given.answers)
    assert [kind for kind, _ in written.given] == ["right"]
    assert all(len(answer.texts) == 1 and "rougeL_recall" in answer.scores for answer in written.answers)


def test_what_is_compared_with_the_original_says_so(store, tmp_path):
    board = board_of(Plan.load(Store.open(store)), Store.open(store))
    report([store], tmp_path / "report.md")
    texts = [board.to_markdown(details=True), board.to_latex(), (tmp_path / "report.md").read_text(encoding="utf-8")]
    for text in (" ".join(text.split()).replace("$\\Delta$", "Δ") for text in texts):
        assert "Δ original" in text
        for word in ("Δ base", "less base", "that of base", "against base", "base's", "above base", "dashed: base"):
            assert word not in text.replace("stands in base's place", "")


def test_items_stand_beside_base_and_the_references(store):
    shown = cell_items("answers/npo#0", "written", store, None, most=2)
    assert len(shown.items) == 2
    for item in shown.items:
        assert list(item.beside) == ["base", "original", "retain"]
        assert item.base == item.beside["base"].scores
        assert all(given.answer and len(given.answer["texts"]) == 1 for given in item.beside.values())
    assert list(cell_items("base", "written", store, None).items[0].beside) == ["original", "retain"]
    assert cell_items("base", "written", store, None).items[0].base is not None


def test_items_are_lines_of_json_for_programs_and_a_table_for_people(store, monkeypatch):
    asked = ["items", "answers/npo#0", "given_forget", "--most", "2", "--output", str(store)]
    lines = CliRunner().invoke(main, asked).output.splitlines()
    assert [json.loads(line)["beside"].keys() for line in lines] == [{"base", "original", "retain"}] * 2
    assert len(json.loads(CliRunner().invoke(main, [*asked, "--json"]).output)) == 2
    monkeypatch.setattr("shutil.get_terminal_size", lambda *given: os.terminal_size((100, 40)))
    table = cell_items("answers/npo#0", "given_forget", store, None, most=2).to_text()
    assert max(map(len, table.splitlines())) <= 100
    first = [re.split(r"  +", line.strip())[:2] for line in table.splitlines()[2:12]]
    named = ["right", "paraphrase", "wrong 1", "wrong 2", "wrong 3", "base", "original", "retain", "answers/npo#0"]
    assert [line[0] for line in first[1:]] == named
    assert first[0][1] == "asked"


@pytest.mark.parametrize(
    ("cell", "against"), [("base", "original"), ("answers/npo#0", "original"), ("original", "base")]
)
def test_flipped_items_are_those_whose_own_score_crossed_one_half(store, cell, against):
    rows = cell_items(cell, "given_retain", store, None).items
    crossed = [row.item for row in rows if (row.scores["prob"] < 0.5) != (row.beside[against].scores["prob"] < 0.5)]
    shown = cell_items(cell, "given_retain", store, None, flipped_only=True).items
    assert [row.item for row in shown] == crossed
    assert len(shown) < len(rows) == sum(row.scores != row.beside[against].scores for row in rows)
    assert shown or cell == "answers/npo#0"


def test_flips_need_a_score_between_0_and_1(store):
    with pytest.raises(UserError, match="nll of perplexity has no largest value"):
        cell_items("answers/npo#0", "perplexity", store, None, flipped_only=True)
