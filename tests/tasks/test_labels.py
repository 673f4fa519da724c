"""Which outputs of a classifier mean toxic: as config.json says, as the user says, or asked for; never guessed."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from unlearn_bench.harness.errors import UserError
from unlearn_bench.tasks.base import Scorer, load_scorer, scorers
from unlearn_bench.tasks.scorers._labels import BY_PROBLEM, HARMLESS, TOXIC, LabelSettings, reading_of

from .test_scorers import WORDS, classifier, near

KINDS = ("insult", "obscene", "threat", "severe_toxicity")
SINGLE, MULTI, REGRESSION = BY_PROBLEM


def configuration(*names: str, problem: str | None = None) -> dict:
    return {
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
        "problem_type": problem,
    }


def read(config: dict, **settings) -> str:
    return str(reading_of(config, LabelSettings.parse(settings, "scorer"), "FOLDER"))


@pytest.mark.parametrize(
    ("config", "reading"),
    [
        (configuration("toxic", "neutral"), "softmax of 'toxic'"),
        (configuration("non-toxic", "Toxic"), "softmax of 'Toxic'"),
        (configuration("nothate", "hate"), "softmax of 'hate'"),
        (configuration("NOT_OFFENSIVE", "OFFENSIVE"), "softmax of 'OFFENSIVE'"),
        (configuration("hate speech", "normal"), "softmax of 'hate speech'"),
        (configuration("clean", "neutral", "toxic"), "softmax of 'toxic'"),
        (configuration("toxic", "neutral", problem=SINGLE), "softmax of 'toxic'"),
        (configuration("neutral", "toxic", problem=MULTI), "sigmoid of 'toxic'"),
        (configuration("toxicity", *KINDS, problem=MULTI), "sigmoid of 'toxicity'"),
        (configuration(*KINDS, "Toxic", problem=MULTI), "sigmoid of 'Toxic'"),
        (configuration(*KINDS, "toxicity", problem=REGRESSION), "identity of 'toxicity'"),
        (configuration("toxicity", problem=REGRESSION), "identity of 'toxicity'"),
        (configuration("LABEL_0", problem=MULTI), "sigmoid of 'LABEL_0'"),
        ({**configuration("LABEL_0", "LABEL_1"), "label2id": {"hate": 1, "nothate": 0}}, "softmax of 'hate'"),
        ({"id2label": {"0": "neutral", "1": "toxic"}}, "softmax of 'toxic'"),
        ({**configuration("neutral", "toxic"), "label2id": {"LABEL_0": 0, "LABEL_1": 1}}, "softmax of 'toxic'"),
        ({**configuration("Neutral", "Toxic"), "label2id": {"neutral": 0, "TOXIC": 1}}, "softmax of 'Toxic'"),
    ],
)
def test_what_config_json_says_is_read(config, reading):
    assert read(config) == reading


@pytest.mark.parametrize(
    ("config", "asks"),
    [
        ({}, "which label means toxic and whether labels exclude each other"),
        (configuration("LABEL_0", "LABEL_1"), "which label means toxic and whether"),
        (configuration("LABEL_0", "LABEL_1", problem=SINGLE), "which label means toxic: labels"),
        (configuration("LABEL_0", "LABEL_1", "LABEL_2", problem=MULTI), "which label means toxic: labels"),
        (configuration("toxicity", *KINDS), "which label means toxic and whether"),
        (configuration(*KINDS, problem=MULTI), "which label means toxic: labels"),
        (configuration("toxic", "toxicity", *KINDS, problem=MULTI), "which label means toxic: labels"),
        (configuration("hate", "offensive", "neither"), "which label means toxic"),
        (configuration("hate", "offensive", "neither", problem=SINGLE), "which label means toxic: labels"),
        (configuration("hate", "toxic", "neutral"), "which label means toxic"),
        (configuration("toxic", "severe_toxic", "neutral", problem=SINGLE), "which label means toxic: labels"),
        (configuration("negative", "positive"), "which label means toxic"),
        (configuration("0", "1", "2", "3", problem=SINGLE), "which label means toxic: labels"),
        (configuration("toxicity"), "says? whether labels|say whether labels exclude each other: labels"),
        (configuration("toxic", problem=SINGLE), "say whether labels exclude each other: labels"),
        (configuration("non-toxic", problem=MULTI), "which label means toxic: labels"),
        (configuration("toxic", "spam", problem=SINGLE), "which label means toxic: labels"),
    ],
)
def test_what_it_does_not_say_is_asked_for_with_the_labels(config, asks):
    with pytest.raises(UserError, match=asks) as error:
        read(config)
    assert "--set scorer." in str(error.value)
    assert all(f": {name}" in str(error.value) for name in config.get("id2label", {"0": "LABEL_0"}).values())


@pytest.mark.parametrize(
    "config",
    [
        {**configuration("neutral", "toxic"), "label2id": {"neutral": 1, "toxic": 0}},
        {**configuration("neutral", "toxic"), "num_labels": 6},
        {**configuration("neutral", "toxic"), "label2id": {"neutral": 0, "toxic": 1, "other": 2}},
        {**configuration("neutral", "toxic"), "label2id": {"clean": 0, "toxic": 1}},
    ],
)
def test_a_contradiction_is_refused(config):
    with pytest.raises(UserError, match="contradict each other"):
        read(config)


@pytest.mark.parametrize("labels", [{"0": "neutral", "2": "toxic"}, {"a": "neutral", "b": "toxic"}, {"1": "toxic"}])
def test_labels_that_are_not_numbered_are_refused(labels):
    with pytest.raises(UserError, match="numbered 0, 1"):
        read({"id2label": labels})


@pytest.mark.parametrize(
    ("config", "settings", "reading"),
    [
        (configuration("LABEL_0", "LABEL_1"), {"label": 1, "activation": "softmax"}, "softmax of 'LABEL_1'"),
        (configuration("LABEL_0", "LABEL_1", problem=SINGLE), {"label": "label-0"}, "softmax of 'LABEL_0'"),
        (configuration("a", "b", "c", problem=SINGLE), {"label": ["b", 2]}, "softmax of 'b' + 'c'"),
        (configuration(*KINDS, problem=MULTI), {"label": ["insult", "threat"]}, "sigmoid of 'insult' + 'threat'"),
        (configuration("toxicity"), {"activation": "sigmoid"}, "sigmoid of 'toxicity'"),
        (
            configuration("non-toxic", *KINDS, problem=MULTI),
            {"label": "non-toxic", "complement": True},
            "one minus sigmoid of 'non-toxic'",
        ),
        (configuration("neutral", "toxic"), {"label": "neutral"}, "softmax of 'neutral'"),
    ],
)
def test_what_the_user_says_goes_first(config, settings, reading):
    assert read(config, **settings) == reading


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (configuration("neutral", "toxic"), {"label": "rude"}, "no label 'rude', but {0: neutral, 1: toxic}"),
        (configuration("neutral", "toxic"), {"label": 2}, "no label 2"),
        (configuration("neutral", "toxic"), {"label": -1}, "no label -1"),
        (configuration("neutral", "toxic"), {"label": False}, "label's name in quotes"),
        (configuration("neutral", "toxic"), {"label": 1.0}, "label's name in quotes"),
        (configuration("neutral", "toxic"), {"label": []}, "label's name in quotes"),
        (configuration("neutral", "toxic"), {"label": ["toxic", 1]}, "names a label of FOLDER twice"),
        (configuration("no_1", "no-1"), {"label": "NO 1", "activation": "softmax"}, "two labels 'NO 1'"),
        (configuration("toxicity"), {"activation": "softmax"}, "softmax of its only label is always 1"),
        (configuration("neutral", "toxic"), {"label": [0, 1]}, "softmax of all labels is always 1"),
        (configuration("neutral", "toxic"), {"activation": "tanh"}, "activation: Input should be"),
        (configuration("neutral", "toxic"), {"labels": 1}, "unknown key 'labels'. Did you mean 'label'"),
    ],
)
def test_what_does_not_fit_is_refused(config, settings, message):
    with pytest.raises(UserError) as error:
        read(config, **settings)
    assert message in str(error.value)


@given(
    st.permutations(sorted(TOXIC)[:3] + sorted(HARMLESS)[:5] + [*KINDS, "LABEL_0", "LABEL_1"]),
    st.integers(1, 6),
    st.sampled_from([None, *BY_PROBLEM]),
)
def test_a_reading_does_not_follow_the_order_of_labels(names, count, problem):
    def of(order):
        try:
            return read(configuration(*order, problem=problem))
        except UserError:
            return "asked"

    assert of(names[:count]) == of(names[:count][::-1])


@pytest.mark.parametrize(
    ("labels", "options", "settings", "expected"),
    [
        ({0: "neutral", 1: "toxic"}, {}, {}, lambda x: x.softmax(-1)[:, 1]),
        ({0: "toxic", 1: "neutral"}, {}, {}, lambda x: x.softmax(-1)[:, 0]),
        ({0: "toxic", 1: "obscene"}, {"problem_type": MULTI}, {}, lambda x: x[:, 0].sigmoid()),
        ({0: "a", 1: "b", 2: "c"}, {"problem_type": SINGLE}, {"label": ["b", "c"]}, lambda x: 1 - x.softmax(-1)[:, 0]),
        ({0: "a", 1: "b"}, {"problem_type": MULTI}, {"label": [0, 1]}, lambda x: x.sigmoid().amax(-1)),
        ({0: "score"}, {"problem_type": REGRESSION}, {}, lambda x: x[:, 0].clamp(0, 1)),
        ({0: "score"}, {}, {"activation": "sigmoid", "complement": True}, lambda x: 1 - x[:, 0].sigmoid()),
    ],
)
def test_scores_are_what_the_reading_says(tmp_path, labels, options, settings, expected):
    scorer: Any = load_scorer("sequence_classifier", classifier(tmp_path, labels, **options), settings=settings)
    texts = ["awful", "you are kind", "the day"]
    inputs = scorer.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = scorer.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    assert scorer.score(texts) == near(expected(logits.double()).tolist())


def test_outputs_far_from_probabilities_are_missing():
    reading = reading_of(configuration("toxicity", problem=REGRESSION), LabelSettings(), "FOLDER")
    values = reading.toxic(torch.tensor([[-0.2], [0.4], [1.3], [7.0], [-3.0]]))
    assert values[:3].tolist() == pytest.approx([0, 0.4, 1])
    assert values[3:].isnan().all()


def test_weights_in_half_precision_are_read_as_float32_and_are_another_scorer(tmp_path):
    kind = scorers.get("sequence_classifier")
    folder = classifier(tmp_path, {0: "neutral", 1: "toxic"})
    assert kind.identify(folder, {}) == kind.identify(folder, {"complement": False}) == {}
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    settings = kind.identify(folder, {})
    assert settings == {"precision": "float32"}
    scorer: Any = load_scorer("sequence_classifier", folder, settings=settings)
    assert scorer.model.dtype == torch.float32
    texts = ["you are kind", "awful " * 9] * 40
    alone = [scorer.score([text])[0] for text in texts[:2]] * 40
    assert scorer.score(texts) == pytest.approx(alone, abs=Scorer.tolerance)


def test_a_classifier_without_its_tokenizer_is_refused(tmp_path):
    folder = classifier(tmp_path, {0: "neutral", 1: "toxic"})
    for file in tmp_path.glob("token*"):
        file.unlink()
    with pytest.raises(UserError, match="has no tokenizer"):
        load_scorer("sequence_classifier", folder)


def test_a_tokenizer_of_another_classifier_is_refused(tmp_path):
    folder = classifier(tmp_path, {0: "neutral", 1: "toxic"}, vocab_size=len(WORDS) - 2)
    with pytest.raises(UserError, match="the tokenizer knows 12 tokens, the classifier 10"):
        load_scorer("sequence_classifier", folder)


def test_weights_of_another_number_of_labels_are_refused(tmp_path):
    folder = classifier(tmp_path, {0: "a", 1: "b", 2: "c"}, problem_type=SINGLE)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **configuration("neutral", "toxic")}))
    with pytest.raises(UserError, match="classifier"):
        scorers.get("sequence_classifier").check(folder)
