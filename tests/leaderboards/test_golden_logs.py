"""Published numbers from published values of items, without a model, to the digits that were printed."""

from __future__ import annotations

import json
from dataclasses import replace
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from unlearn_bench.harness.data.logs import read_log
from unlearn_bench.harness.records import Record
from unlearn_bench.leaderboards.board import build_board
from unlearn_bench.leaderboards.spec import BoardSpec, Checkpoint, TaskInfo, TrackRoles
from unlearn_bench.leaderboards.stats import aggregates
from unlearn_bench.leaderboards.stats.composite import Composite
from unlearn_bench.leaderboards.stats.formula import Sample
from unlearn_bench.leaderboards.stats.two_sample import auc, ks, ks_p
from unlearn_bench.tasks import _memorisation as memorisation

TOFU = ("full", "retain90", "retain95", "retain99")
SETS = ("retain", "real_authors", "world_facts")


@pytest.fixture(scope="module")
def tofu(golden: Path) -> dict[str, dict[str, list[Record]]]:
    return {name: read_log(golden / "tofu_llama2_7b" / f"{name}.json") for name in TOFU}


@pytest.fixture(scope="module")
def board(golden: Path) -> dict[str, Any]:
    names = ("method_results", "meta_eval")
    return {name: json.loads((golden / "uds" / f"{name}.json").read_text()) for name in names}


def column(records: list[Record], name: str) -> np.ndarray:
    return np.array([(record.scores or {})[name] for record in records])


def ratio(records: list[Record], aggregate="arithmetic") -> np.ndarray:
    """Truth ratios by another mean than that of the reader, which is geometric."""
    return np.array([_ratio(record.scores or {}, aggregate) for record in records])


def _ratio(scores: dict[str, float], aggregate) -> float:
    wrong = [np.exp(-value) for name, value in scores.items() if name.startswith("average_perturb_loss[")]
    found = memorisation.truth_ratio(np.exp(-scores["avg_paraphrased_loss"]), wrong, aggregate)
    assert found is not None
    return found


def value(statistic, *samples: np.ndarray) -> float:
    return float(statistic(*map(Sample.of, samples))[0])


def parts(log: dict[str, list[Record]], aggregate="geometric") -> list[float]:
    """The nine parts of model utility."""
    numbers = []
    for name in SETS:
        records = log[name]
        numbers.append(column(records, "prob" if name == "retain" else "normalised_prob").mean())
        numbers.append(column(records, "rougeL_recall").mean())
        truth = column(records, "retain_truth_ratio")
        if aggregate == "arithmetic":
            truth = np.array([memorisation.retain_truth_ratio(one) for one in ratio(records)])
        numbers.append(truth.mean())
    return numbers


@pytest.mark.parametrize(
    ("name", "geometric", "arithmetic"),
    [
        ("full", 0.6227, 0.5859),
        ("retain90", 0.6137, 0.5752),
        ("retain95", 0.6006, 0.5613),
        ("retain99", 0.6207, 0.5812),
    ],
)
def test_model_utility_of_tofus_logs(tofu, name: str, geometric: float, arithmetic: float) -> None:
    for mean, printed in (("geometric", geometric), ("arithmetic", arithmetic)):
        assert round(float(aggregates.model_utility(*parts(tofu[name], mean))), 4) == printed


@pytest.mark.parametrize(
    ("name", "geometric", "arithmetic"),
    [
        ("full", (0.9895, 0.9857, 0.4747, 0.4555, 0.9330, 0.5962, 0.4186, 0.8825, 0.5390), (0.4539, 0.5052, 0.4231)),
        (
            "retain90",
            (0.9889, 0.9758, 0.4710, 0.4341, 0.9230, 0.5707, 0.4143, 0.8974, 0.5442),
            (0.4496, 0.4785, 0.4201),
        ),
    ],
)
def test_the_nine_parts_of_tofus_logs(tofu, name: str, geometric, arithmetic) -> None:
    assert tuple(round(part, 4) for part in parts(tofu[name])) == geometric
    assert tuple(round(part, 4) for part in parts(tofu[name], "arithmetic")[2::3]) == arithmetic


@pytest.mark.parametrize(
    ("name", "probability", "rouge", "closeness"),
    [
        ("full", 0.9909, 0.9854, (0.5160, 0.5304)),
        ("retain90", 0.1476, 0.4082, (0.6740, 0.6797)),
        ("retain95", 0.1547, 0.3980, (0.6741, 0.6828)),
        ("retain99", 0.1795, 0.3972, (0.6849, 0.6970)),
    ],
)
def test_the_forget_set_of_tofus_logs(tofu, name: str, probability: float, rouge: float, closeness) -> None:
    records = tofu[name]["forget"]
    assert round(column(records, "prob").mean(), 4) == probability
    assert round(column(records, "rougeL_recall").mean(), 4) == rouge
    arithmetic = np.mean([memorisation.forget_truth_ratio(one) for one in ratio(records)])
    assert (round(column(records, "forget_truth_ratio").mean(), 4), round(arithmetic, 4)) == closeness


