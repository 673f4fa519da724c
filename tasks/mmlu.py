"""MMLU: knowledge of 57 subjects, the measure of what unlearning must keep."""

from __future__ import annotations

from typing import Any

from .base import register
from .multiple_choice import MultipleChoice


@register("mmlu")
class MMLU(MultipleChoice):
    """Rows in the schema of `cais/mmlu`: question, choices, answer, subject; strata are the subjects."""

    name = "mmlu"
    version = 1
    summary = "MMLU, four-choice questions of 57 subjects: utility"
    citation = "Hendrycks et al. 2021, Measuring Massive Multitask Language Understanding, arXiv 2009.03300"

    def description(self, subject: str) -> str:
        """Return lm-eval's description of `mmlu` (letters) or `mmlu_continuation`."""
        kind = "multiple choice questions" if self.settings.form == "letters" else "questions"
        return f"The following are {kind} (with answers) about {subject.replace('_', ' ')}.\n\n"

    @classmethod
    def example_rows(cls) -> list[dict[str, Any]]:
        """Return three questions of two subjects."""
        return [
            {
                "question": "What is 2 + 3?",
                "choices": ["4", "5", "6", "7"],
                "answer": 1,
                "subject": "elementary_mathematics",
            },
            {
                "question": "What is 3 * 3?",
                "choices": ["9", "6", "3", "1"],
                "answer": 0,
                "subject": "elementary_mathematics",
            },
            {
                "question": "Which is a planet?",
                "choices": ["Sun", "Moon", "Vega", "Mars"],
                "answer": 3,
                "subject": "astronomy",
            },
        ]
