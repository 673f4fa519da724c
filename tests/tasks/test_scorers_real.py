"""How well the scorers that need no hub do on real text: the figures of docs/scorers.md."""

from __future__ import annotations

import json
import re

import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from unlearn_bench.harness.data import load_rows
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.planning.scorer_check import Check, Sentences
from unlearn_bench.harness.suite import SourceSpec
from unlearn_bench.tasks.base import Scorer, load_scorer
from unlearn_bench.tasks.scorers.profanity_check import ProfanityCheck


def pairs(data_root, part: str | None = None) -> list[tuple[str, str]]:
    """Return the pairs of a toxic sentence and its neutral paraphrase."""
    rows = load_rows(SourceSpec(path="paradetox/paradetox.tsv", part=part), data_root).rows
    return [(row["toxic"], row["neutral1"]) for row in rows]


def auc(scorer: Scorer, found: list[tuple[str, str]]) -> float:
    values = scorer.score([text for pair in found for text in pair])
    assert None not in values
    return float(roc_auc_score([1, 0] * len(found), values))


@pytest.fixture(scope="module")
def stand_in(data_root, tmp_path_factory):
    """The scorer of the suite `real`: fitted on the third third of ParaDetox, grouped by pair."""
    folder = tmp_path_factory.mktemp("scorer")
    rows = [
        {"text": text, "label": 1 - place, "group": pair[0]}
        for pair in pairs(data_root, "2/3")
        for place, text in enumerate(pair)
    ]
    (folder / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_scorer("ngram", str(folder))


@pytest.fixture(scope="module")
def packaged():
    """The scorer that was trained elsewhere."""
    try:
        return load_scorer("profanity_check", "")
    except UserError as error:
        pytest.skip(str(error))


def test_the_stand_in_does_on_other_pairs_as_its_held_out_auc_says(data_root, stand_in):
    assert 0.98 < stand_in.auc < 0.998
    assert auc(stand_in, pairs(data_root, "0/3")) == pytest.approx(stand_in.auc, abs=0.005)
    check = Check.of(stand_in, Sentences.of(None))
    assert re.search(r"held-out AUC 0\.99\d over \d+ texts in \d+ groups; AUC 0\.9[89]\d on 24 rude", check.note())
    assert check.failure(0.5, 20, "") is None


def test_the_judge_trained_elsewhere_tells_toxic_from_neutral(data_root, packaged):
    assert isinstance(packaged, ProfanityCheck)
    assert 0.96 < auc(packaged, pairs(data_root)) < 0.98
    assert packaged.score(["", "the day"])[0] is not None
    assert packaged.score([]) == []
    check = Check.of(packaged, Sentences.of(None))
    assert check.note() == "AUC 1.000 on 24 rude and 24 plain sentences (English)"
    assert check.failure(0.5, 20, "") is None


def test_the_two_judges_agree_on_text_that_neither_was_fitted_on(data_root, stand_in, packaged):
    texts = [text for pair in pairs(data_root, "0/3") for text in pair]
    ours, theirs = stand_in.score(texts), packaged.score(texts)
    assert spearmanr(ours, theirs).statistic > 0.75
    assert sum((a > 0.5) == (b > 0.5) for a, b in zip(ours, theirs, strict=True)) > 0.9 * len(texts)


def test_both_judges_rank_human_continuations_as_their_published_scores_do(data_root, stand_in, packaged):
    """RealToxicityPrompts carries Perspective's score of each prompt's own continuation."""
    source = SourceSpec(path="realtoxicityprompts/challenging.jsonl")
    found = [row["continuation"] for row in load_rows(source, data_root).rows]
    found = [row for row in found if row["toxicity"] is not None]
    toxic = [row["toxicity"] >= 0.5 for row in found]
    ours, theirs = (
        roc_auc_score(toxic, scorer.score([row["text"].strip() for row in found])) for scorer in (stand_in, packaged)
    )
    assert 0.80 < ours < 0.88
    assert 0.89 < theirs < 0.94
