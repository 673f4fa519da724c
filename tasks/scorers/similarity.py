"""The cosine of two texts' mean states in an encoder, as a scorer of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...harness.errors import UserError, first_line
from ..base import PairScorer, ScorerSettings, scorers
from ._texts import ORDINARY, Tokens, check_tokenizer, folder_of, judged, padded


@scorers.register("similarity")
class Similarity(PairScorer):
    """A folder that `AutoModel` reads, run in float32: a sentence encoder that pools by the mean of its last states.

    The score is max(0, cosine). What a folder of sentence-transformers says of other pooling is not read.
    """

    summary = "cosine of two texts' mean states in an encoder of transformers"
    version = 1

    def __init__(self, folder: str, device: str = "cpu", settings: ScorerSettings | None = None) -> None:
        """Load the encoder; raise a `UserError` where a file is missing or unreadable, or its tokenizer not its own."""
        import torch
        from transformers import AutoModel, AutoTokenizer

        from ...harness.models.load import from_files

        place = folder_of(folder, "config.json")
        what, options = f"Scorer folder {folder}", {"trust_remote_code": False, "dtype": torch.float32}
        try:
            self.model: Any = from_files(AutoModel, what, place, str(place), **options)
            self.tokenizer: Any = AutoTokenizer.from_pretrained(str(place), trust_remote_code=False)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"Scorer folder {folder} cannot be loaded: {first_line(error)} Download it again, or name another."
            ) from error
        self.device = device
        self.model.to(device).eval()
        check_tokenizer(self.tokenizer, self.model.get_input_embeddings().num_embeddings, folder)
        self.limit = int(
            min(getattr(self.model.config, "max_position_embeddings", 512), self.tokenizer.model_max_length)
        )

    def score(self, texts: Sequence[tuple[str, str]]) -> list[float | None]:
        """Return the cosine of each pair, 0 where it is negative, rounded to six digits."""
        return judged(texts, self._encode, self._cosines, (ORDINARY, ORDINARY))

    def _encode(self, pair: tuple[str, str]) -> Tokens:
        first, second = (self.tokenizer(text, truncation=True, max_length=self.limit)["input_ids"] for text in pair)
        return {"first": first, "second": second}

    def _cosines(self, rows: Sequence[Tokens]) -> list[float]:
        import torch

        first, second = (self._states([row[name] for row in rows]) for name in ("first", "second"))
        return torch.cosine_similarity(first, second).clamp(0, 1).tolist()

    def _states(self, rows: Sequence[list[int]]) -> Any:
        """Return the mean of the last states over the tokens of each text, float64, [texts, hidden]."""
        import torch

        inputs = padded(self.tokenizer, [{"input_ids": row} for row in rows])
        mask = inputs["attention_mask"].to(self.device)[:, :, None]
        with torch.inference_mode():
            moved = {name: value.to(self.device) for name, value in inputs.items()}
            states = self.model(**moved).last_hidden_state.double()
        return (states * mask).sum(1) / mask.sum(1)
