"""Rows under a schema: typed where files write out text, and refused by the plan with file, row, column and mend."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from unlearn_bench.harness import planning
from unlearn_bench.harness.cli import main
from unlearn_bench.harness.data import load_rows, texts
from unlearn_bench.harness.errors import DataError, UserError
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.planning.request import Request
from unlearn_bench.harness.specs import LabelledRow, RowSpec, TextRow
from unlearn_bench.harness.suite import SourceSpec
from unlearn_bench.tasks.multiple_choice import QuestionRow
from unlearn_bench.tasks.realtoxicityprompts import PromptRow

MICRO = Path(planning.__file__).parents[1] / "suites" / "micro"
OPTIONS = ["choice0", "choice1", "choice2", "choice3"]
COLUMNS = {"choices": ",".join(OPTIONS)}


def write(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows as a CSV or as JSON lines, by the suffix."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        if file.suffix == ".csv":
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        else:
            stream.writelines(json.dumps(row) + "\n" for row in rows)
    return file


def questions(count: int = 4, **more: Any) -> list[dict[str, Any]]:
    return [
        {"question": f"Q{n}?", **dict(zip(OPTIONS, "abcd", strict=True)), "answer": n % 4, "subject": "bio", **more}
        for n in range(count)
    ]


words = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)


@given(st.lists(st.tuples(words, st.tuples(words, words, words, words), st.integers(0, 3)), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_a_csv_and_json_of_the_same_questions_are_the_same_rows(tmp_path_factory, table) -> None:
    folder = tmp_path_factory.mktemp("same")
    rows = [
        {"question": question, **dict(zip(OPTIONS, choices, strict=True)), "answer": answer, "subject": "bio"}
        for question, choices, answer in table
    ]
    csv_rows, json_rows = (
        load_rows(SourceSpec(path=write(folder / name, rows).name, columns=COLUMNS), folder, QuestionRow)
        for name in ("rows.csv", "rows.jsonl")
    )
    assert csv_rows == json_rows


@pytest.mark.parametrize(
    ("schema", "cells", "typed"),
    [
        (QuestionRow, {"question": "007", "choices": list("abcd"), "subject": "1", "answer": "2"}, {"answer": 2}),
        (QuestionRow, {"question": "Q?", "choices": list("abcd"), "subject": "1", "answer": "C"}, {"answer": 2}),
        (LabelledRow, {"text": "1.50", "label": "1"}, {"label": 1}),
        (PromptRow, {"prompt": "1", "challenging": "TRUE", "kind": "0"}, {"challenging": True}),
        (PromptRow, {"prompt": "1", "challenging": "false", "id": "001"}, {"challenging": False}),
        (TextRow, {"text": "1e5", "id": ""}, {}),
    ],
)
def test_text_gets_the_type_that_the_schema_says_and_no_other(schema: type[RowSpec], cells, typed) -> None:
    assert schema.read(cells, "row 1").typed(cells) == typed


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("toxic", "'label' is 'toxic'; write 1 for what is to be recognised"),
        (2, "'label' is 2; write 1"),
        (None, "'label' is null; write 1"),
        ("", "'label' is blank; write 1"),
        (0.5, "'label' is 0.5; write 1"),
    ],
)
def test_a_label_is_one_or_zero(cell: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"^here: {message}"):
        LabelledRow.read({"text": "a", "label": cell}, "here")
    assert [LabelledRow.read({"text": "a", "label": label}, "").label for label in (True, 0, "1", "0.0", 1.0)] == [
        *(1, 0, 1, 0, 1)
    ]


def test_a_row_is_named_by_its_own_file_whatever_is_joined_or_left_out(tmp_path: Path) -> None:
    write(tmp_path / "one.csv", questions(6))
    write(tmp_path / "two.csv", [*questions(3), *questions(1, answer="")])
    source = SourceSpec(path="*.csv", columns=COLUMNS, where={"subject": "bio"}, rows=2)
    with pytest.raises(DataError, match=r"two\.csv, row 4 \(line 5\): 'answer' needs .* not blank"):
        load_rows(source, tmp_path, QuestionRow)
    other = source.model_copy(update={"where": {"question": "Q1?"}})
    assert [row["question"] for row in load_rows(other, tmp_path, QuestionRow).rows] == ["Q1?", "Q1?"]


def test_a_filter_knows_numbers_and_truth_that_are_written_out(tmp_path: Path) -> None:
    write(
        tmp_path / "rows.csv",
        [{"text": "0", "kept": "TRUE", "level": 0}, {"text": "1", "kept": "False", "level": 1}],
    )
    for where in ({"kept": True}, {"level": 0}, {"level": "0"}, {"kept": "TRUE"}):
        assert [row["text"] for row in load_rows(SourceSpec(path="rows.csv", where=where), tmp_path).rows] == ["0"]


def test_a_short_null_is_no_short_text(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [{"text": "long enough"}, {"text": None}])
    with pytest.raises(DataError, match=r"row 2 \(line 2\): 'text' is null"):
        load_rows(SourceSpec(path="rows.jsonl", min_characters=5), tmp_path, TextRow)


def test_labelled_columns_keep_zero_and_leave_out_what_a_row_lacks(tmp_path: Path) -> None:
    write(
        tmp_path / "rows.jsonl", [{"bad": 0, "good": "fine"}, {"bad": "rude", "good": None}, {"bad": "", "good": "ok"}]
    )
    source = SourceSpec(path="rows.jsonl", labels={"bad": 1, "good": 0})
    rows = load_rows(source, tmp_path, LabelledRow).rows
    assert [(row["text"], row["label"]) for row in rows] == [(0, 1), ("fine", 0), ("rude", 1), ("ok", 0)]
    assert texts(rows, source) == ["0", "fine", "rude", "ok"]


def test_rows_are_told_apart_by_a_column_that_they_have(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [{"text": "a", "key": 0}, {"text": "b", "key": "0"}, {"text": "c"}])
    with pytest.raises(DataError, match=r"row 3 \(line 3\) has no column 'key', which `distinct:` names"):
        load_rows(SourceSpec(path="rows.jsonl", distinct="key"), tmp_path)


def test_nothing_stands_in_for_a_file_that_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "first.jsonl").write_text('{"text": "a"}\n{"text": ')
    write(tmp_path / "second.jsonl", [{"text": "other"}])
    source = SourceSpec(path="first.jsonl", otherwise=SourceSpec(path="second.jsonl"))
    with pytest.raises(DataError, match=r"first\.jsonl, row 2 \(line 2\) is no JSON"):
        load_rows(source, tmp_path)


def test_a_source_of_blank_text_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [{"text": " "}, {"text": "\n"}])
    with pytest.raises(DataError, match=r"No row of rows\.jsonl has any text"):
        load_rows(SourceSpec(path="rows.jsonl"), tmp_path, TextRow)


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A suite whose every source is a file of its own; the model is the embedded one."""
    write(tmp_path / "wmdp.csv", questions())
    write(tmp_path / "mmlu.jsonl", [{**row, "choices": list("abcd")} for row in questions()])
    for name in ("forget", "retain", "relearn", "prose"):
        write(tmp_path / f"{name}.jsonl", [{"text": f"{name} one"}, {"text": " "}, {"text": f"{name} two"}])
    for name in ("probe", "scorer"):
        write(tmp_path / f"{name}.csv", [{"text": f"{name} {n}", "label": n % 2} for n in range(6)])
    write(tmp_path / "prompts.jsonl", [{"prompt": {"text": "One"}}, {"prompt": {"text": "Two"}}])
    corpora = "{forget: {f: {path: forget.jsonl}}, retain: {path: retain.jsonl}, probe: {path: probe.csv},"
    (tmp_path / "suite.yaml").write_text(f"""
name: rows
models: {{micro: {{path: {MICRO / "model"}}}}}
tasks:
  wmdp: {{task: wmdp, data: {{path: wmdp.csv, columns: {{choices: "{COLUMNS["choices"]}"}}}}}}
  mmlu: {{task: mmlu, data: {{path: mmlu.jsonl}}}}
  prose: {{task: perplexity, data: {{path: prose.jsonl}}}}
  prompts: {{task: realtoxicityprompts, data: {{path: prompts.jsonl}}}}
tracks:
  knowledge: {{forget_task: wmdp, retain_task: mmlu, controls: [prose, prompts], corpora: {corpora}
    relearn: {{f: {{path: relearn.jsonl}}}}}}}}
training: {{steps: 2, max_length: 16}}
scorer: {{kind: ngram, train: {{path: scorer.csv}}, accepted: rows are read}}
""")
    return tmp_path / "suite.yaml"


