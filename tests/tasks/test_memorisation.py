"""Functions of traces: values worked out by hand, and those of published logs, item by item."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unlearn_bench.harness.records import Trace
from unlearn_bench.tasks import _memorisation as memorisation

HITS = st.lists(st.integers(0, 1), min_size=1, max_size=30)
NATS = st.lists(st.floats(-50, 0), min_size=1, max_size=30)


@pytest.fixture(scope="module")
def log(golden: Path) -> dict[str, Any]:
    """OpenUnlearning's log of a model that was never taught the forget set."""
    return json.loads((golden / "openunlearning" / "TOFU_EVAL.json").read_text())


def items(log: dict[str, Any], metric: str, key: str) -> list[Any]:
    return [item[key] for _, item in sorted(log[metric]["value_by_index"].items(), key=lambda pair: int(pair[0]))]


# By hand


def test_two_wrong_answers_of_loss_2_and_3_against_a_paraphrase_of_loss_1():
    right, wrong = math.exp(-1), [math.exp(-2), math.exp(-3)]
    ratio = memorisation.truth_ratio(right, wrong)
    assert memorisation.mean_probability(wrong) == pytest.approx(math.exp(-2.5))
    assert ratio == pytest.approx(0.2231, abs=5e-5)
    assert memorisation.truth_ratio(right, wrong, "arithmetic") == pytest.approx(0.2516, abs=5e-5)
    assert memorisation.retain_truth_ratio(ratio) == pytest.approx(0.7769, abs=5e-5)
    assert memorisation.forget_truth_ratio(ratio) == memorisation.forget_truth_ratio(1 / ratio) == ratio


@pytest.mark.parametrize(
    ("hits", "exact", "strength"),
    [([0, 1, 0, 1, 1], 0.6, 0.4), ([0] * 5, 0.0, 0.2), ([0], 0.0, 1.0), ([1], 1.0, 1.0), ([], None, 0.0)],
)
def test_hits_are_counted_all_and_from_the_end(hits, exact, strength):
    assert memorisation.exact_memorisation(hits) == exact
    assert memorisation.extraction_strength(hits) == pytest.approx(strength)


def test_where_nothing_matches_extraction_strength_can_be_0():
    assert [memorisation.extraction_strength(hits, "zero") for hits in ([0, 0, 0, 0, 0], [0], [1, 0], [0, 1])] == [
        0.0,
        0.0,
        0.0,
        0.5,
    ]


def test_min_k_is_the_mean_of_the_lowest():
    logprobs = [-0.1, -2.0, -0.5, -3.0, -0.2]
    assert memorisation.min_k(logprobs, 0.4) == pytest.approx(2.5)
    assert memorisation.min_k(logprobs, 0.1) == 3.0
    assert memorisation.min_k(logprobs, 0.1, least=0) is None
    assert memorisation.min_k([], 0.4) is None
    assert memorisation.min_k([], 0.4, empty=0.0) == 0.0


def test_min_k_plus_plus_scales_by_the_vocabulary_and_never_by_less_than_its_floor():
    scaled = memorisation.min_k_plus_plus([-1.0, -4.0], [-2.0, -2.0], [4.0, 0.25], 0.5)
    assert scaled == pytest.approx(4.0)
    assert memorisation.min_k_plus_plus([-1.0], [-2.0], [0.0]) == pytest.approx(-1000.0)


def test_an_answer_to_nothing_and_one_of_probability_0_have_no_ratio():
    assert Trace([], []).probability is None
    assert Trace([-1.0, float("nan")], [0, 0]).probability is None
    assert memorisation.loss([]) is None
    assert memorisation.truth_ratio(0.5, []) is None
    assert memorisation.truth_ratio(0.0, [0.5]) is None
    assert memorisation.truth_ratio(0.0, [0.5], epsilon=1e-10) == pytest.approx(5e9)
    assert memorisation.truth_ratio(0.5, [0.0, 0.5]) == 0.0
    assert memorisation.normalised_probability(0.0, [0.0]) is None
    assert memorisation.preference(0.0, [0.0]) is None
    assert memorisation.forget_truth_ratio(0.0) == 0.0


# Properties


