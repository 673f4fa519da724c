"""Two runs side by side: what is noise, what is not, what cannot be compared, and the exit status that follows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from unlearn_bench.harness import Request, evaluate
from unlearn_bench.harness.cli import main
from unlearn_bench.harness.records import Mark, Record
from unlearn_bench.harness.store.files import read_sealed, write_sealed
from unlearn_bench.leaderboards.board import build_board
from unlearn_bench.leaderboards.spec import BoardSpec, Checkpoint, TaskInfo, TrackRoles
from unlearn_bench.leaderboards.stats.simultaneous import simultaneous
from unlearn_bench.reports.comparison.compare import Boards, Draft, compare_sides, identity_changes
from unlearn_bench.reports.comparison.judgement import Reproduction, Training, pooled_sd, reach, unjudged
from unlearn_bench.reports.comparison.model import Quantity, RowComparison, Side
from unlearn_bench.reports.comparison.report import ComparisonReport

SPEC = BoardSpec(
    suite="toy",
    revision=1,
    description="",
    tracks={"knowledge": TrackRoles("wmdp", "mmlu")},
    tasks={"wmdp": TaskInfo("wmdp", "acc", 0.25, "higher", 1), "mmlu": TaskInfo("mmlu", "acc", 0.25, "higher", 1)},
    resamples=400,
)
ITEMS = 200
MARKS = {"gibberish": Mark(broken=True)}
ASKED = {("tiny", task): {"data": "d1", "items": "i1"} for task in SPEC.tasks}


def records(task: str, right: int, *, missing: range = range(0)) -> list[Record]:
    """Records of which the first `right` in one fixed order of difficulty are answered."""
    order = np.random.default_rng(len(task)).permutation(ITEMS)
    return [
        Record(f"{task}-{i}", f"c{i}", f"s{i % 4}", None if i in missing else {"acc": float(order[i] < right)})
        for i in range(ITEMS)
    ]


def made(variant="rmu", kind="method", *, wmdp=120, mmlu=140, seed: int | None = 0, **more) -> Checkpoint:
    status = more.pop("status", "ok")
    missing = more.pop("missing", range(0))
    found = {"wmdp": records("wmdp", wmdp), "mmlu": records("mmlu", mmlu, missing=missing)}
    track = None if kind == "base" else "knowledge"
    return Checkpoint(
        "tiny", track, variant, variant, kind, seed, f"{variant}{seed}", status=status, records=found, **more
    )


def base(**more) -> Checkpoint:
    return made("base", "base", **{"seed": None, "wmdp": 130, "mmlu": 150, **more})


def side(*checkpoints: Checkpoint, name="A", asked=ASKED, trained="once", machine=None, **identity) -> Side:
    """A side of checkpoints that came from their cell by a training of this name; None: which is not known."""
    trainings = {c.cell: Training(c.cell, trained and f"{c.cell} {trained}", machine or {}) for c in checkpoints}
    return Side(name, SPEC, identity, asked, checkpoints, trainings=trainings)


def compared(a: Side, b: Side) -> ComparisonReport:
    return ComparisonReport("A", "B", [compare_sides(a, b)])


def row(report: ComparisonReport, variant: str = "rmu") -> RowComparison:
    return next(row for row in report.comparisons[0].rows if row.variant == variant)


def quantity(report: ComparisonReport, name: str, variant: str = "rmu") -> Quantity:
    return next(each for each in row(report, variant).quantities if each.name == name)


def test_the_same_records_are_no_difference_to_the_last_bit() -> None:
    seeds = [made(seed=seed, wmdp=100 + 20 * seed) for seed in range(3)]
    report = compared(side(base(), *seeds), side(base(), *seeds))
    assert report.status == 0
    assert {each.change for each in row(report).quantities} == {"same"}
    assert quantity(report, "S").difference == {"value": 0.0, "low": 0.0, "high": 0.0}, "seeds are paired too"
    assert "No difference." in report.to_text()


@pytest.mark.parametrize(
    ("change", "name", "word", "status"),
    [
        ({"mmlu": 100}, "retain", "worse", 1),
        ({"wmdp": 160}, "forget", "worse", 1),
        ({"wmdp": 80}, "forget", "better", 0),
        ({"mmlu": 180}, "retain", "better", 0),
        ({"mmlu": 139}, "retain", "within noise", 0),
    ],
)
def test_a_large_change_is_told_from_noise_and_by_its_direction(change, name, word, status) -> None:
    report = compared(side(base(), made()), side(base(), made(**change)))
    assert quantity(report, name).change == word
    assert quantity(report, "S").change in (word, "within noise")
    assert report.status == status
    other = "forget" if name == "retain" else "retain"
    assert quantity(report, other).change == "same"


def test_a_base_that_moved_is_neither_better_nor_worse_unless_it_lost_utility() -> None:
    moved = compared(side(base()), side(base(wmdp=60)))
    assert quantity(moved, "forget", "base").change == "moved"
    assert moved.status == 0
    assert "Moved by more than noise" in moved.to_text()
    assert compared(side(base()), side(base(mmlu=80))).status == 1


def test_other_data_are_not_comparable_and_never_subtracted() -> None:
    other = {**ASKED, ("tiny", "wmdp"): {"data": "d2", "items": "i1"}}
    report = compared(side(made()), side(made(wmdp=10), asked=other))
    found = row(report)
    assert [each.name for each in found.quantities] == ["retain"], "S needs both tasks"
    assert found.reason == "wmdp: data d1 against d2"
    assert report.status == 2
    worse = compared(side(made()), side(made(mmlu=60), asked=other))
    assert worse.status == 1, "what is comparable got worse"


def test_items_without_a_score_on_one_side_are_left_out_of_both() -> None:
    hard = range(ITEMS // 2)
    report = compared(side(made()), side(made(missing=hard)))
    found = quantity(report, "retain")
    assert found.items == ITEMS - len(hard)
    assert found.difference["value"] == 0
    assert found.change != "same"
    assert any(f"{len(hard)} items" in note for note in row(report).notes)
    assert "No difference." not in report.to_text()


def test_a_row_that_failed_fails_the_gate_and_one_that_is_not_run_yet_is_not_comparable() -> None:
    a = side(base(), made(), made("idle", wmdp=90))
    failed = compared(a, side(base(), made(status="failed", failure="out of memory")))
    assert row(failed).outcome == "failed"
    assert failed.status == 1
    assert failed.comparisons[0].only_a == ["tiny · knowledge · idle"]
    assert "Only in A: tiny · knowledge · idle." in failed.to_text()
    waiting = compared(a, side(base(), made(status="pending")))
    assert waiting.status == 2
    gained = compared(side(base(), made(status="pending")), side(base(), made()))
    assert row(gained).outcome == "gained"
    assert gained.status == 0


def test_rows_are_matched_by_seed() -> None:
    a = side(made(seed=0), made(seed=1, wmdp=60))
    one = compared(a, side(made(seed=1, wmdp=60), made(seed=2, wmdp=10)))
    assert row(one).seeds == [1]
    assert quantity(one, "forget").change == "same"
    assert "A alone has seed 0" in row(one).notes
    assert "B alone has seed 2" in row(one).notes
    none = compared(a, side(made(seed=7)))
    assert "no training seed in common (0, 1 against 7)" in (row(none).reason or "")
    assert none.status == 2


def test_a_change_that_differs_from_seed_to_seed_is_not_told_from_noise() -> None:
    before = [made(seed=seed) for seed in range(3)]
    steady = compared(side(*before), side(*[made(seed=seed, wmdp=95) for seed in range(3)]))
    unsteady = compared(side(*before), side(*[made(seed=s, wmdp=w) for s, w in enumerate((60, 95, 130))]))
    values = [quantity(report, "forget").difference["value"] for report in (steady, unsteady)]
    assert values[0] == pytest.approx(values[1])
    assert quantity(steady, "forget").change == "better"
    assert quantity(unsteady, "forget").change == "within noise"


# What few trainings allow to say


KERNELS = ({"processor": "A", "capability": "AVX512"}, {"processor": "A", "capability": "DEFAULT"})


@pytest.mark.parametrize("change", [{"mmlu": 60}, {"mmlu": 190}, {"wmdp": 190}, {"wmdp": 40}, {"mmlu": 139}])
@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("kind", ["method", "noise"])
def test_fewer_than_three_trainings_made_anew_are_never_judged(change, seeds, kind) -> None:
    a = side(base(), *(made(kind=kind, seed=seed) for seed in range(seeds)), machine=KERNELS[0])
    b = [base(), *(made(kind=kind, seed=seed, **change) for seed in range(seeds))]
    report = compared(a, side(*b, trained="again", machine=KERNELS[1]))
    assert {each.change for each in row(report).quantities} == {"not judged", "same"}
    assert report.status == 2
    text = report.to_text()
    assert "capability AVX512 against DEFAULT" in text
    assert "processor A" not in text
    assert not any(word in text for word in ("orse", "etter", "oved", "leave room")), text
    assert not any("seeds: speaks" in note for note in row(report).notes)


def test_the_same_checkpoints_measured_twice_are_judged_on_whatever_machine() -> None:
    a, b = side(made(), machine=KERNELS[0]), side(made(mmlu=60), machine=KERNELS[1])
    assert quantity(compared(a, b), "retain").change == "worse"


def test_three_trainings_made_anew_are_judged() -> None:
    a, b = ([made(seed=seed, mmlu=mmlu) for seed in range(3)] for mmlu in (140, 60))
    report = compared(side(*a), side(*b, trained="again", machine=KERNELS[1]))
    assert quantity(report, "retain").change == "worse"
    assert row(report).unjudged is None


def test_what_is_not_judged_leaves_what_is_judged_its_words() -> None:
    a = side(base(), made(), made("idle"))
    report = compared(a, side(base(mmlu=60), made(wmdp=20), made("idle"), trained="again"))
    assert quantity(report, "retain", "base").change == "not judged", "another base is another model"
    assert {each.change for each in row(report, "idle").quantities} == {"same"}, "the same answers are the same"
    assert row(report, "idle").open is False
    lone = compared(side(made()), side(made(wmdp=20), trained="again"))
    assert "got worse" not in lone.to_text(), "nothing was judged at all"
    broken = compared(a, side(base(), made(wmdp=20), made("idle", status="failed", failure="no"), trained="again"))
    assert broken.status == 1


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (Training("c", "d1"), Training("c", "d2"), "another training of the same settings and seed"),
        (Training("c1", "d1"), Training("c2", "d2"), "another training (other settings or another seed)"),
        (Training("c"), Training("c"), "not known to be one training"),
        (
            Training("c", "d1", {"processor": "unknown"}),
            Training("c", "d2", {"processor": "A"}),
            "another training of the same settings and seed; processor unknown",
        ),
        (
            Training("c", "d1", {"threads": "1", "device": "cpu"}),
            Training("c", "d2", {"threads": "2", "device": "Some GPU", "driver": "550"}),
            "another training of the same settings and seed; made with threads 1 against 2, device cpu against Some"
            " GPU, driver none against 550",
        ),
        (Training("c", "d1", {"threads": "1"}), Training("c", "d1", {"threads": "2"}), None),
    ],
)
def test_why_a_row_is_not_judged_is_named(a, b, words) -> None:
    assert unjudged([(a, b)]) == unjudged([(a, b)] * 2) == words
    assert unjudged([(a, b)] * 3) is None


def test_one_of_two_trainings_made_anew_is_enough() -> None:
    same, again = (Training("c0", "d"), Training("c0", "d")), (Training("c1", "d"), Training("c1", "e"))
    assert unjudged([same, again])
    assert unjudged([same, same]) is None


def test_a_row_is_reproduced_within_twice_the_root_of_two_of_its_run_spread() -> None:
    assert reach(0.1) == pytest.approx(0.2828427)
    assert Reproduction.of(0.28, 0.1).reproduced is True
    assert Reproduction.of(-0.29, 0.1).reproduced is False
    assert Reproduction.of(0.01, None).reproduced is None
    assert Reproduction.of(0.0, None).reproduced is True
    assert Reproduction.of(1e-9, 0.0).reproduced is False
    three, wide, two = np.array([0.1, 0.2, 0.3]), np.array([0.0, 0.3, 0.6]), np.array([0.0, 1.0])
    assert pooled_sd([three, two]) == pytest.approx(0.1)
    assert pooled_sd([three, wide]) == pytest.approx(((0.01 + 0.09) / 2) ** 0.5)
    assert pooled_sd([two, two]) is None


def test_a_comparison_says_which_rows_are_reproduced_and_with_what_spread() -> None:
    board = [made(seed=seed, wmdp=wmdp) for seed, wmdp in enumerate((100, 110, 120))]
    for wmdp, outcome in ((104, True), (60, False)):
        report = compared(side(*board), side(made(seed=0, wmdp=wmdp), trained="again"))
        again = row(report).reproduction
        assert again is not None
        assert again.run_sd == pytest.approx(np.std([c.s for c in map(_S, board)], ddof=1))
        assert again.reproduced is outcome
        assert "|S − S'| < 2√2 σ_run" in " ".join(report.to_text().split())
        assert (" Reproduced: tiny" if outcome else "Not reproduced: tiny") in " ".join(report.to_text().split())
        assert json.loads(report.to_json())["comparisons"][0]["rows"][0]["reproduction"]["reproduced"] is outcome
    unknown = compared(side(made()), side(made(wmdp=104), trained="again"))
    assert row(unknown).reproduction == Reproduction(quantity(unknown, "S").difference["value"], None, None)
    assert "is unknown, as σ_run is" in " ".join(unknown.to_text().split())


def test_other_settings_are_no_reproduction() -> None:
    report = compared(side(made()), side(replace(made(wmdp=104), cell="other"), trained="again"))
    assert row(report).reproduction is None
    assert "eproduced" not in report.to_text()


class _S:
    """S of a made-up checkpoint, computed by hand."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        wmdp, mmlu = (np.mean([each.scores["acc"] for each in checkpoint.records[t]]) for t in ("wmdp", "mmlu"))
        self.s = (1 - (wmdp - 0.25) / 0.75) * (mmlu - 0.25) / 0.75


