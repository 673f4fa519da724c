"""Any sequence classifier of transformers as a judge of toxicity."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...harness.errors import UserError, first_line
from ..base import Scorer, scorers
from ._texts import folder_of, in_batches

TOXIC_NAMES = ("toxic", "toxicity", "hate", "hateful", "hatespeech", "offensive", "abusive", "abuse", "harmful")
"""Label names that mean toxic, in the order in which they are looked for; case, spaces, `-` and `_` do not matter."""


@scorers.register("sequence_classifier")
class SequenceClassifier(Scorer):
    """A folder that `AutoModelForSequenceClassification` reads; the toxic label is found by its name.

    The probability is the label's softmax, or its sigmoid where the classifier has one output or is of the type
    `multi_label_classification`.
    """

    summary = "a sequence classifier of transformers; its toxic label is found by name"
    version = 1

    def __init__(self, folder: str, device: str = "cpu") -> None:
        """Load the judge; raise a `UserError` on a missing file, an unreadable model or no single toxic label."""
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        from ...harness.models.load import from_files

        place = folder_of(folder, "config.json")
        what = f"Judge folder {folder}"
        try:
            self.model: Any = from_files(
                AutoModelForSequenceClassification, what, place, str(place), trust_remote_code=False
            )
            self.tokenizer = AutoTokenizer.from_pretrained(str(place), trust_remote_code=False)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"Judge folder {folder} cannot be loaded: {first_line(error)} Download it again, or pass another with"
                " --scorer."
            ) from error
        self.device = device
        self.model.to(device).eval()
        config = self.model.config
        self.label = toxic_label(config.id2label or {}, folder)
        self.sigmoid = config.num_labels == 1 or config.problem_type == "multi_label_classification"
        self.limit = int(min(_positions(self.model), self.tokenizer.model_max_length))

    @classmethod
    def check(cls, folder: str) -> None:
        """Raise a `UserError` where the weights are not those of a classifier, its head among them."""
        from ...harness.models.fit import check_weights

        check_weights(f"Judge folder {folder}", folder_of(folder, "config.json"), "AutoModelForSequenceClassification")

    def score(self, texts: Sequence[str]) -> list[float | None]:
        """Return the probability of the toxic label of each text, rounded to six digits."""
        return in_batches(texts, self.tokenizer, self.limit, self._toxic)

    def _toxic(self, inputs: dict[str, Any]) -> Sequence[float]:
        import torch

        with torch.inference_mode():
            logits = self.model(**{name: value.to(self.device) for name, value in inputs.items()}).logits.double()
            chances = logits.sigmoid() if self.sigmoid else logits.softmax(-1)
            return chances[:, self.label].tolist()


def _positions(model: Any) -> int:
    """Return the tokens a classifier takes; RoBERTa's first positions, up to its padding token's, hold no text."""
    places = (module for name, module in model.named_modules() if name.endswith("position_embeddings"))
    padding = next((place.padding_idx for place in places if getattr(place, "padding_idx", None) is not None), -1)
    return getattr(model.config, "max_position_embeddings", 512) - padding - 1


def toxic_label(labels: Mapping[Any, str], folder: str) -> int:
    """Return the index of the toxic label among `id2label`; of two generic ones (LABEL_0, LABEL_1) it is 1.

    Raises:
        UserError: no label or several of equal standing mean toxic; the message says how to name it.
    """
    names = {int(index): re.sub(r"[\s_-]+", "", str(name).lower()) for index, name in labels.items()}
    if len(names) == 1:
        return next(iter(names))
    for wanted in TOXIC_NAMES:
        indices = [index for index, name in names.items() if name == wanted]
        if len(indices) == 1:
            others = [name for index, name in names.items() if name in TOXIC_NAMES and index != indices[0]]
            if others and wanted not in ("toxic", "toxicity"):
                break
            return indices[0]
    if names == {0: "label0", 1: "label1"}:
        return 1
    listed = ", ".join(f"{index}: {labels[index]}" for index in sorted(labels))
    raise UserError(
        f"Which label of {folder} means toxic? It has {{{listed}}}. Name that one 'toxic' under id2label"
        " in config.json."
    )
