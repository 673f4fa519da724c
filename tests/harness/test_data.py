"""Rows and samples: mapped, filtered, split and drawn as pure functions of their content."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unlearn_bench.harness.data import load_rows, sample_items, texts
from unlearn_bench.harness.errors import DataError, UserError
from unlearn_bench.harness.records import Item
from unlearn_bench.harness.suite import SourceSpec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pairs = [f"bad {i}\tgood {i}" for i in range(60)]
    (tmp_path / "pairs.tsv").write_text("toxic\tneutral\n" + "\n".join(pairs) + "\n")
    (tmp_path / "wiki.raw").write_text(" \n = Title = \n A first line. \n\n A second line. \n")
    rows = [{"question": f"q{i}", "challenging": i % 2 == 0} for i in range(10)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "physics_test.csv").write_text("question,a,b\nwhy,x,y\n")
    return tmp_path


def test_columns_are_mapped_and_files_name_subjects(folder: Path) -> None:
    source = SourceSpec(path="*_test.csv", columns={"choices": "choices|a,b", "subject": "@file"})
    assert load_rows(source, folder).rows == [{"question": "why", "choices": ["x", "y"], "subject": "physics"}]


def test_the_first_rows_are_those_that_the_filters_leave(folder: Path) -> None:
    source = SourceSpec(path="rows.jsonl", where={"challenging": True}, first=2)
    assert [row["question"] for row in load_rows(source, folder).rows] == ["q0", "q2"]


def test_rows_are_filtered(folder: Path) -> None:
    assert len(load_rows(SourceSpec(path="rows.jsonl", where={"challenging": True}), folder).rows) == 5


def test_plain_text_loses_blank_lines_and_headings(folder: Path) -> None:
    source = SourceSpec(path="wiki.raw")
    assert texts(load_rows(source, folder).rows, source) == ["A first line.", "A second line."]


def test_parts_of_pairs_are_disjoint_and_complete_whatever_the_columns(folder: Path) -> None:
    def part(number: int, **options) -> set[str]:
        source = SourceSpec(path="pairs.tsv", part=f"{number}/3", **options)
        return {row["text"].split()[1] for row in load_rows(source, folder).rows}

    forget = part(0, columns={"text": "toxic"})
    probe = part(1, labels={"toxic": 1, "neutral": 0})
    scorer = part(2, labels={"toxic": 1, "neutral": 0})
    assert not forget & probe
    assert not forget & scorer
    assert not probe & scorer
    assert len(forget | probe | scorer) == 60


def test_of_several_paths_the_first_that_is_there_is_read(folder: Path) -> None:
    source = SourceSpec(path=["absent/*.csv", "rows.jsonl", "wiki.raw"])
    assert len(load_rows(source, folder).rows) == 10


def test_a_column_may_have_several_names(folder: Path) -> None:
    source = SourceSpec(path="pairs.tsv", columns={"text": "en_toxic_comment|toxic"})
    assert load_rows(source, folder).rows[0]["text"] == "bad 0"


def test_short_and_repeated_texts_are_left_out(tmp_path: Path) -> None:
    rows = [
        {"text": text, "row": number}
        for number, text in enumerate(["long enough", "no", "long enough", "longer still"])
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = SourceSpec(path="rows.jsonl", min_characters=5, distinct="text")
    assert [row["row"] for row in load_rows(source, tmp_path).rows] == [0, 3]


def test_a_downloaded_copy_stands_for_the_hub_and_configurations_are_joined(tmp_path: Path, hub_copy) -> None:
    topics = {
        f"wmdp-{topic}": {"test": [{"question": f"{topic} {i}?", "answer": i} for i in range(3)]}
        for topic in ("bio", "cyber")
    }
    hub_copy(tmp_path, "cais/wmdp", topics)
    source = SourceSpec(
        path="wmdp/*.jsonl",
        hub="cais/wmdp",
        config=["wmdp-bio", "wmdp-cyber"],
        split="test",
        columns={"subject": "subject|@file"},
    )
    rows = load_rows(source, tmp_path).rows
    assert [row["subject"] for row in rows] == ["wmdp-bio"] * 3 + ["wmdp-cyber"] * 3
    assert rows[0] == {"question": "bio 0?", "answer": 0, "subject": "wmdp-bio"}


def test_pairs_fall_into_the_same_part_in_a_file_and_on_the_hub(folder: Path, hub_copy) -> None:
    pairs = [{"en_toxic_comment": f"bad {i}", "en_neutral_comment": f"good {i}.{n}"} for i in range(60) for n in (0, 1)]
    hub_copy(folder, "s-nlp/paradetox", {"default": {"test": pairs}})
    column = "en_toxic_comment|toxic"
    split = {"columns": {"text": column}, "part": "1/3", "group": column, "distinct": "text"}
    file = SourceSpec(path="pairs.tsv", **split)
    hub = SourceSpec(hub="s-nlp/paradetox", split="test", **split)
    assert [row["text"] for row in load_rows(file, folder).rows] == [row["text"] for row in load_rows(hub, folder).rows]


def test_what_stands_in_is_said(folder: Path) -> None:
    stand_in = SourceSpec(path="rows.jsonl", note="in the place of the other")
    source = SourceSpec(path="absent.jsonl", note="the other", otherwise=stand_in)
    assert load_rows(source, folder).note == "in the place of the other"
    (folder / "absent.jsonl").write_text('{"question": "q"}\n')
    assert load_rows(source, folder).note == "the other"


def test_a_gated_data_set_is_answered_with_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def gated(*_: object, **__: object) -> None:
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'o/gated' is a gated dataset on the Hub.")

    monkeypatch.setattr(datasets, "load_dataset", gated)
    source = SourceSpec(path="gated.jsonl", hub="o/gated", gated=True, advice="Or take the suite `open`.")
    with pytest.raises(UserError) as caught:
        load_rows(source, folder)
    for part in (
        "huggingface.co/datasets/o/gated",
        "ask for access",
        "hf auth login",
        "gated.jsonl below",
        "suite `open`",
    ):
        assert part in str(caught.value)


def test_a_digest_follows_every_row_and_nothing_else(folder: Path) -> None:
    source = SourceSpec(path="rows.jsonl")
    before = load_rows(source, folder).digest
    other = folder / "elsewhere"
    other.mkdir()
    (other / "rows.jsonl").write_text((folder / "rows.jsonl").read_text())
    assert load_rows(source, other).digest == before
    changed = folder / "changed"
    changed.mkdir()
    (changed / "rows.jsonl").write_text((folder / "rows.jsonl").read_text().replace("q3", "Q3"))
    assert load_rows(source, changed).digest != before


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (SourceSpec(path="absent.jsonl"), "No file matches absent.jsonl"),
        (SourceSpec(path="rows.jsonl", columns={"text": "body"}), "no column 'body'; it has"),
        (SourceSpec(path="rows.jsonl", where={"challenging": "maybe"}), "No row is left"),
    ],
)
def test_missing_data_is_named(folder: Path, source: SourceSpec, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_rows(source, folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_rows(SourceSpec(path="rows.jsonl"), tmp_path / "nowhere")


def items(sizes: list[int]) -> list[Item]:
    return [Item(f"{s}-{i}", f"{s}-{i}", str(s), {}) for s, size in enumerate(sizes) for i in range(size)]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(1, 120), st.integers(0, 3))
def test_a_sample_is_stratified_and_exact(sizes: list[int], limit: int, seed: int) -> None:
    every = items(sizes)
    chosen = sample_items(every, limit, seed)
    assert len(chosen) == min(limit, len(every))
    assert chosen == [item for item in every if item in chosen]
    for stratum, size in enumerate(sizes):
        share = limit * size / len(every)
        count = sum(item.stratum == str(stratum) for item in chosen)
        assert limit >= len(every) or int(share) <= count <= int(share) + 1


@given(st.lists(st.integers(1, 10), min_size=1, max_size=5), st.integers(1, 20), st.randoms())
def test_a_sample_does_not_depend_on_the_order_of_rows(sizes: list[int], limit: int, random) -> None:
    every = items(sizes)
    shuffled = random.sample(every, len(every))
    assert {item.id for item in sample_items(every, limit)} == {item.id for item in sample_items(shuffled, limit)}


def test_a_sample_is_not_the_first_items() -> None:
    every = items([100])
    assert sample_items(every, 10) != every[:10]
    assert sample_items(every, 10, seed=1) != sample_items(every, 10, seed=2)


def test_a_copy_of_delimited_files_keeps_cells_as_they_stand(tmp_path: Path) -> None:
    (tmp_path / "o" / "numbers").mkdir(parents=True)
    (tmp_path / "o" / "numbers" / "test.csv").write_text("id,text\n001,1.50\n002,NA\n003,2024-01-01\n")
    source = SourceSpec(hub="o/numbers", split="test")
    assert [row["text"] for row in load_rows(source, tmp_path).rows] == ["1.50", "NA", "2024-01-01"]
    assert [row["id"] for row in load_rows(source, tmp_path).rows] == ["001", "002", "003"]
    (tmp_path / "o" / "numbers" / "test.csv").write_text("id,text\n001,one, two\n")
    with pytest.raises(DataError, match=r"test\.csv, row 1 \(line 2\) has 3 cells|Download it again"):
        load_rows(source.model_copy(update={"note": "again"}), tmp_path)


def test_a_copy_of_json_keeps_dates_as_they_stand(tmp_path: Path, hub_copy) -> None:
    hub_copy(tmp_path, "o/days", {"default": {"test": [{"text": "2024-01-01"}, {"text": "2024-01-02"}]}})
    source = SourceSpec(hub="o/days", split="test")
    assert load_rows(source, tmp_path).rows == [{"text": "2024-01-01"}, {"text": "2024-01-02"}]