ASKED = ("--methods", "rmu", "--set", "rmu.layer=5", "--stress", "relearn")


def test_sound_rows_of_every_source_are_planned(suite: Path) -> None:
    plan = make_plan(Request(suite=str(suite), methods=("rmu",), settings=("rmu.layer=5",), stress=("relearn",)), None)
    assert {name: task.count for name, task in plan.tasks.items()} == {"wmdp": 4, "mmlu": 4, "prose": 2, "prompts": 2}


@pytest.mark.parametrize(
    ("file", "row", "message"),
    [
        ("wmdp.csv", "Q9?,a,b,c,d,,bio", "row 5 (line 6): 'answer' needs an answer from 0 to 3"),
        ("wmdp.csv", "Q9, really?,a,b,c,d,0,bio", "row 5 (line 6) has 8 cells and the header 7"),
        ("wmdp.csv", "Q9?,a,,c,d,0,bio", "row 5 (line 6): entry 2 of 'choices' is blank"),
        ("wmdp.csv", "Q9?,a,b,c,d,0,", "row 5 (line 6): 'subject' is blank"),
        ("mmlu.jsonl", '{"question": null}', "row 5 (line 5): 'question' is null"),
        (
            "mmlu.jsonl",
            '{"question": "Q9?", "answer": 0}',
            "row 5 (line 5) has no 'choices'; it has 'question', 'answer'",
        ),
        ("prose.jsonl", '{"text": null}', "row 4 (line 4): 'text' is null"),
        ("prompts.jsonl", '{"prompt": {"text": ""}}', "row 3 (line 3): 'prompt' is blank"),
        ("forget.jsonl", '{"text": null}', "row 4 (line 4): 'text' is null; write its text, or leave the row out."),
        ("forget.jsonl", '{"text": ["a"]}', "row 4 (line 4): 'text' is ['a'], not text"),
        ("forget.jsonl", '{"body": "a"}', "row 4 (line 4) has no 'text'; it has 'body'"),
        ("retain.jsonl", '{"text": NaN}', "row 4 (line 4): 'text' is nan, which is no number"),
        ("relearn.jsonl", '{"text": null}', "row 4 (line 4): 'text' is null"),
        ("probe.csv", "probe 9,", "row 7 (line 8): 'label' is blank; write 1"),
        ("scorer.csv", "scorer 9,rude", "row 7 (line 8): 'label' is 'rude'; write 1"),
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_a_row_that_cannot_be_read_ends_the_plan(suite: Path, file: str, row: str, message: str, dry: bool) -> None:
    with (suite.parent / file).open("a") as stream:
        stream.write(row + "\n")
    output = suite.parent / "out"
    places = ["--suite", str(suite), "--data-root", str(suite.parent), "--output", str(output)]
    arguments = ["evaluate", *places, *ASKED, *(["--dry-run"] if dry else [])]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2, done.output
    assert f"{suite.parent / file}, {message}" in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
    assert not list(output.glob("outcomes/*"))


def test_an_id_that_stands_twice_names_both_rows(suite: Path) -> None:
    write(suite.parent / "wmdp.csv", questions(3, id="001"))
    with pytest.raises(UserError, match=r"'001' \(.*wmdp\.csv, row 1 \(line 2\); and .*wmdp\.csv, row 2 \(line 3\)\)"):
        make_plan(Request(suite=str(suite), methods=("none",)), None)
