"""Questions answered freely: how much of the right answer a generated one holds, by ROUGE.

The scores are those of the package rouge-score (Lin 2004, ROUGE), as in TOFU and OpenUnlearning: text in lower case,
all but letters a to z and digits a space, words stemmed (Porter) where asked. Recall is the share of the right answer's
words that stand in the generated one, for ROUGE-L as a longest common subsequence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from statistics import fmean
from typing import Any, ClassVar, Literal

from ..harness.records import Generations, Item, Mark, Preview, Record
from ..harness.specs import RowSpec, identity
from ._answers import ASKED, AnswerRow, AnswerSettings, answer_items
from .base import (
    Decoding,
    GenerationRequest,
    ItemWorkload,
    Metric,
    ModelRequest,
    Needs,
    Scorer,
    Task,
    TaskSettings,
    check_answered,
    register,
)


class QARougeSettings(AnswerSettings):
    """How a question is put, how its answer is generated, and how words are compared."""

    metric: Literal["rougeL_recall", "rouge1_recall", "rougeL_f1"] = identity(
        "rougeL_recall", description="the score that boards show and S is made of"
    )
    decoding: Decoding = identity(
        Decoding(samples=1, max_new_tokens=200, temperature=0), description="greedy in TOFU, 200 new tokens at most"
    )
    stemmer: bool = identity(True, description="compare stems of words; MUSE compares the words")


@register("qa_rouge")
class QuestionAnswersRouge(Task):
    """Rows with `question` and `answer`, as in `qa`.

    Record scores, each the mean over the continuations of a question: `rougeL_recall`, `rouge1_recall`, `rougeL_f1`. An
    answer without a word has 0, as in the package; one that was never given (logits that are not finite, no room for a
    token) is left out, and a question without any other is missing. Marks: `wordless`, `truncated`.
    """

    Settings: ClassVar[type[TaskSettings]] = QARougeSettings
    Row: ClassVar[type[RowSpec]] = AnswerRow
    version = 1
    summary = "questions answered freely: ROUGE against the right answer"
    citation = "Maini et al. 2024, TOFU, arXiv 2401.06121; Lin 2004, ROUGE"
    needs: ClassVar[Needs] = "generations"
    scoring = frozenset({"metric", "stemmer"})
    compared = (*ASKED, "decoding", "stemmer")
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("rougeL_recall", chance=0.0, better="higher"),
        Metric("rouge1_recall", chance=0.0, better="higher"),
        Metric("rougeL_f1", chance=0.0, better="higher"),
    )
    marks: ClassVar[Mapping[str, Mark]] = {
        "wordless": Mark("{share} of the answers to {task} have no word and count as 0", broken=True)
    }

    @classmethod
    def example_rows(cls) -> list[dict[str, Any]]:
        """Return three questions with answers."""
        return [
            {"question": "How many moons has Mars?", "answer": "The number of them is 2."},
            {"question": "How many arches has the bridge?", "answer": "There are some, number 1 to number 7."},
            {"question": "What do bees make?", "answer": "Words of honey."},
        ]

    def items(self, rows: Sequence[Mapping[str, Any]]) -> list[Item]:
        """Return an item a row; see `answer_items`."""
        return answer_items(rows, "qa_rouge", self.settings.block)

    def requests(self, items: Sequence[Item]) -> list[ModelRequest]:
        """Return the questions, each in the prompt."""
        settings = self.settings
        return [GenerationRequest(item.id, settings.asked(item.doc["question"]), **settings.chat) for item in items]

    def preview(self, item: Item) -> Preview:
        """Return the question with its answer."""
        return Preview(item.doc["question"], [item.doc["answer"]], right=0)

    def workload(self) -> ItemWorkload:
        """Return the lengths of TOFU's forget10 under SmolLM2's tokenizer, and answers as long as may be."""
        decoding = self.settings.decoding
        return ItemWorkload(decoding.samples, tokens=23, longest=64, sampled=decoding.max_new_tokens)

    @cached_property
    def _rouge(self) -> Any:
        from rouge_score.rouge_scorer import RougeScorer

        return RougeScorer(["rouge1", "rougeL"], use_stemmer=self.settings.stemmer)

    def score(
        self, items: Sequence[Item], outcomes: Sequence[Generations], scorer: Scorer | None = None
    ) -> list[Record]:
        """Return a record a question."""
        return [self._record(item, outcome) for item, outcome in zip(items, outcomes, strict=True)]

    def _record(self, item: Item, outcome: Generations) -> Record:
        check_answered(item, outcome)
        place = (item.id, item.cluster, item.stratum)
        texts = given(outcome)
        if not texts:
            return Record(*place, None, "no answer was given: logits that are not finite, or no room for a token")
        marks = {
            "wordless": sum(not text.strip() for text in texts) / len(texts),
            "truncated": float(outcome.truncated > 0),
        }
        return Record(*place, self.scores(item.doc["answer"].strip(), [text.strip() for text in texts]), None, marks)

    def scores(self, answer: str, texts: Sequence[str]) -> dict[str, float]:
        """Return the scores of a question of its right answer and the generated ones, at least one."""
        return self.means([self.rouge(answer, text) for text in texts])

    def means(self, rouge: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return the scores of a question of what ROUGE says of its generated answers, at least one."""
        return {
            "rougeL_recall": fmean(one["rougeL"].recall for one in rouge),
            "rouge1_recall": fmean(one["rouge1"].recall for one in rouge),
            "rougeL_f1": fmean(one["rougeL"].fmeasure for one in rouge),
        }

    def rouge(self, answer: str, text: str) -> dict[str, Any]:
        """Return what ROUGE says of a generated text beside the right answer, as the package names it."""
        return self._rouge.score(answer, text)


def given(outcome: Generations) -> list[str]:
    """Return the texts of an outcome that were given: empty ones count where the model ended them itself."""
    return [
        text
        for text, tokens, stopped in zip(outcome.texts, outcome.tokens, outcome.stopped, strict=True)
        if tokens or stopped
    ]