def test_boards_alone_judge_no_single_training() -> None:
    report = boards([base(), made()], [base(mmlu=20), made(mmlu=20)])
    assert {each.change for each in row(report).quantities} == {"same", "not judged"}
    assert quantity(report, "retain", "base").change == "worse", "a base is no training"
    assert "boards do not say more" in report.to_text()
    assert row(report).reproduction is not None
    other = replace(SPEC, facts={"measured with": "capability DEFAULT"})
    report = boards([base(), made()], [base(), made(mmlu=20)], other)
    assert "other machines or libraries" in " ".join(report.to_text().split())
    assert report.status == 2


def boards(a: list[Checkpoint], b: list[Checkpoint], spec_b: BoardSpec = SPEC) -> ComparisonReport:
    return compared(Side.of_board("A", build_board(SPEC, a)), Side.of_board("B", build_board(spec_b, b)))


def test_boards_alone_are_compared_with_wider_intervals() -> None:
    a, b = ([base(), *(made(seed=seed, mmlu=mmlu) for seed in range(3))] for mmlu in (140, 120))
    paired, alone = compared(side(*a), side(*b)), boards(a, b)
    widths = [quantity(r, "retain").difference for r in (paired, alone)]
    assert widths[0]["value"] == pytest.approx(widths[1]["value"])
    assert (widths[1]["high"] or 0) - (widths[1]["low"] or 0) > 1.5 * (
        (widths[0]["high"] or 0) - (widths[0]["low"] or 0)
    )
    assert (quantity(paired, "retain").change, quantity(alone, "retain").change) == ("worse", "within noise")
    assert "Not paired" in alone.to_text()
    assert boards(a, [base(), *(made(seed=seed, mmlu=40) for seed in range(3))]).status == 1
    assert boards(a, a).status == 0
    assert "No difference." in boards(a, a).to_text()


