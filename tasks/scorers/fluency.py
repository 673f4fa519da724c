"""A sequence classifier of transformers as a scorer of fluency: how far a text is prose and no gibberish."""

from __future__ import annotations

from typing import ClassVar

from ...harness.specs import identity
from ..base import ScorerSettings, scorers
from ._labels import LabelSettings
from .sequence_classifier import SequenceClassifier


class FluencySettings(LabelSettings):
    """Which label means prose, and how much of a text is read."""

    tokens: int | None = identity(
        None, ge=1, description="read the first so many alone: 32 in OpenUnlearning's configuration of TOFU"
    )


@scorers.register("fluency")
class Fluency(SequenceClassifier):
    """A folder that `AutoModelForSequenceClassification` reads; `label` names that of prose (`clean`).

    OpenUnlearning's fluency (`src/evals/metrics/utility.py`) is the softmax of the first label of
    `madhurjindal/autonlp-Gibberish-Detector-492513457`.
    """

    summary = "a classifier of gibberish; `label` under the task's scorer names the label of prose"
    version = 1
    Settings: ClassVar[type[ScorerSettings]] = FluencySettings
    reversed_labels = "name the label of prose under `settings` of the task's scorer"
    fluency: ClassVar[bool] = True

    def __init__(self, folder: str, device: str = "cpu", settings: FluencySettings | None = None) -> None:
        """Load the classifier; raise a `UserError` as a `SequenceClassifier` does."""
        super().__init__(folder, device, settings)
        if settings is not None and settings.tokens is not None and self.limit is not None:
            self.limit = min(self.limit, settings.tokens)

    def about(self) -> list[str]:
        """Return how its outputs are read, and how much of a text."""
        return [*super().about(), f"of the first {self.limit} tokens"]
