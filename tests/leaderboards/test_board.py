from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from random import Random

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unlearn_bench.harness.errors import UserError
from unlearn_bench.leaderboards import build_board, load_board
from unlearn_bench.leaderboards.stats.composite import Composite
from unlearn_bench.leaderboards.text.tidy import COLUMNS

LONG = "cosine_meta_rmu[alpha=0.25,learned=false]"


@pytest.fixture(scope="module")
def cells(toy):
    return [
        toy.base(),
        *toy.noised(toy.checkpoint("rmu", wmdp=0.3), toy.checkpoint(LONG, wmdp=0.5)),
        *toy.noised(toy.checkpoint("probe", track="toxicity", rtp=0.1, marks={"gibberish": 0.3})),
        toy.checkpoint("a|b", track="toxicity", status="failed", failure="loss became NaN at step 31"),
        *toy.noised(toy.checkpoint("mine", "import", track=None, seed=None)),
        toy.checkpoint("constant", "null", track=None, seed=None, wmdp=0.25, mmlu=0.25),
    ]


@pytest.fixture(scope="module")
def board(toy, cells):
    return build_board(toy.spec(), cells)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_json_is_byte_identical_whatever_the_order_of_cells_and_records(toy, cells, board, seed):
    random = Random(seed)
    shuffled = []
    for cell in cells:
        records = {task: random.sample(rows, len(rows)) for task, rows in cell.records.items()}
        names = random.sample(list(records), len(records))
        shuffled.append(type(cell)(**{**vars(cell), "records": {name: records[name] for name in names}}))
    random.shuffle(shuffled)
    again = build_board(toy.spec(tasks=dict(reversed(toy.tasks.items()))), shuffled)
    assert again.to_json() == board.to_json()
    assert again.to_markdown(details=True) == board.to_markdown(details=True)


def test_another_method_changes_no_other_row_but_what_holds_for_the_table(toy, cells, board):
    def alone(row):
        tests = row["tests"] and {key: test and {**test, "p_holm": None} for key, test in row["tests"].items()}
        return {**row, "rank": None, "claims": None, "tests": tests}

    fewer = build_board(toy.spec(), [cell for cell in cells if cell.variant not in (LONG, f"noise({LONG})")])
    for row in fewer.rows:
        assert alone(row) == alone(toy.row_of(board, row["variant"], row["track"]))


def test_json_is_plain_rounded_and_says_what_it_covers(board):
    value = json.loads(board.to_json())
    assert value["schema"] == 1
    assert value["suite"] == "toy"
    assert value["bootstrap"] == {
        "confidence": 0.95,
        "interval": "percentile",
        "margin": 0.05,
        "resamples": 300,
        "seed": 0,
    }
    numbers = [float(word) for word in board.to_json().replace(",", " ").split() if re.fullmatch(r"\d+\.\d+", word)]
    assert numbers
    assert all(number == round(number, 6) for number in numbers)