def test_intervals_of_two_boards_are_joined_arm_by_arm_and_stretched_with_their_number() -> None:
    alone = Side.of_board("A", build_board(SPEC, [base()]))
    sides = ({"value": 0.5, "low": 0.4, "high": 0.55}, {"value": 0.3, "low": 0.2, "high": 0.5})
    draft = Draft("retain", "mmlu", 0.5, 0.3, sides=sides)
    (one,) = Boards(alone, alone).estimates([draft])
    assert (one.low, one.high) == pytest.approx((-0.2 - np.hypot(0.1, 0.05), -0.2 + np.hypot(0.2, 0.1)))
    two = Boards(alone, alone).estimates([draft, draft])[0]
    assert two.high == pytest.approx(-0.2 + np.hypot(0.2, 0.1) * 2.2414 / 1.96, abs=1e-4), "Bonferroni"


def test_boards_of_other_data_or_judges_are_not_comparable() -> None:
    info = SPEC.tasks["wmdp"]
    for change in ({"version": 2}, {"description": "other data"}, {"chance": 0.2}):
        other = replace(SPEC, tasks={**SPEC.tasks, "wmdp": replace(info, **change)})
        report = boards([made()], [made()], other)
        assert row(report).reason is not None, change
        assert [each.name for each in row(report).quantities] == ["retain"]
    rate = {"wmdp": replace(info, chance=0.0, better="lower"), "mmlu": SPEC.tasks["mmlu"]}
    specs = [replace(SPEC, tasks=rate, facts={"scorer": scorer}) for scorer in ("one", "two")]
    sides = [Side.of_board("X", build_board(spec, [made()])) for spec in specs]
    assert "scorer one against two" in (row(compared(*sides)).reason or "")


