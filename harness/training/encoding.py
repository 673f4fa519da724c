"""How text becomes tokens to train on: special tokens, the template of questions, the cut, what counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from ...methods.base import Tokens
from ..corpora import TemplateSpec, day
from ..data import Question, TrainingText
from ..errors import UserError, first_line


@dataclass(frozen=True)
class EncodedText:
    """A text's tokens.

    Attributes:
        ids: token ids; of a question before they are cut.
        first: position of the first token that holds some of the answer; 0 for a document.
    """

    ids: np.ndarray
    first: int = 0


class TextEncoder:
    """Makes tokens of training text, cut on the right.

    Args:
        tokenizer: the model's.
        template: what makes a text of a question and its answer.
        length: tokens that a text may have.
        device: where batches go.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: TemplateSpec,
        length: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self._tokenizer, self._template, self.length, self._device = tokenizer, template, length, device
        self._questions: dict[tuple[str, str], EncodedText] = {}

    def batch(self, texts: Sequence[TrainingText]) -> Tokens:
        """Return texts as a batch, padded on the right; of questions the tokens of their answers count."""
        rows = [self.encode(text) for text in texts]
        pad = self._tokenizer.pad_token_id or 0
        longest = min(self.length, max(len(row.ids) for row in rows))
        ids = torch.full((len(rows), longest), int(pad))  # pyright: ignore[reportArgumentType]
        mask, targets = torch.zeros_like(ids), torch.zeros_like(ids)
        for index, row in enumerate(rows):
            kept = torch.from_numpy(row.ids[: self.length])
            ids[index, : len(kept)] = kept
            mask[index, : len(kept)] = 1
            targets[index, row.first : len(kept)] = 1
        counted = targets.to(self._device) if any(isinstance(text, Question) for text in texts) else None
        return Tokens(ids.to(self._device), mask.to(self._device), counted)

    def encode(self, text: TrainingText) -> EncodedText:
        """Return the tokens of a text, those of a question whole."""
        if isinstance(text, str):
            return EncodedText(_tokenised(self._tokenizer, text, self.length))
        key = text.prompt, text.answer
        if key not in self._questions:
            self._questions[key] = self._joined(*key)
        return self._questions[key]

    def _joined(self, prompt: str, answer: str) -> EncodedText:
        """Encode a prompt and its answer together: a token that holds some of both counts as one of the answer."""
        head = self._prompt(prompt)
        whole = head + self._template.answer.replace("{answer}", answer)
        begin, fast = self._tokenizer.bos_token, self._tokenizer.is_fast
        special = not (begin and whole.startswith(str(begin)))
        encoding = self._encoded(whole, special, return_offsets_mapping=fast)
        ids: list[int] = list(encoding["input_ids"])
        if fast:
            first = _beyond(encoding["offset_mapping"], len(head))
        else:
            first = _common(ids, self._encoded(head, special)["input_ids"])
        end = self._end_token() if self._template.end else None
        if end is not None and ids[-1] != end:
            ids.append(end)
        return EncodedText(np.array(ids, dtype=np.int32), first)

    def _encoded(self, text: str, special: bool, **options: Any) -> Any:
        return self._tokenizer(text, add_special_tokens=special, verbose=False, **options)

    def _prompt(self, question: str) -> str:
        """Return all that stands before an answer."""
        template, tokenizer = self._template, self._tokenizer
        text = template.prompt.replace("{prompt}", question)
        if template.form == "plain":
            return text
        if not tokenizer.chat_template:
            raise UserError("The tokenizer has no chat template; take `form: plain` in the track's `template:`.")
        messages: Any = [{"role": "system", "content": template.system}] if template.system else []
        try:
            return str(
                tokenizer.apply_chat_template(
                    [*messages, {"role": "user", "content": text}],
                    tokenize=False,
                    add_generation_prompt=True,
                    **day(template.date),
                )
            )
        except (TemplateError, ValueError) as error:
            raise UserError(
                f"The tokenizer's chat template cannot be applied to questions: {first_line(error)} Mend it in"
                " tokenizer_config.json, or leave out `system` in the track's `template:`."
            ) from error

    def _end_token(self) -> int:
        """Return the id of the token that ends an answer."""
        named = self._template.end_token
        token: Any = self._tokenizer.eos_token_id if named is None else self._tokenizer.convert_tokens_to_ids(named)
        if token is None or (named is not None and token == self._tokenizer.unk_token_id):
            raise UserError(
                f"The tokenizer has no end token {named or ''!r} to put behind answers: name one"
                " as `end_token`, or set `end: false`, in the track's `template:`."
            )
        return int(token)


def _beyond(spans: Sequence[tuple[int, int]], characters: int) -> int:
    """Return the first token that reaches beyond so many characters, by the characters of each."""
    return next((place for place, (_, end) in enumerate(spans) if end > characters), len(spans))


def _common(ids: Sequence[int], head: Sequence[int]) -> int:
    """Return how many tokens a text begins with that its head has too."""
    return next((place for place, (own, other) in enumerate(zip(ids, head, strict=False)) if own != other), len(head))


@lru_cache(maxsize=1 << 14)
def _tokenised(tokenizer: PreTrainedTokenizerBase, text: str, length: int) -> np.ndarray:
    """Return a document's tokens; they are kept for the next epoch, and for the next method on the same text."""
    row = np.array(tokenizer(text, verbose=False)["input_ids"], dtype=np.int32)[:length]
    if not len(row):
        raise UserError(f"The tokenizer gives no token for the training text {text!r:.80}; remove that text.")
    return row
