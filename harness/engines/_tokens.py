"""How text becomes tokens: lm-eval's split of a context and a continuation, and the limits of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..errors import UserError

DEFAULT_MAX_LENGTH = 2048
"""Tokens a model takes where neither its configuration nor its tokenizer says; lm-eval's number."""


@dataclass(frozen=True)
class Tokens:
    """A tokenizer with the rules of lm-eval's HFLM (`lm_eval/models/huggingface.py`, 0.4.13).

    Attributes:
        tokenizer: the model's own.
        max_length: tokens the model takes.
        prefix: the token that stands for an empty context: the begin token, else the end token.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    prefix: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, config: Any) -> Tokens:
        """Read the limits of a model; raise a `UserError` where the tokenizer has neither begin nor end token."""
        prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        if prefix is None:
            raise UserError("The tokenizer has neither a begin nor an end token; set one in tokenizer_config.json.")
        return cls(tokenizer, max_length(config, tokenizer), int(prefix))  # pyright: ignore[reportArgumentType]

    def encode(self, text: str) -> list[int]:
        """Encode a text with the tokenizer's own special tokens, not doubled where the text starts with them."""
        if not text:
            return [self.prefix]
        if text.startswith(str(self.tokenizer.decode(self.prefix))):
            return self.tokenizer.encode(text, add_special_tokens=False)
        return self.tokenizer.encode(text)

    def pairs(self, context: str, continuations: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """Split a context from each continuation: spaces at its end move over, and both are encoded together."""
        kept = context.rstrip()
        if not kept:
            return [self._after_nothing(context + continuation) for continuation in continuations]
        head = self.encode(kept)
        return [(head, self.encode(context + continuation)[len(head) :]) for continuation in continuations]

    def _after_nothing(self, text: str) -> tuple[list[int], list[int]]:
        tokens = self.tokenizer.encode(text, add_special_tokens=False)
        return (tokens[:1], tokens[1:]) if tokens[:1] == [self.prefix] else ([self.prefix], tokens)

    def continuation(self, prompt: list[int], generated: list[int]) -> str:
        """Return the text that follows the prompt, with the space that stands between them, special tokens removed."""
        if not generated:
            return ""
        head = self._decode(prompt[-8:])
        whole = self._decode(prompt[-8:] + generated)
        return whole[len(head) :] if whole.startswith(head) else self._decode(generated)

    def _decode(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def max_length(config: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return how many tokens a model takes, looked up where lm-eval looks."""
    config = getattr(config, "text_config", None) or config
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        value = getattr(config, name, None)
        if value is not None:
            return int(value)
    limit = tokenizer.model_max_length
    return int(limit) if limit is not None and limit < 1e9 else DEFAULT_MAX_LENGTH