def test_equal_changes_of_several_subjects_are_one_line() -> None:
    a = {"rmu": {"steps": "4", "layer": "2"}, "adap": {"steps": "4"}, "gone": {"steps": "1"}}
    b = {"rmu": {"steps": "8", "layer": "2"}, "adap": {"steps": "8", "beta": "1"}}
    found = [(each.what, each.where, each.a, each.b) for each in identity_changes(a, b)]
    assert found == [("beta", ["adap"], None, "1"), ("steps", ["adap", "rmu"], "4", "8")]


def test_the_text_stays_within_120_columns_and_both_forms_are_the_same_bytes() -> None:
    long = "a_variant_whose_name_is_far|longer_than_any_table_can_hold" * 2
    facts = {f"task {'x' * 60}": {"describe" * 6: "y" * 300}}
    a = side(base(), made(), made(long, wmdp=50), **facts)
    b = side(made(long, mmlu=20), made(wmdp=70), base(), **{key: {"describe" * 6: "z" * 300} for key in facts})
    report = compared(a, b)
    tables = [line for line in report.to_text().split("\n") if line.startswith("|")]
    assert max(map(len, tables)) <= 120
    assert "z" * 300 in report.to_text(), "what is cut in the table stands below it"
    assert report.to_text() == compared(a, b).to_text()
    value = json.loads(report.to_json())
    assert report.to_json() == compared(a, b).to_json()
    assert value["status"] == report.status == 1
    assert value["conclusion"].startswith("Worse by more than noise")


