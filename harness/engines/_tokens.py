"""How text becomes tokens: lm-eval's split of a context and a continuation, and the limits of a model."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from ...tasks.base import ChoiceRequest, GenerationRequest, TraceRequest
from ..corpora import DATE, day
from ..errors import UserError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KEPT = 1 << 15
"""Texts whose tokens an engine keeps."""
DEFAULT_MAX_LENGTH = 2048
"""Tokens a model takes where neither its configuration nor its tokenizer says; lm-eval's number."""


@dataclass(frozen=True)
class Encoder:
    """A tokenizer with the rules of lm-eval's HFLM (`lm_eval/models/huggingface.py`, 0.4.13).

    Attributes:
        tokenizer: the model's own.
        max_length: tokens the model takes.
        prefix: the token that stands for an empty context: the begin token, else the end token.
        wrapped: whether prompts and contexts are put into the tokenizer's chat template.
        embeddings: tokens the model knows; None: not known.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    prefix: int
    wrapped: bool = False
    embeddings: int | None = None

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, config: Any, chat: bool = False) -> Encoder:
        """Read the limits of a model; raise a `UserError` where the tokenizer has neither begin nor end token."""
        prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        if prefix is None:
            raise UserError("The tokenizer has neither a begin nor an end token; set one in tokenizer_config.json.")
        known = getattr(getattr(config, "text_config", None) or config, "vocab_size", None)
        return cls(tokenizer, max_length(config, tokenizer), int(prefix), chat, known)  # pyright: ignore[reportArgumentType]

    def asked(self, request: GenerationRequest) -> list[int]:
        """Return the tokens of a prompt."""
        text = self._put(request.prompt, request.system, request.raw, request.date)
        return self._encode(text + request.prefill)

    def given(self, request: ChoiceRequest | TraceRequest) -> list[tuple[list[int], list[int]]]:
        """Return the tokens of a request's context and of each text after it, the end token included if it is asked.

        Choices are split as in lm-eval (`pairs`). A traced text has no token of its context, not even spaces at its
        end; a token that holds some of both is the text's, as in training.
        """
        if isinstance(request, ChoiceRequest):
            return self.pairs(request.context, request.choices, system=request.system, delimiter=request.delimiter)
        context = self._put(request.context, request.system, request.raw, request.date) + request.prefill
        texts = request.texts if request.raw else self._joined(request.texts, request.delimiter)
        pairs = [self._shared(context, text) for text in texts]
        return [(head, [*tail, self.end] if request.end else tail) for head, tail in pairs]

    def _shared(self, context: str, text: str) -> tuple[list[int], list[int]]:
        """Encode both together and split where the context alone would have gone on otherwise."""
        whole = self._encode(context + text) if context else []
        own = zip(self._encode(context), whole, strict=False)
        count = next((place for place, (one, other) in enumerate(own) if one != other), None)
        count = min(len(self._encode(context)), len(whole)) if count is None else count
        return (whole[:count], whole[count:]) if count else self._after_nothing(context + text)

    def encode(self, prompt: str) -> list[int]:
        """Encode a prompt, in a chat where asked; special tokens are not doubled where it starts with them."""
        return self._encode(self._put(prompt))

    def pairs(
        self, context: str, continuations: Sequence[str], *, system: str = "", delimiter: str = ""
    ) -> list[tuple[list[int], list[int]]]:
        """Split a context from each continuation: spaces at its end move over, and both are encoded together.

        Args:
            context: what stands before.
            continuations: what is scored.
            system: the start of the context that is the system's message in a chat.
            delimiter: the start of the continuations that only joins them to a plain context; a chat has none.
        """
        return self._split(self._put(context, system), self._joined(continuations, delimiter))

    def _put(self, text: str, system: str = "", raw: bool = False, date: str = "") -> str:
        """Return a text as the model is given it: in a chat where asked."""
        return self.chat(text.removeprefix(system), system, date) if self.wrapped and not raw else text

    def _joined(self, texts: Sequence[str], delimiter: str) -> Sequence[str]:
        return [text.removeprefix(delimiter) for text in texts] if self.wrapped else texts

    def _split(self, context: str, continuations: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        kept = context.rstrip()
        if not kept:
            return [self._after_nothing(context + continuation) for continuation in continuations]
        head = self._encode(kept)
        return [(head, self._encode(context + continuation)[len(head) :]) for continuation in continuations]

    def chat(self, text: str, system: str = "", date: str = "") -> str:
        """Return the chat template's words around a user's message, up to where the model is to answer.

        A template that refuses a system's message goes without it, as in lm-eval. Where the template
        writes today's date, `date` stands in its place, without one the day of `corpora.DATE`.

        Raises:
            UserError: the tokenizer has no chat template, or one that refuses a user's message.
        """
        if not self.tokenizer.chat_template:
            raise UserError("The tokenizer has no chat template; use --chat-template only with instruct models.")
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": text})
        try:
            try:
                return self._templated(messages, date)
            except TemplateError:
                return self._templated(messages[-1:], date)
        except (TemplateError, ValueError) as error:
            raise UserError(
                f"The tokenizer's chat template cannot be applied: {first_line(error)} Mend it in"
                " tokenizer_config.json, or leave out --chat-template."
            ) from error

    def _templated(self, messages: list[dict[str, str]], date: str) -> str:
        told: Any = day(date or DATE)
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **told))

    def _encode(self, text: str) -> list[int]:
        return self._ids(text).tolist() if text else [self.prefix]

    @cached_property
    def _ids(self) -> Callable[[str], array[int]]:
        """Tokens of a text; those of the last `KEPT` texts are kept, since every checkpoint is asked the same."""
        start = str(self.tokenizer.decode(self.prefix))

        def encode(text: str) -> array[int]:
            return array("i", self._known(self.tokenizer.encode(text, add_special_tokens=not text.startswith(start))))

        return lru_cache(KEPT)(encode)

    def _after_nothing(self, text: str) -> tuple[list[int], list[int]]:
        tokens = self._known(self.tokenizer.encode(text, add_special_tokens=False))
        return (tokens[:1], tokens[1:]) if tokens[:1] == [self.prefix] else ([self.prefix], tokens)

    def _known(self, tokens: list[int]) -> list[int]:
        """Return tokens that the model has an embedding of; raise a `UserError` on one that it has not."""
        if self.embeddings is not None and max(tokens, default=0) >= self.embeddings:
            last = max(tokens)
            raise UserError(
                f"The tokenizer gives token {last} ({self.tokenizer.convert_ids_to_tokens(last)}), and the model has"
                f" {self.embeddings} embeddings: they are of different models. Put the tokenizer that the weights were"
                " trained with beside them."
            )
        return tokens

    @property
    def end(self) -> int:
        """The end token, behind a whole text; raise a `UserError` where the tokenizer has none."""
        end = self.tokenizer.eos_token_id
        if not isinstance(end, int):
            raise UserError("The tokenizer has no end token to score; set one in tokenizer_config.json.")
        return end

    def ends(self, generation: Any) -> list[int]:
        """Return the tokens that end a continuation: those of the generation configuration, else the tokenizer's."""
        ends: Any = generation.eos_token_id if generation is not None else None
        if ends is None:
            ends = self.tokenizer.eos_token_id
        return [] if ends is None else [ends] if isinstance(ends, int) else list(ends)

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