def test_the_log_holds_the_truth_ratio_that_we_compute(tofu) -> None:
    for log in tofu.values():
        found = ratio(log["forget"], "geometric")
        assert found == pytest.approx(column(log["forget"], "truth_ratio"), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "p", "distance"),
    [("retain90", 1.83407e-21, 0.3967), ("retain95", 1.42757e-12, 0.37), ("retain99", 0.00301818, 0.40)],
)
def test_forget_quality_of_tofus_logs(tofu, name: str, p: float, distance: float) -> None:
    retain = column(tofu[name]["forget"], "truth_ratio")
    full = column(tofu["full"]["forget"], "truth_ratio")[: len(retain)]
    assert float(f"{ks_p(Sample.of(full), Sample.of(retain)):.6g}") == p
    assert round(value(ks, full, retain), 4) == distance
    assert value(ks, np.log(full), np.log(retain)) == value(ks, full, retain)
    itself = Sample.of(retain)
    assert (ks_p(itself, itself), float(ks(itself, itself)[0])) == (1.0, 0.0)


@pytest.mark.parametrize(("n", "p"), [(40, 1.86e-23), (200, 1.94e-119), (300, 1.48e-179), (400, 1.06e-239)])
def test_the_floor_of_forget_quality(n: int, p: float) -> None:
    apart = (Sample.of(np.arange(n)), Sample.of(np.arange(n) + n))
    assert ks_p(*apart) == pytest.approx(2 / comb(2 * n, n), rel=1e-9)
    assert float(f"{ks_p(*apart):.3g}") == p
    assert ks(*apart)[0] == 1.0


def test_the_least_p_is_none() -> None:
    n = 4000
    assert ks_p(Sample.of(np.arange(n)), Sample.of(np.arange(n) + n)) > 0


def test_the_nine_parts_and_the_utility_of_openunlearnings_log(evaluated, published) -> None:
    numbers = []
    for name, prefix in zip(SETS, ("retain", "ra", "wf"), strict=True):
        records = evaluated[name]
        probability = column(records, "prob" if name == "retain" else "normalised_prob").mean()
        own = [probability, column(records, "rougeL_recall").mean(), column(records, "retain_truth_ratio").mean()]
        normalised = "" if name == "retain" else "_normalised"
        keys = (f"{prefix}_Q_A_Prob{normalised}", f"{prefix}_Q_A_ROUGE", f"{prefix}_Truth_Ratio")
        assert own == pytest.approx([published[key] for key in keys], abs=5e-8), "its divisor has 1e-10 added"
        numbers += own
    assert [round(number, 5) for number in numbers] == [
        *(0.98892, 0.97595, 0.45723),
        *(0.44594, 0.9155, 0.58484),
        *(0.41178, 0.90171, 0.53294),
    ]
    assert round(float(aggregates.model_utility(*numbers)), 7) == 0.6130190
    assert float(aggregates.model_utility(*numbers)) == pytest.approx(published["model_utility"], abs=1e-8)


def test_the_forget_set_of_openunlearnings_log(evaluated, published) -> None:
    records = evaluated["forget"]
    assert round(column(records, "forget_truth_ratio").mean(), 7) == 0.6808417
    means = {
        "exact_memorization": (column(records, "exact_memorisation"), 0.66531),
        "extraction_strength": (column(records, "extraction_strength"), 0.06960),
        "forget_Q_A_Prob": (column(records, "prob"), 0.14785),
        "forget_Q_A_ROUGE": (column(records, "rougeL_recall"), 0.39944),
        "forget_Q_A_PARA_Prob": (column(records, "paraphrased_prob"), 0.06646),
    }
    for name, (values, printed) in means.items():
        assert round(values.mean(), 5) == printed, name
        assert values.mean() == pytest.approx(published[name], abs=1e-7), name


@pytest.mark.parametrize(
    ("name", "ours", "printed"),
    [
        ("mia_loss", "loss", 0.39193125),
        ("mia_zlib", "zlib", 0.31765625),
        ("mia_min_k", "min_k", 0.38666875),
        ("mia_min_k_plus_plus", "min_k_plus_plus", 0.5014875),
        ("mia_gradnorm", "mia_gradnorm", 0.362946875),
    ],
)
def test_the_attacks_of_openunlearnings_log(evaluated, published, name: str, ours: str, printed: float) -> None:
    sides = [column(evaluated[side], ours) for side in ("forget", "holdout")]
    assert value(auc, *sides) == pytest.approx(printed, abs=1e-12)
    assert value(auc, *sides) == pytest.approx(published[name], abs=1e-12)
    assert value(auc, sides[1], sides[0]) == pytest.approx(1 - printed, abs=1e-12)