def test_simultaneous_intervals_miss_rarely_and_grow_with_their_number() -> None:
    rng = np.random.default_rng(0)
    wrong = {1: 0, 10: 0}
    for _ in range(200):
        draws = rng.normal(size=(401, 10, 1))
        draws[0] = rng.normal(size=(10, 1))
        draws[1:] += draws[0]
        for count in wrong:
            found = simultaneous([draws[:, k] / 20 for k in range(count)], 0.9)
            wrong[count] += any(not (each.low or 0) <= 0 <= (each.high or 0) for each in found)
    assert 5 <= wrong[1] <= 36
    assert 5 <= wrong[10] <= 36, "ten at once miss as seldom as one"


def test_a_difference_without_resamples_has_no_interval() -> None:
    draws = np.full((101, 1), np.nan)
    draws[0] = -0.5
    lone, other = simultaneous([draws, np.zeros((101, 1))], 0.95)
    assert (lone.value, lone.low, lone.high) == (-0.5, None, None)
    assert (other.low, other.high) == (0.0, 0.0)
    assert simultaneous([], 0.95) == []


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Tiny real runs: the base alone on 8 and on 9 items, and a method trained for 2 and for 60 steps."""
    folder = tmp_path_factory.mktemp("stores")
    for limit, name in ((8, "eight"), (9, "nine")):
        asked = Request(methods=("none",), tracks=("knowledge",), limit=limit)
        evaluate(asked, output=folder / name, executor="inline")
    for steps in (2, 60):
        settings = (f"training.steps={steps}",)
        asked = {"methods": ("cosine_meta_rmu",), "tracks": ("knowledge",), "limit": 8, "settings": settings}
        evaluate(
            Request(**asked, command=f"unlearn-bench evaluate --set {settings[0]}"),
            output=folder / f"rmu{steps}",
            executor="inline",
        )
    return lambda name: folder / name


def compare(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["compare", *map(str, arguments)])
    return done.exit_code, done.output


def test_the_command_compares_stores(stores) -> None:
    status, text = compare(stores("eight"), stores("eight"))
    assert (status, "No difference." in text) == (0, True)
    status, text = compare(stores("eight"), stores("nine"))
    assert status == 2
    assert "items 8 (" in text
    status, text = compare(stores("rmu2"), stores("rmu60"), "--json")
    value = json.loads(text)
    assert status == value["status"]
    changes = value["comparisons"][0]["identity"]
    assert [(each["what"], each["a"], each["b"]) for each in changes] == [("training.steps", "2", "60")]
    rows = {each["variant"]: each for each in value["comparisons"][0]["rows"]}
    assert {each["change"] for each in rows["base"]["quantities"]} == {"same"}
    assert {each["change"] for each in rows["cosine_meta_rmu"]["quantities"]} != {"same"}
    status, text = compare(stores("eight"), stores("rmu2"))
    (only,) = (line for line in text.splitlines() if line.startswith("Only in B: "))
    assert "micro · knowledge · cosine_meta_rmu" in only
    assert status == 0


def test_what_was_recorded_beside_results_is_told(stores, tmp_path: Path) -> None:
    other = shutil.copytree(stores("eight"), tmp_path / "other")
    for path in other.glob("outcomes/*/manifest.json"):
        manifest = read_sealed(path)
        manifest["recorded"]["threads"] = 99
        write_sealed(path, manifest)
    status, text = compare(stores("eight"), other, "--json")
    found = json.loads(text)["comparisons"][0]["identity"]
    assert [(each["what"], each["b"]) for each in found] == [("recorded threads", "99")]
    assert status == 0


def test_the_command_compares_boards_and_a_store_with_a_board(stores) -> None:
    board = stores("rmu2") / "leaderboards" / "micro.json"
    for other in (board, stores("rmu2")):
        status, text = compare(board, other)
        assert (status, "No difference." in text, "Not paired" in text) == (0, True, True)
    status, text = compare(board, stores("rmu60"))
    assert "--set training.steps=60" in text, "the command that made a board tells what a board does not hold"


def test_the_command_compares_cells(stores) -> None:
    output = ("--output", stores("rmu60"))
    status, text = compare("knowledge/cosine_meta_rmu", "knowledge/cosine_meta_rmu", *output)
    assert (status, "No difference." in text) == (0, True)
    _, text = compare("base", "knowledge/cosine_meta_rmu", *output, "--json")
    rows = json.loads(text)["comparisons"][0]["rows"]
    assert [(each["variant"], each["outcome"]) for each in rows] == [("base → knowledge/cosine_meta_rmu#0", "compared")]
    board = json.loads((stores("rmu60") / "leaderboards" / "micro.json").read_text())
    value = next(each["delta_base"]["value"] for each in board["rows"] if each["variant"] == "cosine_meta_rmu")
    assert rows[0]["quantities"][0]["difference"]["value"] == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("eight", "no-such-store"), "neither a store nor a board"),
        (("eight", "eight/cells"), "is no store of unlearn-bench"),
        (("eight", "eight/no.json"), "cannot be read"),
    ],
)
def test_wrong_usage_is_answered_in_a_line(stores, arguments, message) -> None:
    status, text = compare(*[stores(name) if name != "no-such-store" else name for name in arguments])
    assert status == 2
    assert message in text
    assert "Traceback" not in text


def test_unknown_cells_are_answered_with_those_there_are(stores) -> None:
    status, text = compare("knowledge/cosine_meta_rmu", "knowledge/cosine_meta_rmux", "--output", stores("rmu2"))
    assert status == 2
    assert "knowledge/cosine_meta_rmu#0" in text


def marked(checkpoint: Checkpoint, share: float) -> Checkpoint:
    rows = [replace(record, marks={"gibberish": share}) for record in checkpoint.records["wmdp"]]
    return replace(checkpoint, records={**checkpoint.records, "wmdp": rows})


def test_noise_and_replicas_are_no_rows_of_a_comparison() -> None:
    beside = [
        replace(made("noise(rmu)", "noise"), beside="noise", of="rmu0"),
        replace(made("replica(rmu)"), beside="replica", of="rmu0"),
    ]
    report = compared(side(base(), made(), *beside), side(base(), made(), *beside))
    assert [row.variant for row in report.comparisons[0].rows] == ["base", "rmu"]


@pytest.mark.parametrize("paired", [True, False])
def test_no_s_of_broken_answers_is_compared(paired: bool) -> None:
    spec = replace(SPEC, tasks={**SPEC.tasks, "wmdp": replace(SPEC.tasks["wmdp"], marks=MARKS)})

    def of(name: str, share: float, seeds: int = 3) -> Side:
        cells = [base(), *(marked(made(seed=seed), share) for seed in range(seeds))]
        rows = build_board(spec, cells).rows
        return Side(name, spec, {}, ASKED, cells if paired else None, rows)

    for shares, where, status in (((0.0, 1.0), "B", 1), ((1.0, 0.0), "A", 0), ((1.0, 1.0), "A and B", 0)):
        report = compared(*(of(name, share) for name, share in zip("AB", shares, strict=True)))
        found = row(report)
        assert [quantity.name for quantity in found.quantities] == ["forget", "retain"]
        assert found.reason is None
        assert f"S is not compared: most answers to the forget task are none in {where}" in found.notes
        assert found.lost == (["its answers are broken in B"] if where == "B" else [])
        alone = row(compared(*(of(name, share, 1) for name, share in zip("AB", shares, strict=True))))
        assert alone.lost == [], "one training made anew is not judged"
        assert ("its answers are broken in B" in alone.notes) is (where == "B")
        assert report.status == status
