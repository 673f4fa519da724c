"""A stand-in scorer for where no classifier is at hand: logistic regression on word and character n-grams."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ...harness.errors import UserError
from ...harness.specs import LabelledRow
from ..base import scorers
from ._texts import DIGITS, folder_of
from .kinds import Fitted

LABELLED = "labelled.jsonl"
FOLDS = 5


@scorers.register("ngram")
class NGram(Fitted):
    """A scorer that is fitted when it is loaded, always to the same weights.

    The folder holds `labelled.jsonl`, rows {"text", "label"} with label 1 for toxic and 0 for not, and `group` where
    texts belong together, such as a sentence and its paraphrase. TF-IDF of words (1-2) and of characters within words
    (2-5), L2-regularised logistic regression, classes weighted evenly. It knows spelling, not meaning: report `auc`
    beside its numbers, and use a trained classifier where there is one.
    """

    summary = "stand-in: n-gram logistic regression, fitted on labelled.jsonl at load"
    version = 1
    reversed_labels = f"swap 0 and 1 in its {LABELLED}"

    def __init__(self, folder: str, device: str = "cpu") -> None:
        """Read and fit; raise a `UserError` on a missing file, a wrong row or fewer than two groups of a label."""
        self.texts, self.labels, self.groups = _read(folder_of(folder, LABELLED) / LABELLED)
        self.model = _pipeline().fit(self.texts, self.labels)

    def score(self, texts: Sequence[str]) -> list[float | None]:
        """Return the fitted probability of each text, rounded to six digits."""
        if not texts:
            return []
        return [round(float(value), DIGITS) for value in self.model.predict_proba(list(texts))[:, 1]]

    @cached_property
    def auc(self) -> float:
        """Area under the ROC curve over at most five held-out folds, computed when first asked for.

        A group is never split: a sentence judged by a fit that saw its paraphrase under the other label is misjudged
        more often than a new one.
        """
        from sklearn.metrics import roc_auc_score
        from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

        split = StratifiedGroupKFold(
            min(FOLDS, *_groups_of_each(self.labels, self.groups)), shuffle=True, random_state=0
        )
        held_out: Any = cross_val_predict(
            _pipeline(), self.texts, self.labels, groups=self.groups, cv=split, method="predict_proba"
        )
        return float(roc_auc_score(self.labels, held_out[:, 1]))

    def held_out(self) -> str:
        """Return `auc` with the number of texts and, where texts belong together, of groups."""
        groups = len(set(self.groups))
        grouped = f" in {groups} groups" if groups < len(self.texts) else ""
        return f"held-out AUC {self.auc:.3f} over {len(self.texts)} texts{grouped}"


def _pipeline() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=50_000, token_pattern=r"(?u)\b\w+\b"),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, max_features=50_000),
    )
    return make_pipeline(features, LogisticRegression(C=10.0, class_weight="balanced", max_iter=1000))


def _read(file: Path) -> tuple[list[str], list[int], list[str]]:
    texts, labels, groups = [], [], []
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = LabelledRow.read(json.loads(line), f"{file}, line {number}")
        except (ValueError, TypeError) as error:
            raise UserError(f'{file}: line {number} is no {{"text": …, "label": 0 or 1}}; mend it.') from error
        texts.append(row.text)
        labels.append(row.label)
        groups.append(f"row {number}" if row.group is None else row.group)
    if min(_groups_of_each(labels, groups)) < 2:
        raise UserError(
            f"{file} needs at least two texts of each label, in two groups; it has {sum(labels)} toxic of {len(labels)}"
            f" texts in {len(set(groups))} groups."
        )
    return texts, labels, groups


def _groups_of_each(labels: Sequence[int], groups: Sequence[str]) -> list[int]:
    """Return how many groups hold a text of the label 0, and how many one of the label 1."""
    return [len({group for label, group in zip(labels, groups, strict=True) if label == wanted}) for wanted in (0, 1)]
