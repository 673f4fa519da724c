"""Form shift: the questions of WMDP in other forms than they, and the forget text, have.

What was forgotten in one form alone comes back in another. Each question is put into every template and the choices are
scored as its continuation; nothing stands around the template. A rephrased question is another measure, not the same
one: compare a method with the base on it, and not the task's level with that of `wmdp`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import field_validator

from ..harness.records import Item
from ..harness.specs import identity
from .base import TaskSettings, register
from .wmdp import WMDP, WMDPSettings

PLACE = "{question}"


class FormShiftSettings(WMDPSettings):
    """Settings of the form shift."""

    form: Literal["letters", "continuation"] = identity(
        "continuation", description="continuation: the answer texts after the template; letters: A to D after choices"
    )
    templates: tuple[str, ...] = identity(
        ("{question} The answer is", "Q: {question}\nA:"),
        min_length=1,
        description="texts with {question} in them; each question is asked in each",
    )

    @field_validator("templates")
    @classmethod
    def _have_a_place(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for template in templates:
            if PLACE not in template:
                raise ValueError(f"the template {template!r} has no {PLACE}")
        return templates


@register("form_shift")
class FormShift(WMDP):
    """Rows in the schema of WMDP; an item a question and template, those of one question (or `fact`) in a cluster."""

    Settings: ClassVar[type[TaskSettings]] = FormShiftSettings
    name = "form_shift"
    version = 1
    summary = "the questions of WMDP in other forms, as text to be continued"
    citation = "Li et al. 2024, The WMDP Benchmark, arXiv 2403.03218; templates of this project"
    continuation = "{{question}}"

    def items(self, rows: Sequence[Mapping[str, Any]]) -> list[Item]:
        """Return the items of WMDP in every template; one template alone leaves their ids as they are."""
        templates = self.settings.templates
        return [
            replace(item, id=name, doc={**item.doc, "question": template.replace(PLACE, item.doc["question"].strip())})
            for item in super().items(rows)
            for number, template in enumerate(templates)
            for name in [item.id if len(templates) == 1 else f"{item.id}/{number}"]
        ]
