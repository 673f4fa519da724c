"""Values of others and final alphas beside ours."""

from __future__ import annotations

import json

import pytest
from unlearn_bench.leaderboards.board import build_board, load_board
from unlearn_bench.leaderboards.spec import Published

PUBLISHED = Published(
    "a paper's table",
    {"tiny": {"knowledge": {"base": 0.29, "rmu": 0.29, "cosine": 0.0, "never_run": 0.5}}},
    {"tiny": {"knowledge": {"cosine": 43.0}}},
)


@pytest.fixture(scope="module")
def cells(toy):
    return [
        toy.base(),
        toy.checkpoint("noise", "noise"),
        toy.checkpoint("rmu", status="failed", failure="x"),
        *(toy.checkpoint("cosine", seed=seed, alpha=alpha) for seed, alpha in enumerate((1.25, 2.5, 30.0))),
        toy.checkpoint("probe", track="toxicity", alpha=0.5),
        toy.checkpoint("cosine", track="toxicity", alpha=7.0),
        toy.checkpoint("rmu", "import", track="toxicity", seed=None),
    ]


@pytest.fixture(scope="module")
def board(toy, cells):
    return build_board(toy.spec(published=PUBLISHED), cells)


def beside(board, model="tiny", track="knowledge"):
    section = board.to_markdown().split(f"## {model} · {track} · beside S\n", 1)[1].split("\n## ", 1)[0]
    _, found, text = section.partition("**Beside the published values**")
    return " ".join(text.split()) if found else None


def test_rows_hold_the_published_s_and_the_final_alpha_of_each_seed(toy, board):
    rows = {row["variant"]: row for row in board.rows if row["track"] == "knowledge"}
    assert {name: row["published"] for name, row in rows.items()} == {
        "base": 0.29,
        "noise": None,
        "rmu": 0.29,
        "cosine": 0.0,
    }
    assert rows["cosine"]["alpha"] == {"values": [1.25, 2.5, 30.0], "published": 43.0}
    assert rows["base"]["alpha"] is None
    assert toy.row_of(board, "probe", "toxicity")["alpha"] == {"values": [0.5], "published": None}


def test_published_values_stand_beside_ours_with_what_they_lack(toy, board):
    text = beside(board)
    s = toy.row_of(board, "cosine")["s_unlearning"]
    cosine = f"| cosine | {s['value']:.3f} [{s['low']:.3f}, {s['high']:.3f}] | 0.00 | 1.25, 2.5, 30 | 43 |"
    assert cosine in text
    assert "failed | 0.29 | – | – |" in text
    assert "of a paper's table" in text
    assert "no intervals and no seeds" in text
    assert "*noise*" not in text


def test_what_was_not_published_has_no_table_but_its_alpha_in_the_details(toy, cells, board):
    assert beside(board, track="toxicity") is None
    assert beside(build_board(toy.spec(), cells)) is None
    details = board.to_markdown(details=True).split("tiny · toxicity · behind the numbers")[1]
    assert "- `probe`: 0.5\n" in details
    assert "- `cosine`: 7\n" in details


def test_a_published_value_is_of_a_method_not_of_an_import_by_its_name(toy):
    imported = toy.checkpoint("rmu", "import", track=None, seed=None)
    assert toy.row_of(build_board(toy.spec(published=PUBLISHED), [imported]), "rmu")["published"] is None


def test_many_seeds_are_summed_up_within_the_width(toy):
    cells = [toy.checkpoint("cosine", seed=seed, alpha=10.0**seed) for seed in range(5)]
    board = build_board(toy.spec(published=PUBLISHED), cells)
    assert "2.22e+03 (1 to 1e+04)" in beside(board)
    assert max(map(len, board.to_markdown(details=True).splitlines())) <= 120


def test_published_values_are_kept_in_json_and_csv(board, tmp_path):
    path = tmp_path / "board.json"
    path.write_text(board.to_json(), encoding="utf-8")
    assert json.loads(board.to_json())["published"]["values"]["tiny"]["knowledge"]["never_run"] == 0.5
    again = load_board(path)
    assert again.to_json() == board.to_json()
    assert again.to_markdown(details=True) == board.to_markdown(details=True)
    assert "1.25; 2.5; 30.0" in board.to_csv()


def test_a_board_written_before_these_keys_still_reads(toy, cells, tmp_path):
    board = build_board(toy.spec(), cells)
    value = json.loads(board.to_json())
    del value["published"]
    for roles in value["tracks"].values():
        del roles["controls"]
    for row in value["rows"]:
        for key in ("controls", "published", "alpha", "noise_shares", "tests"):
            del row[key]
        for part in (row["forget"], row["retain"], *row["cross"]):
            if part:
                del part["strata_intervals"], part["interval"]
    path = tmp_path / "old.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    again = load_board(path)
    assert [row["s_unlearning"] for row in again.rows] == [row["s_unlearning"] for row in board.rows]
    assert again.rows[0]["forget"]["interval"] == "bootstrap"
    for words in ("By stratum", "Holm", "Wilson"):
        assert words not in again.to_markdown(details=True)
