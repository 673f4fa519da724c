"""Measured properties of the micro world, on validation items only: what the base knows, how toxic it is, how good the
classifier is, and how likely the base finds coherent text and gibberish.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score

from .....tasks.scorers.trust import Trust
from ....data import sample_items
from ....engines.transformers import TransformersEngine
from ....jobs.evaluate import with_reference
from ....models.load import ModelSpec
from ....planning.plan import build_task
from ....records import Generations, Record
from ....suite import load_suite
from .comments import true_label
from .lexicon import INSULTS
from .world import World

Rows = Sequence[Mapping[str, Any]]
SUITE = load_suite("micro")
PROMPTS = "realtoxicityprompts"
DERIVED = ("inverse", "two_hop", "aliases", "languages")
NOISE_STRENGTHS = (0.25, 0.5, 1.0, 2.0)
GIBBERISH_STRENGTHS = (1.0, 2.0)
SAMPLES_PER_PROMPT = 10


@dataclass(frozen=True)
class Base:
    """A base model behind the harness' engine, and a classifier."""

    engine: TransformersEngine
    classifier: Trust

    @classmethod
    def load(cls, folder: Path, model: str = "model") -> Base:
        """Return the model of that name and the classifier that lie in a folder."""
        engine = TransformersEngine(ModelSpec(name="micro", path=str(folder / model)))
        return cls(engine, Trust(str(folder / "judge")))

    def answers(self, name: str, rows: Rows, limit: int | None = None) -> list[Record]:
        """Return records of a task that scores choices, on rows or a seeded sample of them."""
        task = build_task(SUITE.tasks[name])
        items = sample_items(task.items(rows), limit)
        requests: Any = task.requests(items)
        return task.score(items, self.engine.score_choices(requests))

    def continuations(
        self, rows: Rows, *, samples: int = 5, seed: int = 0, strength: float = 0.0, limit: int | None = None
    ) -> tuple[list[Generations], list[Record]]:
        """Return what the model says after prompts, and the records.

        Args:
            rows: prompts; a seeded sample of `limit` of them.
            samples: continuations a prompt.
            seed: of the decoding and of the noise.
            strength: spread of Gaussian noise on every matrix, a multiple of the matrix's own spread. The references
                are those of the model without it.
        """
        task = build_task(SUITE.tasks[PROMPTS])
        items = sample_items(task.items(rows), limit)
        requests: Any = task.requests(items)
        decoding = task.settings.decoding.model_copy(update={"samples": samples, "seed": seed})
        self.engine.apply(_noised(self.engine.model, strength, seed))
        try:
            generations = self.engine.generate(requests, decoding)
        finally:
            self.engine.restore()
        generations = with_reference(self.engine, requests, generations)
        return generations, task.score(items, generations, self.classifier)


def _noised(model: torch.nn.Module, strength: float, seed: int) -> dict[str, torch.Tensor]:
    """Return the matrices of a model with noise."""
    draws = torch.Generator().manual_seed(seed)
    return {
        name: matrix.detach() + strength * matrix.std() * torch.randn(matrix.shape, generator=draws)
        for name, matrix in model.named_parameters()
        if matrix.dim() == 2
    }


def mean(records: Sequence[Record], score: str) -> float:
    """Return the mean of a score over the records that have one."""
    return float(np.mean([record.scores[score] for record in records if record.scores is not None]))


def by_stratum(records: Sequence[Record], score: str) -> dict[str, float]:
    """Return the mean of a score by stratum."""
    strata = dict.fromkeys(record.stratum for record in records)
    return {name: _round(mean([record for record in records if record.stratum == name], score)) for name in strata}


def knowledge(base: Base, name: str, rows: Rows) -> dict[str, Any]:
    """Return accuracy: overall, on known and unknown facts, by subject; and the known share."""
    records = base.answers(name, rows)
    known = {row["id"] for row in rows if row["known"]}
    frequency = {row["id"]: row["frequency"] for row in rows}
    levels = sorted({level for level in frequency.values() if level})
    return {
        "items": len(rows),
        "facts": len({row["fact"] for row in rows}),
        "accuracy": _round(mean(records, "acc")),
        "known_share": _round(len(known) / len(rows)),
        "known_accuracy": _round(mean([record for record in records if record.item in known], "acc")),
        "unknown_accuracy": _round(mean([record for record in records if record.item not in known], "acc")),
        "accuracy_by_frequency": {
            str(level): _round(mean([record for record in records if frequency[record.item] == level], "acc"))
            for level in levels
        },
        "by_subject": by_stratum(records, "acc"),
    }


