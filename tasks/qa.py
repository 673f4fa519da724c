"""Questions with given answers: how probable, how memorised and how preferred to wrong ones an answer is.

TOFU's probability and truth ratio (Maini et al. 2024, arXiv 2401.06121), and what OpenUnlearning (Dorna et al. 2025,
arXiv 2506.12618) says of an answer's tokens. The formulas are those of `_memorisation`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from ..harness.errors import DataError
from ..harness.records import Item, Preview, Record, Trace, Traces
from ..harness.specs import RowSpec, identity, place_of
from . import _memorisation as memorisation
from ._answers import ASKED, AnswerRow, AnswerSettings, answer_items
from .base import (
    ItemWorkload,
    Metric,
    ModelRequest,
    Needs,
    Scorer,
    Task,
    TaskSettings,
    TraceRequest,
    check_answered,
    register,
)

AGAINST_WRONG = ("normalised_prob", "truth_ratio", "forget_truth_ratio", "retain_truth_ratio", "prob_mean")
"""Scores that need wrong answers."""


class QASettings(AnswerSettings):
    """How a question is put, which tokens of its answers count, and which reading of the formulas is taken."""

    metric: Literal[
        "prob",
        "paraphrased_prob",
        "normalised_prob",
        "truth_ratio",
        "forget_truth_ratio",
        "retain_truth_ratio",
        "prob_mean",
        "exact_memorisation",
        "extraction_strength",
        "loss",
        "zlib",
        "min_k",
    ] = identity("prob", description="the score that boards show and S is made of")
    delimiter: str = identity(" ", description="between prompt and answer; a chat has none")
    end: bool = identity(True, description="the end token counts as an answer's last in probabilities and losses")
    moments: bool = identity(False, description="mean and variance over the vocabulary too, for `min_k_plus_plus`")
    aggregate: memorisation.Aggregate = identity(
        "geometric", description="mean of the probabilities of wrong answers, and of several paraphrases"
    )
    epsilon: float = identity(0.0, ge=0, description="added to the divisor of the truth ratio; 1e-10 in OpenUnlearning")
    left_out: Literal["end", "last", "nothing"] = identity(
        "end",
        description="of memorisation and Min-k: the end token, or the last one whatever it is (OpenUnlearning on text"
        " without an end token)",
    )
    unmatched: Literal["published", "zero"] = identity(
        "published", description="extraction strength where not even the last token is a hit: 1/n, or 0"
    )
    share: float = identity(0.4, gt=0, le=1, description="k of Min-k and Min-k++")
    least: int = identity(1, ge=0, description="fewest tokens of Min-k and Min-k++; 0: too short an answer has none")
    empty: float | None = identity(None, description="Min-k of an answer without a token; 0 in OpenUnlearning")


@register("qa")
class QuestionAnswers(Task):
    """Rows with `question` and `answer`, and where they have them paraphrases and wrong (perturbed) answers.

    Record scores, of the answer: `prob`, `loss`, `zlib`, `exact_memorisation`, `extraction_strength`, `min_k` and, with
    `moments`, `min_k_plus_plus` (which may be negative). Of its paraphrases: `paraphrased_prob`. Against wrong answers:
    `normalised_prob` (of the answer), and of the paraphrases, or of the answer where a row has none, `truth_ratio`
    (raw), `forget_truth_ratio`, `retain_truth_ratio` and `prob_mean`. A row without the answers that a score needs, and
    a score that is no finite number, lack it. Mark: `truncated`.
    """

    Settings: ClassVar[type[TaskSettings]] = QASettings
    Row: ClassVar[type[RowSpec]] = AnswerRow
    version = 1
    summary = "questions with given answers: probability, truth ratio, memorisation, Min-k"
    citation = "Maini et al. 2024, TOFU, arXiv 2401.06121; Dorna et al. 2025, OpenUnlearning, arXiv 2506.12618"
    needs: ClassVar[Needs] = "traces"
    scoring = frozenset({"metric", "aggregate", "epsilon", "left_out", "unmatched", "share", "least", "empty"})
    compared = (*ASKED, "end", "aggregate", "epsilon", "left_out", "unmatched", "share", "least", "empty")
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("prob", chance=0.0, better="higher"),
        Metric("paraphrased_prob", chance=0.0, better="higher"),
        Metric("normalised_prob", chance=0.0, better="higher"),
        Metric("truth_ratio", chance=0.0, better="lower", largest=None),
        Metric("forget_truth_ratio", chance=0.0, better="lower"),
        Metric("retain_truth_ratio", chance=0.0, better="higher"),
        Metric("prob_mean", chance=0.0, better="higher"),
        Metric("exact_memorisation", chance=0.0, better="higher"),
        Metric("extraction_strength", chance=0.0, better="higher"),
        Metric("loss", chance=0.0, better="lower", largest=None),
        Metric("zlib", chance=0.0, better="lower", largest=None),
        Metric("min_k", chance=0.0, better="lower", largest=None),
    )

    @classmethod
    def example_rows(cls) -> list[dict[str, Any]]:
        """Return two questions with paraphrases and wrong answers."""
        return [
            {
                "question": "Which river crosses Vienna?",
                "answer": "The Danube crosses Vienna.",
                "paraphrased_answer": "Vienna lies on the Danube.",
                "perturbed_answers": ["The Rhine crosses Vienna.", "The Elbe crosses Vienna."],
            },
            {
                "question": "What do bees make?",
                "answer": "Bees make honey.",
                "paraphrased_answer": "Honey is what bees make.",
                "perturbed_answers": ["Bees make silk.", "Bees make milk."],
            },
        ]

    def items(self, rows: Sequence[Mapping[str, Any]]) -> list[Item]:
        """Return an item a row; see `answer_items`. Raise a `DataError` where the chosen metric lacks its answers."""
        items = answer_items(rows, "qa", self.settings.block)
        for number, (row, item) in enumerate(zip(rows, items, strict=True), start=1):
            lacking = (self.settings.metric in AGAINST_WRONG and not item.doc["perturbed_answers"] and "perturbed") or (
                self.settings.metric == "paraphrased_prob" and not item.doc["paraphrased_answers"] and "paraphrased"
            )
            if lacking:
                raise DataError(
                    f"qa: {place_of(row, number)} has no '{lacking}_answers', which the metric"
                    f" {self.settings.metric!r} needs; map them under `columns:`, or choose another metric."
                )
        return items

    def requests(self, items: Sequence[Item]) -> list[ModelRequest]:
        """Return one request a question: its answer, paraphrases and wrong answers, in this order."""
        settings = self.settings
        return [
            TraceRequest(
                item.id,
                settings.asked(item.doc["question"]),
                tuple(settings.delimiter + text for text in _answers(item)),
                end=settings.end,
                moments=settings.moments,
                delimiter=settings.delimiter,
                **settings.chat,
            )
            for item in items
        ]

    def preview(self, item: Item) -> Preview:
        """Return the question with its answer, paraphrases and wrong answers, as they are asked about."""
        counts = {"paraphrase": len(item.doc["paraphrased_answers"]), "wrong": len(item.doc["perturbed_answers"])}
        kinds = ["right", *(kind for kind, count in counts.items() for _ in range(count))]
        return Preview(item.doc["question"], _answers(item), right=0, kinds=kinds)

    def workload(self) -> ItemWorkload:
        """Return the lengths of TOFU's forget10 under SmolLM2's tokenizer, with a paraphrase and five wrong answers."""
        return ItemWorkload(7, tokens=62, longest=256, logits=40)

    def score(self, items: Sequence[Item], outcomes: Sequence[Traces], scorer: Scorer | None = None) -> list[Record]:
        """Return a record a question; one whose answer has no token or a log-probability that is none is missing."""
        return [self._record(item, outcome) for item, outcome in zip(items, outcomes, strict=True)]

    def _record(self, item: Item, outcome: Traces) -> Record:
        check_answered(item, outcome)
        place = (item.id, item.cluster, item.stratum)
        answer, *others = outcome.traces
        if not answer.logprobs or (answer.ended and len(answer.logprobs) == 1):
            return Record(*place, None, "the answer has no token of its own")
        if answer.probability is None:
            return Record(*place, None, "a log-probability is not finite")
        paraphrases = len(item.doc["paraphrased_answers"])
        scores = self.scores(answer, item.doc["answer"])
        scores |= self._against(answer, others[:paraphrases], others[paraphrases:])
        known = {name: value for name, value in scores.items() if value is not None and math.isfinite(value)}
        return Record(*place, known, None, {"truncated": float(outcome.truncated > 0)})

    def scores(self, trace: Trace, text: str) -> dict[str, float | None]:
        """Return the scores of a right answer alone, of its trace and its text; None is no value."""
        settings = self.settings
        loss = memorisation.loss(trace.logprobs)
        drop = settings.left_out == "last" or (settings.left_out == "end" and trace.ended)
        counted = trace.first(len(trace.logprobs) - drop)
        lowest = {"share": settings.share, "least": settings.least, "empty": settings.empty}
        scores = {
            "prob": trace.probability,
            "loss": loss,
            "zlib": None if loss is None else memorisation.zlib_ratio(loss, text),
            "exact_memorisation": memorisation.exact_memorisation(counted.hits),
            "extraction_strength": memorisation.extraction_strength(counted.hits, settings.unmatched),
            "min_k": memorisation.min_k(counted.logprobs, **lowest),
        }
        means, variances = counted.means, counted.variances
        if means is None or variances is None or None in means or None in variances:
            return scores
        scaled = memorisation.min_k_plus_plus(counted.logprobs, means, variances, **lowest)
        return scores | {"min_k_plus_plus": scaled}

    def _against(self, answer: Trace, paraphrases: Sequence[Trace], wrong: Sequence[Trace]) -> dict[str, float | None]:
        """Return the scores of the right answers, and those against the wrong ones."""
        aggregate = self.settings.aggregate
        own, others = answer.probability, _probabilities(wrong)
        paraphrased = memorisation.mean_probability(_probabilities(paraphrases) or [], aggregate)
        right = paraphrased if paraphrases else own
        scores = {"paraphrased_prob": paraphrased}
        if own is None or right is None or not others:
            return scores
        ratio = memorisation.truth_ratio(right, others, aggregate, self.settings.epsilon)
        return scores | {
            "normalised_prob": memorisation.normalised_probability(own, others),
            "truth_ratio": ratio,
            "forget_truth_ratio": None if ratio is None else memorisation.forget_truth_ratio(ratio),
            "retain_truth_ratio": None if ratio is None else memorisation.retain_truth_ratio(ratio),
            "prob_mean": memorisation.preference(right, others),
        }


def _answers(item: Item) -> list[str]:
    return [item.doc["answer"], *item.doc["paraphrased_answers"], *item.doc["perturbed_answers"]]


def _probabilities(traces: Sequence[Trace]) -> list[float] | None:
    """Return those of several texts, None where one has none."""
    values = [trace.probability for trace in traces]
    return None if None in values else [value for value in values if value is not None]
