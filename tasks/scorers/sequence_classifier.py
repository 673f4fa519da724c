"""Any sequence classifier of transformers as a scorer of toxicity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ...harness.errors import UserError, first_line
from ..base import Scorer, ScorerSettings, scorers
from ._labels import LabelSettings, reading_of
from ._texts import check_tokenizer, folder_of, in_batches, read_json

HALF = ("bfloat16", "float16")


@scorers.register("sequence_classifier")
class SequenceClassifier(Scorer):
    """A folder that `AutoModelForSequenceClassification` reads, run in float32.

    Which outputs count, and whether by softmax or sigmoid, is read from config.json (`problem_type`, names of labels
    that exclude each other) and asked for where that leaves it open; nothing is guessed.
    """

    summary = "a sequence classifier of transformers; config.json or `--set scorer.label` names its toxic label"
    version = 1
    Settings: ClassVar[type[ScorerSettings]] = LabelSettings
    reversed_labels = "say which label is toxic: --set scorer.label=NAME, or scorer.complement=true of a single one"

    def __init__(self, folder: str, device: str = "cpu", settings: LabelSettings | None = None) -> None:
        """Load the classifier.

        Raises:
            UserError: a file is missing or unreadable, its tokenizer is not its own, or a choice is left open.
        """
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        from ...harness.models.linear import use_onednn
        from ...harness.models.load import from_files

        place = folder_of(folder, "config.json")
        what, options = f"Scorer folder {folder}", {"trust_remote_code": False, "dtype": torch.float32}
        try:
            self.model: Any = from_files(AutoModelForSequenceClassification, what, place, str(place), **options)
            self.tokenizer = AutoTokenizer.from_pretrained(str(place), trust_remote_code=False)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"Scorer folder {folder} cannot be loaded: {first_line(error)} Download it again, or pass another with"
                " --scorer."
            ) from error
        self.reading = reading_of(read_json(place / "config.json"), settings or LabelSettings(), folder)
        self.device = device
        self.model.to(device).eval()
        use_onednn(self.model)
        check_tokenizer(self.tokenizer, self.model.get_input_embeddings().num_embeddings, folder)
        self.model.config.get_text_config().pad_token_id = self.tokenizer.pad_token_id
        self.limit = int(min(_positions(self.model), self.tokenizer.model_max_length))

    @classmethod
    def check(cls, folder: str) -> None:
        """Raise a `UserError` where the weights are not those of a classifier, its head among them."""
        from ...harness.models.fit import check_weights

        check_weights(f"Scorer folder {folder}", folder_of(folder, "config.json"), "AutoModelForSequenceClassification")

    @classmethod
    def identify(cls, folder: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return what was said of the labels; raise a `UserError` where config.json leaves a choice open."""
        config = read_json(folder_of(folder, "config.json") / "config.json")
        said: Any = cls.Settings.parse(settings, "scorer")
        reading_of(config, said, folder)
        half = (config.get("dtype") or config.get("torch_dtype")) in HALF
        return super().identify(folder, {**settings, **({"precision": "float32"} if half else {})})

    def score(self, texts: Sequence[Any]) -> list[float | None]:
        """Return the probability that each text is toxic, rounded to six digits."""
        return in_batches(texts, self.tokenizer, self.limit, self._toxic)

    def about(self) -> list[str]:
        """Return how its outputs are read."""
        return [str(self.reading)]

    def _toxic(self, inputs: dict[str, Any]) -> Sequence[float]:
        import torch

        with torch.inference_mode():
            logits = self.model(**{name: value.to(self.device) for name, value in inputs.items()}).logits.double()
            return self.reading.toxic(logits).tolist()


def _positions(model: Any) -> int:
    """Return the tokens a classifier takes; RoBERTa's first positions, up to its padding token's, hold no text."""
    places = (module for name, module in model.named_modules() if name.endswith("position_embeddings"))
    padding = next((place.padding_idx for place in places if getattr(place, "padding_idx", None) is not None), -1)
    return getattr(model.config, "max_position_embeddings", 512) - padding - 1
