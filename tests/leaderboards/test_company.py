"""What a row says is its own: no other row changes a field of it but its ranks and the named corrections."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import Simulated
from unlearn_bench.harness.planning.status import statuses
from unlearn_bench.harness.records import Mark, Record
from unlearn_bench.harness.results.board import board_of
from unlearn_bench.leaderboards.board import Board, build_board
from unlearn_bench.leaderboards.rows.verdicts import ALONE
from unlearn_bench.leaderboards.spec import BoardSpec, Checkpoint, IntervalKind, TaskInfo, TrackRoles
from unlearn_bench.leaderboards.stats.composite import Composite

MARKS = {"empty": Mark(broken=True)}
TASKS = {
    "facts": TaskInfo("facts", "acc", 0.25, "higher", 1, chosen="position"),
    "manners": TaskInfo("manners", "acc", 0.0, "lower", 1, marks=MARKS),
    "rest": TaskInfo("rest", "acc", 0.25, "higher", 1, chosen="position"),
}
TRACKS = {
    "knowledge": TrackRoles("facts", "rest", ("manners",), neighbours=("s0",)),
    "toxicity": TrackRoles("manners", "rest", ("facts",)),
}
NAMES = ("a", "b", "c", "mine")


S = {
    "knowledge": Composite(
        "s_unlearning",
        {"forgotten": "facts.acc", "kept": "rest.acc"},
        {"forget_chance": 0.25, "retain_chance": 0.25},
        tracks=["knowledge"],
    ),
    "toxicity": Composite("s_unlearning", ["manners.acc", "rest.acc"], {"retain_chance": 0.25}, tracks=["toxicity"]),
}
MANY = {
    "auc": Composite("auc", ["facts.acc", "rest.acc"]),
    "leak": Composite("privleak", ["auc", "auc"]),
    "distance": Composite("ks", ["facts.acc", "facts.acc"]),
    "kept": Composite("quotient", ["rest.acc", "rest.acc@original"], where={"original": "rest.acc > 0.2"}),
    "whole": Composite("harmonic_mean", ["1 - facts.acc", "kept", "auc"]),
}


def spec(interval: IntervalKind) -> BoardSpec:
    return BoardSpec("any", 1, "", TRACKS, TASKS, resamples=150, margin=0.1, interval=interval)


def scores(rng: np.random.Generator, task: str, right: float, per: int) -> list[Record]:
    """Answers of one accuracy: right or wrong, or shares; a few are missing, some are empty."""
    binary, broken = rng.random() < 0.7, task == "manners" and rng.random() < 0.2
    rows = []
    for i in range(36):
        value = float(rng.random() < right) if binary else float(np.clip(rng.normal(right, 0.2), 0, 1))
        gone = rng.random() < 0.05
        row = Record(
            f"i{i}", f"c{i // per}", f"s{i // per % 3}", None if gone else {"acc": value}, "x" if gone else None
        )
        marks = {"empty": float(broken)} if task == "manners" else {}
        position = {} if gone else {"position": float(rng.integers(4))}
        rows.append(replace(row, marks=marks, scores=row.scores and {**row.scores, **position}))
    return rows


def world(rng: np.random.Generator) -> dict[str, list[Checkpoint]]:
    """Rows by name, each with its seeds, noise and replicas; the base under its own name."""
    per = int(rng.integers(1, 3))

    def made(variant: str, kind, track: str | None, seed: int | None, **right: float) -> Checkpoint:
        right = {"facts": 0.6, "manners": 0.5, "rest": 0.7, **right}
        records = {task: scores(rng, task, share, per) for task, share in right.items()}
        return Checkpoint("m", track, variant, variant, kind, seed, f"{variant}{track}{seed}", records=records)

    rows = {"base": [made("base", "base", None, None)]}
    for name in NAMES:
        own = {"facts": float(rng.choice([0.1, 0.3, 0.6])), "manners": float(rng.choice([0.05, 0.5]))}
        own["rest"] = float(rng.choice([0.3, 0.7, 0.75]))
        imported, cells = name == "mine", []
        for track in (None,) if imported else TRACKS:
            for seed in (None,) if imported else range(rng.integers(1, 4)):
                cell = made(name, "import" if imported else "method", track, seed, **own)
                noise = made(f"noise({name})", "noise", track, seed or 0)
                twin = made(f"replica({name})", "method", track, seed, **own)
                cells += [cell, replace(noise, beside="noise", of=cell.cell)]
                cells += [replace(twin, beside="replica", of=cell.cell)] if rng.random() < 0.5 else []
        rows[name] = cells
    return rows


def own(row) -> dict:
    """Return all that a row says but what is named as a statement about the whole table."""
    tests = row["tests"] and {key: test and {**test, "p_holm": None} for key, test in row["tests"].items()}
    return {**row, "rank": None, "claims": None, "tests": tests}


def assert_alike(fewer: Board, more: Board) -> None:
    """Assert that rows of the smaller board say the same on the larger, and their verdicts but for the correction."""
    whole = {(row["model"], row["track"], row["variant"]): row for row in more.rows}
    for row in fewer.rows:
        assert own(row) == own(whole[row["model"], row["track"], row["variant"]])
    by_track = {(verdict["model"], verdict["track"]): verdict for verdict in more.verdicts}
    for verdict in fewer.verdicts:
        other = by_track[verdict["model"], verdict["track"]]
        for variant in [*verdict["winners"], *verdict["leads"], *verdict["others"]]:
            before, after = said(verdict, variant), said(other, variant)
            assert before == after or ALONE in before or ALONE in after


def said(verdict, variant: str) -> str:
    words = {**dict.fromkeys(verdict["winners"], "wins"), **dict.fromkeys(verdict["leads"], "lies above")}
    return {**words, **verdict["others"]}[variant]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(("percentile", "bca")), st.sets(st.sampled_from(NAMES)))
def test_other_rows_change_nothing_of_a_row_but_ranks_and_named_corrections(seed, interval, gone):
    rows = world(np.random.default_rng(seed))
    whole = build_board(spec(interval), [cell for cells in rows.values() for cell in cells])
    kept = [cell for name, cells in rows.items() if name not in gone for cell in cells]
    assert_alike(build_board(spec(interval), kept), whole)


def test_what_is_named_as_the_tables_does_change():
    """The comparison above is no comparison of nothing: claims and ranks of a row are not those of a smaller table."""
    rows = world(np.random.default_rng(1))
    whole = build_board(spec("percentile"), [cell for cells in rows.values() for cell in cells])
    alone = build_board(spec("percentile"), [*rows["base"], *rows["a"]])
    pairs = [(row, next(r for r in whole.rows if own(r) == own(row))) for row in alone.rows if row["variant"] == "a"]
    assert any(one["claims"] != other["claims"] for one, other in pairs)
    assert any(one["rank"] != other["rank"] for one, other in pairs)


def test_a_verdict_by_the_correction_is_named_so(toy):
    """Rows that are above base when taken alone fall behind the correction as others join, and say why."""
    close = toy.noised(toy.checkpoint("close", wmdp=0.61, mmlu=0.72))
    crowd = [cell for k in range(12) for cell in toy.noised(toy.checkpoint(f"other{k}", wmdp=0.4 + 0.02 * k))]
    few, many = (build_board(toy.spec(), [toy.base(), *cells]) for cells in (close, [*close, *crowd]))
    assert_alike(few, many)
    assert ALONE not in said(few.verdicts[0], "close")
    assert ALONE in said(many.verdicts[0], "close")


def test_cells_of_other_rows_in_a_store_change_no_verdict(tmp_path):
    """The same over a store: rows and verdicts from its records, with all of its cells and without some of them."""
    simulated = Simulated.planned(tmp_path, variants=3, seeds=1, limit=40)
    store = simulated.finish(tmp_path / "store")

    found = statuses(simulated.plan, store)
    rows = {status.cell.id: status.cell.spec.variant for status in found}

    def without(*gone: str) -> Board:
        kept = [
            status
            for status in found
            if not {rows[status.cell.id], *(rows.get(parent) for parent in status.cell.spec.parents)} & set(gone)
        ]
        return board_of(simulated.plan, store, kept)

    whole = without()
    for gone in ((), ("v000",), ("v001", "v002")):
        assert_alike(without(*gone), whole)


def values(board: Board, name: str, track: str = "knowledge") -> dict:
    """The values of a composite by row."""
    table = next(table for table in board.composites if table["track"] == track)
    return {row["variant"]: row["values"][name] for row in table["rows"]}


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_s_is_a_composite_with_the_same_numbers_and_intervals(seed: int) -> None:
    rows = world(np.random.default_rng(seed))
    cells = [cell for row in rows.values() for cell in row]
    board = build_board(replace(spec("percentile"), composites=S), cells)
    plain = build_board(spec("percentile"), cells)
    assert board.rows == plain.rows
    for row in board.rows:
        found = values(board, row["track"], row["track"])[row["variant"]]
        assert found["value"] == (row["s_unlearning"] or row["raw_s"])
        if row["broken"] is None:
            assert found["delta_base"] == row["delta_base"]
        assert (found["missing"], found["p"]) == (None, [])


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sets(st.sampled_from(NAMES), min_size=1))
def test_other_rows_do_not_change_a_rows_composites(seed: int, gone: set[str]) -> None:
    rows = world(np.random.default_rng(seed))
    named = [
        replace(cell, variant="retrained", kind="reference", role="retain", seed=place)
        for place, cell in enumerate(rows["b"])
        if cell.beside is None and cell.track == "knowledge"
    ]
    every = [cell for row in rows.values() for cell in row]
    fewer = [cell for name, row in rows.items() if name not in gone for cell in row]
    whole, part = (
        build_board(replace(spec("percentile"), composites=MANY), [*cells, *named]) for cells in (every, fewer)
    )
    for name in MANY:
        assert values(whole, name).items() >= values(part, name).items()
    again = build_board(replace(spec("percentile"), composites=MANY), [*named, *reversed(every)])
    assert again.to_json() == whole.to_json()
