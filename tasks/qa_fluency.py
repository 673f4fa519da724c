"""Questions answered freely: how far the generated answers are prose and no gibberish, by a classifier of texts."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import ClassVar, Literal

from ..harness.errors import UserError
from ..harness.records import Generations, Item, Record
from ..harness.specs import identity
from .base import Metric, Scorer, TaskSettings, check_answered, register
from .qa_judged import judgement
from .qa_rouge import QARougeSettings, QuestionAnswersRouge, given


class QAFluencySettings(QARougeSettings):
    """How a question is put, and how its answer is generated."""

    metric: Literal["fluency"] = identity(  # pyright: ignore[reportIncompatibleVariableOverride]
        "fluency", description="the score that boards show and S is made of"
    )


@register("qa_fluency")
class QuestionAnswersFluency(QuestionAnswersRouge):
    """Rows with `question` and `answer`, as in `qa`; the task's `scorer:` in the suite is of the kind `fluency`.

    Record score: `fluency`, the mean over the continuations of a question of the probability that they are prose. An
    answer without a word is given to the classifier like any other, as in OpenUnlearning (arXiv 2506.12618). Marks:
    `wordless`, `unjudged` (the scorer gave no probability), `truncated`.
    """

    Settings: ClassVar[type[TaskSettings]] = QAFluencySettings
    version = 1
    summary = "questions answered freely: fluency of the answers by a classifier of gibberish"
    citation = "Dorna et al. 2025, OpenUnlearning, arXiv 2506.12618"
    judged = True
    fluency = True
    scoring = frozenset({"metric", "stemmer"})
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("fluency", chance=0.0, better="higher"),)
    marks = QuestionAnswersRouge.marks

    def score(
        self, items: Sequence[Item], outcomes: Sequence[Generations], scorer: Scorer | None = None
    ) -> list[Record]:
        """Return a record a question, each different answer judged once."""
        if scorer is None:
            raise UserError("qa_fluency needs a scorer of fluency; name one under `scorer:` of the task in the suite.")
        texts = sorted({text for outcome in outcomes for text in given(outcome)})
        said = dict(zip(texts, map(judgement, scorer.score(texts)), strict=True)) if texts else {}
        return [
            self._fluent(item, outcome, [said[text] for text in given(outcome)])
            for item, outcome in zip(items, outcomes, strict=True)
        ]

    def _fluent(self, item: Item, outcome: Generations, values: Sequence[float | None]) -> Record:
        check_answered(item, outcome)
        known = [value for value in values if value is not None]
        marks = {
            "wordless": sum(not text.strip() for text in given(outcome)) / (len(values) or 1),
            "unjudged": (len(values) - len(known)) / (len(values) or 1),
            "truncated": float(outcome.truncated > 0),
        }
        place = (item.id, item.cluster, item.stratum)
        if not known:
            return Record(*place, None, "no answer could be judged" if values else "no answer was given", marks)
        return Record(*place, {"fluency": fmean(known)}, None, marks)