def otherwise(base: Base, data: Mapping[str, Rows], topics: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return accuracy on what follows from validation facts of the forget topics and of the others."""
    measured: dict[str, dict[str, float]] = {}
    for name in DERIVED:
        rows = data[f"{name}_validation"]
        records, subjects = base.answers("wmdp", rows), {row["id"]: row["subject"] for row in rows}
        measured[name] = {
            role: _round(mean([one for one in records if (subjects[one.item] in topics) == own], "acc"))
            for role, own in (("forget", True), ("utility", False))
        }
    return measured


def base_toxicity(base: Base, rows: Rows, seed: int) -> dict[str, Any]:
    """Return the toxicity rate of continuations by kind of prompt, and the classifier against the grammar's truth."""
    generations, records = base.continuations(rows, samples=SAMPLES_PER_PROMPT, seed=seed)
    truth = np.array([true_label(text) for answer in generations for text in answer.texts], dtype=float)
    scores = np.array([score for record in records for score in record.text_scores or ()], dtype=float)
    inside = ~np.isnan(truth) & ~np.isnan(scores)
    truth, scores = truth[inside], scores[inside]
    return {
        "prompts": len(rows),
        "samples_per_prompt": SAMPLES_PER_PROMPT,
        "rate": _round(mean(records, "toxicity_rate")),
        "rate_by_kind": by_stratum(records, "toxicity_rate"),
        "inside_grammar": _round(inside.mean()),
        "true_rate_inside_grammar": _round(truth.mean()),
        "classifier_auc_inside_grammar": _round(roc_auc_score(truth, scores)),
        "classifier_agreement_inside_grammar": _round(accuracy_score(truth, scores > 0.5)),
    }


def classifier_quality(base: Base, world: World, rows: Rows) -> dict[str, float]:
    """Return the AUC on labelled text of the classifier, of a bag of insult words and of a bag of all words."""
    texts, labels = [str(row["text"]) for row in rows], [row["label"] for row in rows]
    scores = np.array(base.classifier.score(texts), dtype=float)

    def bag_auc(vocabulary: Sequence[str] | None) -> float:
        vectors = CountVectorizer(vocabulary=vocabulary)
        train, targets = zip(*world.classifier_training, strict=True)
        probe = LogisticRegression(max_iter=1000).fit(vectors.fit_transform(train), targets)
        return _round(roc_auc_score(labels, probe.decision_function(vectors.transform(texts))))

    return {
        "auc": _round(roc_auc_score(labels, scores)),
        "accuracy": _round(accuracy_score(labels, scores > 0.5)),
        "auc_insult_words_only": bag_auc(INSULTS),
        "auc_bag_of_words": bag_auc(None),
    }


def gibberish(base: Base, rows: Rows, seed: int) -> dict[str, Any]:
    """Return nats a token, under the base, of its own continuations and of noised models'.

    The threshold lies half-way between the two in log space.
    """
    own = _losses(base.continuations(rows, samples=2 * SAMPLES_PER_PROMPT, seed=seed + 1)[0])
    noised = {strength: base.continuations(rows, seed=seed + 2, strength=strength) for strength in NOISE_STRENGTHS}
    losses = {strength: _losses(generations) for strength, (generations, _) in noised.items()}
    strong = np.concatenate([losses[strength] for strength in GIBBERISH_STRENGTHS])
    threshold = _round(np.sqrt(np.quantile(own, 0.999) * np.quantile(strong, 0.05)))
    return {
        "own_samples": _quantiles(own, (0.5, 0.95, 0.99, 0.999)),
        "other_text": {
            f"noise_{strength}": {
                **_quantiles(losses[strength], (0.01, 0.05, 0.5)),
                "scored_toxic": _round(mean(records, "toxicity_rate")),
                "above_threshold": _round((losses[strength] > threshold).mean()),
            }
            for strength, (_, records) in noised.items()
        },
        "threshold": threshold,
        "own_samples_above_threshold": _round((own > threshold).mean(), 5),
    }


def fluency(base: Base, rows: Rows) -> float:
    """Return nats a token of general text, the mean over texts."""
    return _round(mean(base.answers("perplexity", rows), "nll"))


def _losses(generations: Sequence[Generations]) -> np.ndarray:
    """Return nats a token of every continuation that has a token."""
    return np.array(
        [
            -logprob / tokens
            for answer in generations
            for tokens, logprob in zip(answer.tokens, answer.reference or (), strict=True)
            if tokens and logprob is not None
        ]
    )


def _quantiles(values: np.ndarray, levels: Sequence[float]) -> dict[str, float]:
    return {f"{level:.1%}": _round(np.quantile(values, level)) for level in levels}


def _round(value: Any, digits: int = 4) -> float:
    return round(float(value), digits)
