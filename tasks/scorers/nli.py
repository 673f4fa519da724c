"""A sequence classifier of pairs of texts (natural language inference) as a scorer of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ...harness.specs import identity
from ..base import PairScorer, ScorerSettings, scorers
from ._labels import Activation, LabelSettings
from ._texts import ORDINARY, Tokens, judged, padded
from .sequence_classifier import SequenceClassifier


class NLISettings(LabelSettings):
    """Which output counts: that of the label called entailment, its labels excluding each other."""

    label: int | str | tuple[int | str, ...] | None = identity(
        "entailment", description="the one that means that the first text holds the second, by name or number"
    )
    activation: Activation | None = identity("softmax", description="as in `sequence_classifier`")


@scorers.register("nli")
class NLI(SequenceClassifier, PairScorer):
    """A folder that `AutoModelForSequenceClassification` reads, whose input is a pair: a cross-encoder."""

    summary = "a cross-encoder of transformers: probability that the first text entails the second"
    version = 1
    Settings: ClassVar[type[ScorerSettings]] = NLISettings
    reversed_labels = PairScorer.reversed_labels
    pairs = True

    def __init__(self, folder: str, device: str = "cpu", settings: NLISettings | None = None) -> None:
        super().__init__(folder, device, settings or NLISettings())

    def score(self, texts: Sequence[tuple[str, str]]) -> list[float | None]:
        """Return the probability that each premise entails its hypothesis, rounded to six digits."""
        return judged(texts, self._encode, lambda rows: self._toxic(padded(self.tokenizer, rows)), (ORDINARY, ORDINARY))

    def _encode(self, pair: tuple[str, str]) -> Tokens:
        tokens: Any = self.tokenizer(*pair, truncation=True, max_length=self.limit)
        return {name: tokens[name] for name in ("input_ids", "token_type_ids") if name in tokens}