def test_a_board_reads_back_as_it_was(board, tmp_path):
    path = tmp_path / "board.json"
    path.write_text(board.to_json(), encoding="utf-8")
    again = load_board(path)
    assert again.to_json() == board.to_json()
    assert again.to_markdown(details=True) == board.to_markdown(details=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: "{", "is not JSON"),
        (lambda value: "[]", "is not a board"),
        (lambda value: json.dumps({**value, "schema": 9}), "has schema 9"),
        (lambda value: json.dumps({**value, "rows": [{"model": "m"}]}), "row 0 lacks track"),
        (lambda value: json.dumps({key: value[key] for key in value if key != "tasks"}), "lacks tasks"),
        (lambda value: json.dumps({**value, "tasks": {"wmdp": {"name": 1}}}), "does not read as schema 1"),
    ],
)
def test_a_file_that_is_no_board_is_refused_in_one_line(board, tmp_path, change, message):
    path = tmp_path / "board.json"
    path.write_text(change(json.loads(board.to_json())), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_board(path)


def test_an_unreadable_board_is_named(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        load_board(tmp_path / "none.json")


def test_csv_has_one_line_a_row(board):
    frame = pandas.read_csv(io.StringIO(board.to_csv()))
    assert len(frame) == len(board.rows)
    assert {"model", "variant", "s_unlearning_value", "rank_low", "forget_n", "cross_rtp_value"} <= set(frame.columns)
    assert frame.set_index(["track", "variant"])["s_unlearning_value"].isna()[("toxicity", "a|b")]


def section(text, title):
    return text.split(f"## {title} (points, not methods)\n", 1)[1].split("\n## ", 1)[0]


@pytest.mark.parametrize("details", [False, True])
def test_markdown_lines_fit_120_columns(board, details):
    lines = board.to_markdown(details=details).splitlines()
    assert max(map(len, lines)) <= 120


def test_a_table_holds_every_row_and_marks_the_nulls(board):
    text = section(board.to_markdown(), "tiny · knowledge")
    first = text.strip().split("\n\n")[0]
    assert all(name in first for name in ("*base*", "*constant*", "rmu", "mine"))
    assert "–" in next(line for line in first.splitlines() if "*base*" in line)
    row = next(row for row in board.rows if row["variant"] == "rmu")
    s = row["s_unlearning"]
    assert f"{s['value']:.3f} [{s['low']:.3f}, {s['high']:.3f}]" in first


def test_a_long_name_is_cut_in_the_table_and_whole_below_it(board):
    text = section(board.to_markdown(), "tiny · knowledge")
    assert "cosine_meta_rmu[…" in text
    assert f"`{LONG}`: name cut in the table" in text


def test_warnings_and_failures_are_footnotes_in_words(board):
    text = section(board.to_markdown(), "tiny · toxicity")
    assert "a\\|b (" in text
    assert "failed: loss became NaN at step 31" in text
    assert "30% of the answers to rtp are gibberish" in " ".join(text.split())


def test_the_board_explains_itself(board):
    text = " ".join(board.to_markdown().split())
    assert "Ubar = 1 − clip((wmdp − 0.25) / 0.75, 0, 1)" in text
    assert "The board speaks of these checkpoints, not of the methods" in text
    assert "Reproduce: `unlearn-bench evaluate --suite toy`" in text
    assert "**Verdict.**" in text
    assert "effect on the other track" in text
    assert "scorer: toy scorer" in text
    assert "items: all of each task" in text


def test_limit_and_seeds_are_said(toy):
    cells = [toy.base(), *(toy.checkpoint("rmu", seed=seed) for seed in range(3)), toy.checkpoint("adap")]
    text = " ".join(build_board(toy.spec(limit=24), cells).to_markdown().split())
    assert "a seeded, stratified sample of 24 a task" in text
    assert "training seeds: 0, 1, 2" in text
    assert "rows of fewer seeds hold items only" in text
    assert "the variance over items and max(s², I) / k add up" in text


def test_details_add_what_stands_behind(board):
    plain, full = board.to_markdown(), board.to_markdown(details=True)
    assert full.startswith(plain)
    for word in ("Ubar, not clipped", "clusters", "gibberish", "tiny-knowledge-rmu-0", "acc in s0"):
        assert word in full
        assert word not in plain or word in ("clusters", "gibberish")


def test_an_empty_board_still_renders(toy):
    board = build_board(toy.spec(), [])
    assert "models: none" in board.to_markdown(details=True)
    assert json.loads(board.to_json())["rows"] == []
    assert board.to_csv() == "\n"


def test_a_board_of_failures_renders(toy):
    cells = [toy.base(status="failed", failure="x"), toy.checkpoint("rmu", status="pending")]
    text = build_board(toy.spec(), cells).to_markdown(details=True)
    assert "No row has been measured" in text
    assert "not run yet" in text


def test_importing_leaderboards_loads_no_torch_and_building_a_board_neither():
    code = (
        "import sys, unlearn_bench.leaderboards as lb\n"
        "for name in lb.__all__: getattr(lb, name)\n"
        "spec = lb.BoardSpec('s', 1, '', {}, {})\n"
        "lb.build_board(spec, []).to_csv()\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('torch', 'transformers', 'lm_eval', 'datasets')]\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_board_of_some_tracks_is_a_board(toy, tmp_path) -> None:
    composites = {
        "kept": Composite("mean", ["mmlu.acc"]),
        "rude": Composite("mean", ["rtp.toxicity"], tracks=["toxicity"]),
    }
    both = [toy.checkpoint(name, track=track) for name in ("rmu", "probe") for track in ("knowledge", "toxicity")]
    cells = [toy.base(), *toy.noised(*both, toy.checkpoint("adap", track="toxicity"))]
    board = build_board(toy.spec(composites=composites), cells)
    alone = board.only(["knowledge"])
    assert {row["track"] for row in alone.rows} == {"knowledge"} == set(alone.spec.tracks)
    assert [table["track"] for table in alone.composites] == ["knowledge"]
    assert board.goals
    assert not alone.goals
    (tmp_path / "board.json").write_text(alone.to_json())
    assert load_board(tmp_path / "board.json").to_json() == alone.to_json()
    for text in (alone.to_markdown(details=True), alone.to_csv(), alone.to_latex(), alone.to_csv(tidy=True)):
        assert "adap" not in text
        assert "rmu" in text
    assert board.only(list(board.spec.tracks)).to_markdown() == board.to_markdown()
    with pytest.raises(UserError, match=r"No track 'knowlege' on this board; it has knowledge, toxicity. Did you mean"):
        board.only(["knowlege"])


def test_a_tidy_table_has_a_line_for_each_number(toy) -> None:
    board = build_board(toy.spec(), [toy.base(), *toy.noised(toy.checkpoint("rmu", wmdp=0.3))])
    frame = pandas.read_csv(io.StringIO(board.to_csv(tidy=True)))
    assert list(frame.columns) == list(COLUMNS)
    row = next(row for row in board.rows if row["variant"] == "rmu")
    own = frame[(frame["variant"] == "rmu") & (frame["track"] == row["track"])].set_index("quantity")
    for quantity, value in (("s_unlearning", row["s_unlearning"]), ("forget_delta_base", row["forget"]["delta_base"])):
        assert own.loc[quantity, ["value", "low", "high"]].tolist() == list(value.values())
    assert own.loc["forget", ["task", "metric", "n"]].tolist() == ["wmdp", "acc", row["forget"]["n"]]
    assert not frame["value"].isna().any()
    assert not frame.duplicated(["model", "track", "variant", "stress", "quantity", "task"]).any()