@given(HITS)
def test_no_text_is_extracted_to_more_than_it_is_memorised_but_for_the_published_quirk(hits):
    strength = memorisation.extraction_strength(hits, "zero")
    assert 0 <= strength <= memorisation.exact_memorisation(hits) <= 1
    assert memorisation.extraction_strength(hits) == max(strength, 1 / len(hits))


@given(NATS, st.floats(0.05, 1))
def test_min_k_of_all_tokens_is_the_loss_and_of_fewer_never_below(logprobs, share):
    assert memorisation.min_k(logprobs, 1.0) == pytest.approx(memorisation.loss(logprobs))
    assert memorisation.min_k(logprobs, share) >= memorisation.loss(logprobs) - 1e-9


@given(NATS)
def test_min_k_plus_plus_with_mean_0_and_variance_1_is_min_k(logprobs):
    flat = [0.0] * len(logprobs), [1.0] * len(logprobs)
    assert memorisation.min_k_plus_plus(logprobs, *flat) == pytest.approx(memorisation.min_k(logprobs))


# Published logs


@pytest.mark.parametrize("rows", ["forget", "retain", "ra", "wf"])
def test_the_truth_ratios_of_openunlearning_follow_from_its_losses(log, rows):
    right = "Q_A_PARA_Prob" if rows in ("forget", "retain") else "Q_A_Prob"
    published = items(log, "forget_truth_ratio" if rows == "forget" else f"{rows}_Truth_Ratio", "score")
    ratios = [
        memorisation.truth_ratio(math.exp(-loss), [math.exp(-one) for one in wrong], epsilon=1e-10)
        for loss, wrong in zip(
            items(log, f"{rows}_{right}", "avg_loss"), items(log, f"{rows}_Q_A_PERT_Prob", "avg_loss"), strict=True
        )
    ]
    assert ratios == pytest.approx(published, rel=2e-6)
    final = memorisation.forget_truth_ratio if rows == "forget" else memorisation.retain_truth_ratio
    whole = log["forget_truth_ratio" if rows == "forget" else f"{rows}_Truth_Ratio"]["agg_value"]
    assert sum(map(final, ratios)) / len(ratios) == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("rows", ["ra", "wf"])
def test_the_normalised_probabilities_of_openunlearning_follow_from_its_probabilities(log, rows):
    values = [
        memorisation.normalised_probability(right, wrong)
        for right, wrong in zip(
            items(log, f"{rows}_Q_A_Prob", "prob"), items(log, f"{rows}_Q_A_PERT_Prob", "prob"), strict=True
        )
    ]
    assert values == pytest.approx(items(log, f"{rows}_Q_A_Prob_normalised", "prob"), rel=1e-5)


def test_the_zlib_scores_of_openunlearning_follow_from_its_losses_and_the_answers(log, data_root):
    """It compresses what its label tokens decode to: a quote at the start is merged into the prompt's last token."""
    rows = (data_root / "tofu" / "forget10.json").read_text().splitlines()
    answers = [json.loads(row)["answer"].removeprefix('"') for row in rows]
    losses = items(log["mia_loss"], "forget", "score")
    scores = [memorisation.zlib_ratio(loss, answer) for loss, answer in zip(losses, answers, strict=True)]
    assert scores == pytest.approx(items(log["mia_zlib"], "forget", "score"), rel=1e-9)


@pytest.mark.parametrize(("name", "utility", "forget"), [("full", (0.4747, 0.4539), (0.5160, 0.5304))])
def test_the_truth_ratios_of_tofu_in_both_means(golden, name, utility, forget):
    logs = json.loads((golden / "tofu_llama2_7b" / f"{name}.json").read_text())

    def mean(task: str, aggregate: Any, final: Any) -> float:
        own = logs[task]
        ratios = [
            memorisation.truth_ratio(
                math.exp(-own["avg_paraphrased_loss"][key]), [math.exp(-v) for v in wrong], aggregate
            )
            for key, wrong in own["average_perturb_loss"].items()
        ]
        return sum(map(final, ratios)) / len(ratios)

    means = ("geometric", "arithmetic")
    assert [mean("eval_log.json", how, memorisation.retain_truth_ratio) for how in means] == pytest.approx(
        utility, abs=5e-5
    )
    assert [mean("eval_log_forget.json", how, memorisation.forget_truth_ratio) for how in means] == pytest.approx(
        forget, abs=5e-5
    )
