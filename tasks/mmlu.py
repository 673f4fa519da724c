"""MMLU: knowledge of 57 subjects, the measure of what unlearning must keep."""

from __future__ import annotations

from typing import Any

from .base import register
from .multiple_choice import MultipleChoice, question_row


@register("mmlu")
class MMLU(MultipleChoice):
    """Rows in the schema of `cais/mmlu`: question, choices, answer, subject; strata are the subjects."""

    name = "mmlu"
    version = 1
    summary = "MMLU, four-choice questions of 57 subjects: utility"
    citation = "Hendrycks et al. 2021, Measuring Massive Multitask Language Understanding, arXiv 2009.03300"

    @classmethod
    def example_rows(cls) -> list[dict[str, Any]]:
        """Return three questions of two subjects."""
        return [
            question_row("What is 2 + 3?", ["4", "5", "6", "7"], 1, "elementary_mathematics"),
            question_row("What is 3 * 3?", ["9", "6", "3", "1"], 0, "elementary_mathematics"),
            question_row("Which is a planet?", ["Sun", "Moon", "Vega", "Mars"], 3, "astronomy"),
        ]
