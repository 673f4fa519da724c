"""What a tokenizer puts behind a text by itself: an end token would end a prompt before it is answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from ..errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBES = ("the", "a b", "1")
"""Texts of which one is expected to have tokens of its own in any vocabulary."""
HARMLESS = ("ByteLevel",)
"""Post-processors that add no token."""


def check_nothing_appended(tokenizer: PreTrainedTokenizerBase, what: str) -> None:
    """Raise a `UserError` where a tokenizer ends every text by itself, with what to do."""
    tokens = appended(tokenizer)
    if tokens:
        names = " ".join(map(str, tokenizer.convert_ids_to_tokens(tokens)))
        raise UserError(
            f"{what}: its tokenizer puts {names} behind every text, which ends a prompt before it is answered. Set"
            " add_eos_token to false in tokenizer_config.json and take the token out of the post_processor of"
            " tokenizer.json, or copy the tokenizer files of the model it was made from."
        )


def appended(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens that a tokenizer puts behind a text."""
    for text in PROBES:
        plain, whole = tokenizer.encode(text, add_special_tokens=False), tokenizer.encode(text)
        if plain:
            starts = range(len(whole) - len(plain), -1, -1)
            start = next((start for start in starts if whole[start : start + len(plain)] == plain), None)
            if start is not None:
                return whole[start + len(plain) :]
            return whole[-1:] if whole[-1] in tokenizer.all_special_ids and whole[-1] != plain[-1] else []
    return []


def may_append(folder: Path) -> bool:
    """Return whether the tokenizer in a folder has to be loaded to know that it puts nothing behind a text.

    Its files are read without transformers, which takes seconds to import.
    """
    fast, settings = folder / "tokenizer.json", folder / "tokenizer_config.json"
    try:
        if settings.is_file() and orjson.loads(settings.read_bytes()).get("add_eos_token"):
            return True
        return any(_may_end(step) for step in _steps(orjson.loads(fast.read_bytes()).get("post_processor")))
    except (OSError, ValueError, AttributeError, KeyError, IndexError, TypeError):
        return True


def words_beyond(folder: Path, embeddings: int) -> int:
    """Return how many words of a folder's `tokenizer.json` have no embedding; 0 where it cannot be told from it."""
    try:
        words = orjson.loads((folder / "tokenizer.json").read_bytes())["model"]["vocab"]
        numbers = words.values() if isinstance(words, dict) else range(len(words))
        return sum(number >= embeddings for number in numbers)
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return 0


def _steps(processor: Any) -> Iterator[Any]:
    if processor is not None:
        yield from processor["processors"] if processor["type"] == "Sequence" else [processor]


def _may_end(step: Any) -> bool:
    if step["type"] == "TemplateProcessing":
        return "SpecialToken" in step["single"][-1]
    return step["type"] not in HARMLESS