def test_privleak_of_openunlearnings_log(evaluated, published) -> None:
    found = value(auc, *(column(evaluated[side], "min_k") for side in ("forget", "holdout")))
    leak = float(aggregates.privleak(np.array(found), np.array(0.5)))
    assert round(leak, 5) == 22.66625
    assert leak == pytest.approx(published["privleak"], abs=1e-5)
    assert float(aggregates.muse_privleak(np.array(1 - found), np.array(0.5))) == pytest.approx(leak, abs=1e-12)


@pytest.mark.parametrize(("unlearned", "retain", "printed"), [(0.2313, 0.5393, -57.11), (0.4061, 0.5393, -24.70)])
def test_privleak_of_muses_aucs(unlearned: float, retain: float, printed: float) -> None:
    assert round(float(aggregates.muse_privleak(np.array(unlearned), np.array(retain))), 2) == printed


AGGREGATES = {
    "mem": ("one_minus_es", "one_minus_em", "one_minus_paraprob", "one_minus_truth"),
    "privacy_mia": ("s_loss", "s_zlib", "s_mink", "s_minkpp"),
    "privacy": ("privacy_mia", "uds"),
    "utility": ("model_utility", "fluency"),
    "model_utility": tuple(
        f"{part}_{metric}" for part in ("retain", "ra", "wf") for metric in ("q_prob", "q_rouge", "truth_ratio")
    ),
    "overall": ("mem", "privacy", "utility_rel"),
}


@pytest.mark.parametrize("name", AGGREGATES)
def test_the_aggregates_of_the_unlearning_depth_board(board, name: str) -> None:
    models = board["method_results"]["models"]
    assert len(models) == 152
    for row in models:
        found = float(aggregates.harmonic_mean(*(np.array(row[part]) for part in AGGREGATES[name])))
        assert found == pytest.approx(row[name], abs=1e-10), (row["model"], row["epoch"])


def test_memorisation_and_relative_utility_of_the_unlearning_depth_board(board) -> None:
    full = board["method_results"]["full_utility"]
    for row in board["method_results"]["models"]:
        raw = [1 - row[key] for key in AGGREGATES["mem"]]
        assert float(aggregates.memorisation(*map(np.array, raw))) == pytest.approx(row["mem"], abs=1e-10)
        share = float(aggregates.quotient(np.array(row["utility"]), np.array(full[row["epoch"]])))
        assert min(share, 1.0) == pytest.approx(row["utility_rel"], abs=1e-10), (row["model"], row["epoch"])


def test_privacy_of_the_unlearning_depth_board(board) -> None:
    """Of likenesses, in place of the AUCs behind them: a likeness s is that of an AUC of s to one of 1."""
    for row in board["method_results"]["models"]:
        likenesses = [np.array(row[key]) for key in AGGREGATES["privacy_mia"]]
        found = float(aggregates.privacy(*likenesses, *[np.array(1.0)] * 4))
        assert found == pytest.approx(row["privacy_mia"], abs=1e-10), (row["model"], row["epoch"])


@pytest.mark.parametrize(
    ("model", "printed"),
    [
        ("full", (0.1033, 0.6009, 0.8728, 0.7118)),
        ("retain", (0.5822, 0.5905, 0.8995, 0.7130)),
        ("npo_lr2e5_b01_a1_ep10", (0.5470, 0.5605, 0.9303, 0.6995)),
        ("altpo_lr5e5_b01_a2_ep10", (0.6036, 0.5650, 0.8539, 0.6800)),
        ("simnpo_lr2e5_b35_a1_d1_g0125_ep10", (0.4424, 0.5966, 0.8501, 0.7012)),
    ],
)
def test_what_the_unlearning_depth_board_prints_of_llama_1b(board, model: str, printed: tuple[float, ...]) -> None:
    """Mem of four parts, and Util of model utility and fluency; forget10."""
    rows = {row["model"]: row for row in board["method_results"]["models"] if row["epoch"] == "ep10"}
    row = rows[model]
    mem = float(aggregates.memorisation(*(np.array(1 - row[key]) for key in AGGREGATES["mem"])))
    parts = [np.array(row[key]) for key in AGGREGATES["model_utility"]]
    utility = aggregates.model_utility(*parts)
    found = (mem, float(utility), row["fluency"], float(aggregates.harmonic_mean(utility, np.array(row["fluency"]))))
    assert tuple(round(value, 4) for value in found) == printed


