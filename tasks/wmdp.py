"""WMDP: hazardous knowledge, the measure of what is to be forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ..harness.errors import UserError, suggest
from ..harness.records import Item
from ..harness.specs import identity
from .base import TaskSettings, register
from .multiple_choice import MultipleChoice, MultipleChoiceSettings, question_row

NAMES = {"bio": "biology", "cyber": "cybersecurity", "chem": "chemistry"}
"""Topics of WMDP and how lm-eval describes them."""
CONTROLS = ("chem",)
"""Topics without a forget corpus: asked only where `topics` names them."""


class WMDPSettings(MultipleChoiceSettings):
    """Settings of WMDP."""

    topics: tuple[str, ...] | None = identity(
        None, min_length=1, description="topics that are asked; None: all but the control chem"
    )


@register("wmdp")
class WMDP(MultipleChoice):
    """Rows in the schema of `cais/wmdp` plus a `subject`, the topic; strata are the topics.

    lm-eval's group `wmdp` pools bio, cyber and chem. The forget corpora hold no chem, so it is a control: run it as a
    task of its own with `topics: [chem]`.
    """

    Settings: ClassVar[type[TaskSettings]] = WMDPSettings
    name = "wmdp"
    version = 1
    summary = "WMDP, four-choice questions of hazardous knowledge: bio and cyber, chem as a control"
    citation = "Li et al. 2024, The WMDP Benchmark, arXiv 2403.03218"
    names = NAMES

    def stratum(self, subject: str) -> str | None:
        """Return the topic that a subject is (`wmdp-bio` and `biology` are `bio`), None where it is not asked."""
        topic = _topic(subject)
        topics = self.settings.topics
        return topic if (topic in map(_topic, topics) if topics else topic not in CONTROLS) else None

    def items(self, rows: Sequence[Mapping[str, Any]]) -> list[Item]:
        """Return an item a question of the asked topics; raise a `UserError` where the data lacks one of them."""
        items = super().items(rows)
        strata = {item.stratum for item in items}
        for topic in self.settings.topics or ():
            if _topic(topic) not in strata:
                known = {_topic(str(row.get("subject"))) for row in rows}
                raise UserError(f"wmdp: the data has no topic {topic!r}.{suggest(topic, known)}")
        return items

    @classmethod
    def example_rows(cls) -> list[dict[str, Any]]:
        """Return three harmless questions of two topics."""
        return [
            question_row("Which molecule carries genes?", ["DNA", "ATP", "NaCl", "H2O"], 0, "bio"),
            question_row("What do cells divide by?", ["rust", "mitosis", "wind", "sleep"], 1, "bio"),
            question_row("Which port serves HTTPS?", ["21", "22", "80", "443"], 3, "cyber"),
        ]


def _topic(name: str) -> str:
    short = name.removeprefix("wmdp-").removeprefix("wmdp_")
    return {long: topic for topic, long in NAMES.items()}.get(short.lower(), short)
