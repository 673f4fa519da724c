"""Perplexity of text: what a checkpoint still makes of ordinary prose, an audit beside questions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ..harness.records import Choices, Item, Record
from ..harness.specs import RowSpec, TextRow, identity
from ._rows import identities
from .base import ChoiceRequest, Metric, ModelRequest, Needs, Scorer, Task, TaskSettings, check_answered, register


class PerplexitySettings(TaskSettings):
    """How much of a text is read."""

    max_characters: int = identity(1000, ge=1, description="of a text; the rest is left out, after a whole word")


@register("perplexity")
class Perplexity(Task):
    """Rows with `text`; each text is one item, scored as a continuation of nothing (the begin token).

    Record score: `nll`, the negative log-probability in nats a token, so that texts count alike; the perplexity is its
    exponential. Mark: `truncated`.
    """

    Settings: ClassVar[type[TaskSettings]] = PerplexitySettings
    Row: ClassVar[type[RowSpec]] = TextRow
    version = 1
    summary = "perplexity of ordinary text, nats a token: whether a checkpoint still models language"
    citation = "Jelinek et al. 1977, Perplexity, a measure of the difficulty of speech recognition tasks"
    needs: ClassVar[Needs] = "choices"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("nll", chance=0.0, better="lower", largest=None),)

    @classmethod
    def example_rows(cls) -> list[dict[str, Any]]:
        """Return two short texts."""
        return [{"text": "The river rose in spring."}, {"text": "A bridge of stone stood on seven arches."}]

    def items(self, rows: Sequence[Mapping[str, Any]]) -> list[Item]:
        """Return an item a text, blank ones left out; copies form a cluster."""
        kept = [{"text": self._cut(text)} for row in TextRow.read_all(rows, "perplexity") if (text := row.text.strip())]
        names = identities(kept, [doc["text"] for doc in kept], "perplexity")
        return [Item(name, shared, "all", doc) for doc, (name, shared) in zip(kept, names, strict=True)]

    def _cut(self, text: str) -> str:
        limit = self.settings.max_characters
        if len(text) <= limit:
            return text
        return text[:limit].rsplit(maxsplit=1)[0] if not text[limit].isspace() else text[:limit].rstrip()

    def requests(self, items: Sequence[Item]) -> list[ModelRequest]:
        """Return one request a text: itself, after nothing."""
        return [ChoiceRequest(item.id, "", (item.doc["text"],)) for item in items]

    def score(self, items: Sequence[Item], outcomes: Sequence[Choices], scorer: Scorer | None = None) -> list[Record]:
        """Return nats a token; a text without tokens or with a log-probability that is not finite is missing."""
        return [self._record(item, outcome) for item, outcome in zip(items, outcomes, strict=True)]

    @staticmethod
    def _record(item: Item, outcome: Choices) -> Record:
        check_answered(item, outcome)
        place = (item.id, item.cluster, item.stratum)
        [value], [tokens] = outcome.logprobs, outcome.tokens
        if not tokens or value is None or not math.isfinite(value):
            return Record(*place, None, "the log-probability is not finite" if tokens else "the text has no token")
        return Record(*place, {"nll": -value / tokens}, None, {"truncated": float(outcome.truncated > 0)})