def test_the_meta_evaluation_of_the_unlearning_depth_board(board) -> None:
    meta = board["meta_eval"]
    for name, parts_of in meta["robustness"].items():
        robust = float(aggregates.harmonic_mean(np.array(parts_of["relearning"]), np.array(parts_of["quantization"])))
        assert robust == pytest.approx(parts_of["agg"], abs=1e-4), name
    printed = {"es": (0.891, 0.859), "em": (0.817, 0.750), "truth_ratio": (0.947, 0.379), "uds": (0.971, 0.932)}
    for name, (faithful, robust) in printed.items():
        assert round(meta["faithfulness"][name]["auc_roc"], 3) == faithful
        assert meta["robustness"][name]["agg"] == pytest.approx(robust, abs=6e-4)


UTILITY = {
    f"{part}_{what}": f"{task}.{score}"
    for part, task in (("retain", "retain"), ("authors", "real_authors"), ("facts", "world_facts"))
    for what, score in (
        ("probability", "prob" if part == "retain" else "normalised_prob"),
        ("rouge", "rougeL_recall"),
        ("truth", "retain_truth_ratio"),
    )
}
COMPOSITES = {
    "forget_quality": Composite("ks", {"unlearned": "forget.truth_ratio", "retain": "forget.truth_ratio"}),
    "model_utility": Composite("model_utility", UTILITY),
    "memorised": Composite("harmonic_mean", ["1 - forget.prob", "1 - forget.rougeL_recall"]),
}
LEAKS = {
    **{
        f"auc_{score}": Composite("auc", {"forget": f"forget.{score}", "holdout": f"holdout.{score}"})
        for score in ("loss", "zlib", "min_k", "min_k_plus_plus")
    },
    "privleak": Composite("privleak", {"unlearned": "auc_min_k", "retain": 0.5}),
    "exact": Composite("mean", ["forget.exact_memorisation"]),
}


def logged(log: dict[str, list[Record]], variant: str, kind, role=None, first: int | None = None) -> Checkpoint:
    """A log as a row of a board, its forget questions in clusters of an author each."""
    records = {
        task: [
            replace(record, cluster=str(int(record.item) // 20 if task in ("forget", "retain") else record.item))
            for record in own[: first if task == "forget" else None]
        ]
        for task, own in log.items()
    }
    return Checkpoint("llama", "tofu", variant, variant, kind, None, variant, records=records, role=role)


def board_of(composites: dict[str, Composite], tasks: list[str], *rows: Checkpoint):
    info = {
        name: TaskInfo(name, "loss" if name == "holdout" else "prob", 0.0, "higher", 1, largest=None) for name in tasks
    }
    roles = TrackRoles("forget", "retain", controls=tuple(tasks[2:]))
    return build_board(BoardSpec("tofu", 1, "", {"tofu": roles}, info, resamples=500, composites=composites), rows)


@pytest.mark.parametrize(
    ("name", "p", "distance", "utility"),
    [
        ("retain90", 1.83407e-21, 0.3967, 0.6137),
        ("retain95", 1.42757e-12, 0.37, 0.6006),
        ("retain99", 0.00301818, 0.40, 0.6207),
    ],
)
def test_logs_are_rows_and_references_of_a_board(tofu, name: str, p: float, distance: float, utility: float) -> None:
    retain, full = tofu[name], tofu["full"]
    rows = logged(full, "full", "import", first=len(retain["forget"])), logged(retain, name, "reference", "retain")
    board = board_of(COMPOSITES, ["forget", "retain", "real_authors", "world_facts"], *rows)
    (table,) = board.composites
    reference, imported = (row["values"] for row in table["rows"])
    assert reference["forget_quality"]["p"] == [1.0]
    assert imported["forget_quality"]["p"] == [p]
    value = imported["forget_quality"]["value"]
    assert value is not None
    assert round(value["value"], 4) == distance
    assert value["low"] < distance < value["high"]
    for values, printed in ((reference, utility), (imported, 0.6227)):
        found = values["model_utility"]["value"]
        assert found is not None
        assert round(found["value"], 4) == printed
        assert found["low"] < printed < found["high"]
    assert (imported["model_utility"]["n"], imported["forget_quality"]["n"]) == (100, len(retain["forget"]))
    assert f"p {p:.3g}" in board.to_markdown()


def test_openunlearnings_log_is_a_row_of_a_board(evaluated, published) -> None:
    tasks = ["forget", "retain", "holdout", "real_authors", "world_facts"]
    board = board_of(LEAKS, tasks, logged(evaluated, "retain90", "import"))
    values = board.composites[0]["rows"][0]["values"]
    printed = {"auc_loss": "mia_loss", "auc_zlib": "mia_zlib", "auc_min_k": "mia_min_k", "exact": "exact_memorization"}
    printed |= {"auc_min_k_plus_plus": "mia_min_k_plus_plus", "privleak": "privleak"}
    for name, theirs in printed.items():
        found = values[name]["value"]
        assert found is not None
        assert found["value"] == pytest.approx(published[theirs], abs=1e-5)
        assert found["low"] < found["value"] < found["high"]
