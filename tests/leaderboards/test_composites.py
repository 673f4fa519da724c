"""Composites: statistics of scores of several tasks and checkpoints, resampled as S is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.records import Record
from unlearn_bench.leaderboards.board import build_board, load_board
from unlearn_bench.leaderboards.stats.arrays import Answers, collect
from unlearn_bench.leaderboards.stats.bootstrap import Draws, bootstrap_means
from unlearn_bench.leaderboards.stats.composite import Composite, definitions
from unlearn_bench.leaderboards.stats.formula import Sample, statistic, statistics
from unlearn_bench.leaderboards.stats.metrics import Floats
from unlearn_bench.leaderboards.stats.two_sample import auc, ks
from unlearn_bench.reports.comparison.compare import compare_sides
from unlearn_bench.reports.comparison.composites import independent
from unlearn_bench.reports.comparison.model import Side
from unlearn_bench.reports.comparison.report import ComparisonReport


def values(board, name: str, track: str = "knowledge") -> dict:
    """The values of a composite by row."""
    table = next(table for table in board.composites if table["track"] == track)
    return {row["variant"]: row["values"][name] for row in table["rows"]}


def test_a_reference_against_itself_is_no_different(toy) -> None:
    composites = {
        "distance": Composite("ks", ["rtp.toxicity", "rtp.toxicity"]),
        "auc": Composite("auc", ["wmdp.acc", "mmlu.acc"]),
        "leak": Composite("privleak", ["auc", "auc"]),
        "like": Composite("likeness", ["auc", "auc"]),
    }
    reference = toy.checkpoint("retrained", "reference", seed=None, wmdp=0.3, role="retain")
    board = build_board(toy.spec(composites=composites), [toy.base(), *toy.seeded("rmu"), reference])
    nothing, all_of_it = ({"value": v, "low": v, "high": v} for v in (0.0, 1.0))
    own = {name: values(board, name)["retrained"] for name in composites}
    assert (own["distance"]["value"], own["distance"]["p"]) == (nothing, [1.0])
    assert own["leak"]["value"] == nothing
    assert own["like"]["value"] == all_of_it
    assert own["leak"]["delta_base"]["high"] < 0
    assert own["distance"]["delta_base"] is None
    assert values(board, "distance")["rmu"]["checkpoints"] == len(values(board, "distance")["rmu"]["p"]) == 3
    assert [row["variant"] for row in board.composites[0]["rows"]][:2] == ["retrained", "base"]
    text = board.to_markdown(details=True)
    assert "`retrained` stands as retain." in text
    assert "distance, `base`: the track has no retain checkpoint." in text
    assert "Composites less those of base" in text


def test_every_form_of_a_board_has_its_composites(toy, tmp_path: Path) -> None:
    board = build_board(
        toy.spec(composites={"both": Composite("harmonic_mean", ["1 - wmdp.acc", "mmlu.acc"])}), [toy.base()]
    )
    (tmp_path / "board.json").write_text(board.to_json())
    again = load_board(tmp_path / "board.json")
    assert again.to_json() == board.to_json()
    assert again.to_markdown(details=True) == board.to_markdown(details=True)
    assert "composite_both_value_value" in board.to_csv()
    assert "toy-tiny-knowledge-composites" in board.to_latex()
    assert "both ↑" in board.to_markdown()
    bare = build_board(toy.spec(), [toy.base()])
    assert "omposite" not in bare.to_json() + bare.to_markdown(details=True) + bare.to_csv() + bare.to_latex()


def test_what_is_missing_is_missing_with_its_reason(toy) -> None:
    composites = {
        "distance": Composite("ks", ["wmdp.acc", "wmdp.acc"]),
        "loss": Composite("harmonic_mean", ["wmdp.loss", "mmlu.acc"]),
        "left": Composite("harmonic_mean", ["wmdp.acc"], where={"original": "wmdp.acc > 2"}),
        "share": Composite("quotient", ["wmdp.acc", 0.0]),
        "some": Composite("harmonic_mean", ["wmdp.acc"]),
    }
    failed = toy.checkpoint("rmu", seed=1, status="failed", failure="it ran out of memory")
    pending = toy.checkpoint("npo", status="pending")
    board = build_board(toy.spec(composites=composites), [toy.base(), toy.checkpoint("rmu"), failed, pending])
    reasons = {name: {row: one["missing"] for row, one in values(board, name).items()} for name in composites}
    assert reasons["distance"]["rmu"] == "the track has no retain checkpoint"
    assert reasons["loss"]["rmu"] == "its records of wmdp have no loss: they have acc"
    assert reasons["left"]["base"] == "no item of wmdp is left by its `where`"
    assert reasons["share"]["base"] == "what it would be divided by is 0"
    assert reasons["some"] == {"base": None, "rmu": "1 of 2: failed: it ran out of memory", "npo": "not run yet"}
    for name in ("distance", "loss", "left", "share"):
        assert [one["value"] for one in values(board, name).values()] == [None] * 3
    assert values(board, "some")["rmu"]["value"]


def test_items_are_filtered_by_what_a_role_knew(toy) -> None:
    known = {row.item for row in toy.base().records["wmdp"] if row.scores["acc"] == 1}
    cells = [toy.base(), toy.checkpoint("rmu", wmdp=0.3)]
    composites = {
        "known": Composite("mean", ["wmdp.acc"], where={"original": "wmdp.acc >= 1"}),
        "also": Composite("harmonic_mean", ["wmdp.acc"], where={"base": ["wmdp.acc >= 1", "wmdp.acc < 2"]}),
        "rest": Composite("mean", ["mmlu.acc"], where={"original": "wmdp.acc >= 1"}),
    }
    board = build_board(toy.spec(composites=composites), cells)
    own = [row.scores["acc"] for row in cells[1].records["wmdp"] if row.item in known]
    found = values(board, "known")["rmu"]
    assert (found["value"]["value"], found["n"]) == (pytest.approx(np.mean(own), abs=1e-6), len(known))
    assert values(board, "also")["rmu"]["value"] == found["value"]
    assert values(board, "known")["base"]["value"]["value"] == 1.0
    assert values(board, "rest")["rmu"]["n"] == 120


def test_references_of_several_seeds_are_crossed(toy) -> None:
    several = [toy.checkpoint("retrained", "reference", seed=k, wmdp=0.3, role="retain") for k in range(2)]
    composites = {
        "share": Composite("quotient", ["wmdp.acc", "wmdp.acc@retain"]),
        "d": Composite("ks", ["wmdp.acc"] * 2),
    }
    board = build_board(toy.spec(composites=composites), [toy.base(), *several])
    means = [np.mean([row.scores["acc"] for row in cell.records["wmdp"]]) for cell in [toy.base(), *several]]
    expected = np.mean([means[0] / means[1], means[0] / means[2]])
    assert values(board, "share")["base"]["value"]["value"] == pytest.approx(expected, abs=1e-6)
    assert len(values(board, "d")["base"]["p"]) == 2


@pytest.mark.parametrize(
    ("composite", "words"),
    [
        (Composite("kss", ["facts.acc", "facts.acc"]), "Unknown statistic 'kss'. Did you mean 'ks'"),
        (Composite("ks", ["facts.acc"]), "it was not given retain"),
        (Composite("ks", ["facts.acc"] * 3), "it was given 3"),
        (Composite("ks", {"unlearned": "facts.acc", "kept": "facts.acc"}), "it knows no 'kept'"),
        (Composite("ks", ["facts.acc", "x"]), "computed of items"),
        (Composite("quotient", ["fact.acc", "facts.acc"]), "neither TASK.SCORE nor a composite"),
        (Composite("quotient", ["x", "facts.acc"]), "made of itself"),
        (Composite("harmonic_mean", []), "is of nothing"),
        (Composite("harmonic_mean", ["facts.acc"], {"a": 1}), "has no setting 'a'"),
        (Composite("mean", ["facts.acc"], where={"retain": "facts.acc is 1"}), "is no condition"),
        (Composite("mean", ["facts.acc"], where={"other": "facts.acc > 1"}), "said of a role"),
        (Composite("mean", ["facts.acc"], tracks=["know"]), "names the track 'know'"),
        (Composite("mean", ["spare.acc"]), "needs spare: add it to the `controls`"),
        (Composite("mean", [""]), "is empty"),
    ],
)
def test_a_composite_that_cannot_be_computed_is_refused(composite: Composite, words: str) -> None:
    tracks = {"knowledge": ["facts", "rest"], "toxicity": ["manners", "rest"]}
    with pytest.raises(UserError, match=words):
        definitions({"x": composite}, ["facts", "rest", "manners", "spare"], tracks)


def test_names_of_tasks_may_have_points() -> None:
    known = definitions({"x": Composite("mean", ["a.b.c.d"])}, ["a", "a.b"], {"t": ["a", "a.b"]})
    assert [(score.task, score.name) for score in known["x"].scores] == [("a.b", "c.d")]


def test_a_statistic_is_one_function(toy) -> None:
    @statistic("spread", better="lower")
    def spread(items: Sample, *, power: float = 1.0) -> Floats:
        return items.mean(np.abs(items.values - items.values.mean()) ** power)

    try:
        composites = {"spread": Composite("spread", ["wmdp.acc"], {"power": 2})}
        board = build_board(toy.spec(composites=composites), [toy.base()])
        acc = [row.scores["acc"] for row in toy.base().records["wmdp"]]
        found = values(board, "spread")["base"]["value"]
        assert found["value"] == pytest.approx(np.var(acc), abs=1e-6)
        assert found["low"] < found["value"] < found["high"]
    finally:
        del statistics._found["spread"]


def table(rng, n: int, per: int):
    rows = [Record(f"i{i}", f"c{i // per}", f"s{i // per % 3}", {"a": float(rng.normal())}) for i in range(n)]
    return collect([Answers.of(rows)], "a")


@pytest.mark.parametrize(("n", "per", "chunk"), [(60, 2, 4_000_000), (61, 1, 100), (5, 2, 7), (1, 1, 10)])
def test_samples_have_the_draws_of_the_means(monkeypatch, n: int, per: int, chunk: int) -> None:
    monkeypatch.setattr("unlearn_bench.leaderboards.stats.bootstrap._CHUNK", chunk)
    scores = table(np.random.default_rng(n), n, per)
    means = bootstrap_means(scores, 50, np.random.default_rng(3))[1:, 0]
    draws = Draws.of(scores, 50, np.random.default_rng(3))
    sample = Sample(scores.values[:, 0], draws.weights(slice(None), scores.clusters))
    if len(scores.starts) > 1:
        assert sample.mean() == pytest.approx(means, rel=1e-12)


def test_weighted_statistics_are_those_of_repeated_items() -> None:
    rng = np.random.default_rng(0)
    one, other = (rng.integers(0, 9, size).astype(float) for size in (30, 40))
    weights = [rng.integers(0, 3, (5, len(side))) for side in (one, other)]
    found = auc(*(Sample(side, w.astype(float)) for side, w in zip((one, other), weights, strict=True)))
    for b in range(5):
        low, high = (np.repeat(side, w[b]) for side, w in zip((one, other), weights, strict=True))
        wins = (high[:, None] > low).mean() + (high[:, None] == low).mean() / 2
        assert found[b] == pytest.approx(wins, abs=1e-12)
    data, plain = ks(Sample.of(one), Sample.of(other))[0], ks(*(Sample(x, np.ones((4, len(x)))) for x in (one, other)))
    points = np.arange(9)
    shares = [(side[:, None] <= points).mean(axis=0) for side in (one, other)]
    assert data == np.abs(shares[0] - shares[1]).max()
    assert (plain == data).all()


def test_two_boards_are_compared_by_their_composites_too(toy) -> None:
    composites = {
        "utility": Composite("harmonic_mean", ["1 - wmdp.acc", "mmlu.acc"]),
        "distance": Composite("ks", ["wmdp.acc", "wmdp.acc"]),
    }

    def side(name: str, more: dict | None = None, **accuracies: float) -> Side:
        reference = toy.checkpoint("retrained", "reference", seed=None, wmdp=0.3, role="retain")
        cells = [toy.base(), toy.checkpoint("rmu", **accuracies), reference]
        return Side.of_board(name, build_board(toy.spec(composites=composites | (more or {})), cells))

    a, b = side("a", wmdp=0.5, mmlu=0.6), side("b", wmdp=0.3, mmlu=0.6)
    comparison = compare_sides(a, b)
    found = {(one.variant, one.name): one for one in comparison.composites}
    utility, distance = found["rmu", "utility"], found["rmu", "distance"]
    assert utility.difference == independent(utility.a, utility.b)
    assert utility.difference["value"] == pytest.approx(utility.b["value"] - utility.a["value"])
    assert utility.difference["low"] < utility.difference["value"] < utility.difference["high"]
    assert distance.difference is distance.reason is None
    told = ComparisonReport("a", "b", [comparison])
    assert "### Composites" in told.to_text()
    assert '"utility"' in told.to_json()
    without = compare_sides(*(Side(one.name, one.spec, {}, one.asked, rows=one.rows) for one in (a, b)))
    assert without.rows == comparison.rows
    assert told.status == ComparisonReport("a", "b", [without]).status
    assert "Composites" not in ComparisonReport("a", "b", [without]).to_text()
    other = side("b", {"utility": Composite("mean", ["mmlu.acc"])}, wmdp=0.3, mmlu=0.6)
    apart = next(one for one in compare_sides(a, other).composites if one.name == "utility")
    assert (apart.difference, apart.reason) == (None, "the composite is another one")


def test_the_difference_of_independent_estimates_has_the_arms_of_both() -> None:
    a, b = {"value": 0.5, "low": 0.2, "high": 0.54}, {"value": 0.7, "low": 0.67, "high": 0.82}
    found = independent(a, b)
    assert found == {"value": pytest.approx(0.2), "low": pytest.approx(0.15), "high": pytest.approx(0.2 + 0.32311)}
    assert independent(a, {"value": 0.7, "low": None, "high": None})["low"] is None
