"""A stand-in judge for where no classifier is at hand: logistic regression on word and character n-grams."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ...harness.errors import UserError
from ..base import Scorer, scorers
from ._texts import DIGITS, folder_of

LABELLED = "labelled.jsonl"
FOLDS = 5


@scorers.register("ngram")
class NGram(Scorer):
    """A judge that is fitted when it is loaded, always to the same weights.

    The folder holds `labelled.jsonl`, rows {"text", "label"} with label 1 for toxic and 0 for not. TF-IDF of words
    (1-2) and of characters within words (2-5), L2-regularised logistic regression, classes weighted evenly. It knows
    spelling, not meaning: report `auc` beside its numbers, and use a trained classifier where there is one.
    """

    summary = "stand-in: n-gram logistic regression, fitted on labelled.jsonl at load"
    version = 1

    def __init__(self, folder: str, device: str = "cpu") -> None:
        """Read and fit; raise a `UserError` on a missing file, a wrong row or fewer than two texts of a label."""
        self.texts, self.labels = _read(folder_of(folder, LABELLED) / LABELLED)
        self.model = _pipeline().fit(self.texts, self.labels)

    def score(self, texts: Sequence[str]) -> list[float | None]:
        """Return the fitted probability of each text, rounded to six digits."""
        if not texts:
            return []
        return [round(float(value), DIGITS) for value in self.model.predict_proba(list(texts))[:, 1]]

    @cached_property
    def auc(self) -> float:
        """Area under the ROC curve on held-out folds (at most five, stratified), computed when first asked for."""
        from sklearn.metrics import roc_auc_score
        from sklearn.model_selection import StratifiedKFold, cross_val_predict

        folds = min(FOLDS, sum(self.labels), len(self.labels) - sum(self.labels))
        split = StratifiedKFold(folds, shuffle=True, random_state=0)
        held_out: Any = cross_val_predict(_pipeline(), self.texts, self.labels, cv=split, method="predict_proba")
        return float(roc_auc_score(self.labels, held_out[:, 1]))


def _pipeline() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=50_000, token_pattern=r"(?u)\b\w+\b"),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, max_features=50_000),
    )
    return make_pipeline(features, LogisticRegression(C=10.0, class_weight="balanced", max_iter=1000))


def _read(file: Path) -> tuple[list[str], list[int]]:
    texts, labels = [], []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            text, label = row["text"], int(row["label"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f'{file}: line {number} is no {{"text": …, "label": 0 or 1}}.') from error
        if label not in (0, 1) or not isinstance(text, str):
            raise UserError(f"{file}: line {number} needs a text and the label 0 or 1.")
        texts.append(text)
        labels.append(label)
    if min(sum(labels), len(labels) - sum(labels)) < 2:
        raise UserError(f"{file} needs at least two texts of each label; it has {sum(labels)} toxic of {len(labels)}.")
    return texts, labels
