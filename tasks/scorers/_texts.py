"""What classifiers on transformers share: reading a folder, and batches that move a score by last bits at most."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ...harness.errors import UserError

logger = logging.getLogger(__name__)

T = TypeVar("T")

TOKENS = 8192
"""Tokens of a batch, padding included: the shorter its texts, the more of them."""
DIGITS = 6
"""Probabilities are kept to this many digits; of two batches a text may fall to either side of an edge."""
ORDINARY = "The library opens at nine in the morning."
"""What a classifier that works can score."""


def folder_of(path: str, *needed: str) -> Path:
    """Return the folder; raise a `UserError` where it or a needed file is missing."""
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"Scorer folder {path} does not exist; pass another with --scorer.")
    for name in needed:
        if not (folder / name).is_file():
            names = ", ".join(sorted(file.name for file in folder.iterdir())) or "nothing"
            raise UserError(
                f"Scorer folder {path} has no {name}; it holds {names}. Add it, or pass another with --scorer."
            )
    return folder


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object; raise a `UserError` that names the file."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is not JSON; download it again: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{file} must hold an object; download it again.")
    return values


def check_tokenizer(tokenizer: Any, embeddings: int, folder: str) -> None:
    """Raise a `UserError` where a tokenizer is not that of a classifier with so many embeddings."""
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise UserError(f"{folder} has no tokenizer; put the classifier's own tokenizer files into the folder.")
    if len(tokenizer) > embeddings:
        raise UserError(
            f"{folder}: the tokenizer knows {len(tokenizer)} tokens, the classifier {embeddings}; put the classifier's"
            " own tokenizer into the folder."
        )
    if tokenizer.pad_token_id is None:
        raise UserError(
            f"{folder}: the tokenizer has no padding token; name the one that the classifier was trained with as"
            " pad_token in tokenizer_config.json."
        )


Tokens = dict[str, list[int]]
"""What a tokenizer makes of a text, or of a pair of texts: lists of numbers by name."""


def in_batches(
    texts: Sequence[str], tokenizer: Any, limit: int | None, toxic: Callable[[dict[str, Any]], Sequence[float]]
) -> list[float | None]:
    """Score texts in batches of similar length, padded on the right and masked; see `judged`.

    Args:
        texts: what to score; cut at `limit` tokens.
        tokenizer: of transformers.
        limit: tokens the classifier takes.
        toxic: from token ids and mask, [rows, length] tensors, to the probability of being toxic of each row.
    """

    def encode(text: str) -> Tokens:
        return {"input_ids": tokenizer(text, truncation=True, max_length=limit)["input_ids"]}

    return judged(texts, encode, lambda rows: toxic(padded(tokenizer, rows)), ORDINARY)


def padded(tokenizer: Any, rows: Sequence[Tokens]) -> dict[str, Any]:
    """Return what a tokenizer made of several texts as tensors, [rows, longest], with an attention mask."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return dict(tokenizer.pad(columns, padding_side="right", return_tensors="pt"))


def judged(
    things: Sequence[T],
    encode: Callable[[T], Tokens],
    score: Callable[[Sequence[Tokens]], Sequence[float]],
    ordinary: T,
) -> list[float | None]:
    """Score texts, or pairs of texts, in batches of similar length.

    What cannot be tokenised or scored does not take its batch down; where what is ordinary cannot be scored either, the
    classifier is broken and its error is raised.

    Returns:
        The probability of each, None where it failed or is not finite.
    """
    tokens, untokenised = _attempt(encode, things)
    sizes = {index: max(map(len, row.values())) for index, row in tokens.items()}
    scores: dict[int, float] = {}
    unjudged: list[Exception] = []
    for chosen in _batches(sorted(tokens, key=lambda index: sizes[index]), sizes):
        try:
            scores |= dict(zip(chosen, score([tokens[index] for index in chosen]), strict=True))
        except Exception:
            alone, causes = _attempt(lambda row: score([row])[0], [tokens[index] for index in chosen])
            scores |= {chosen[place]: value for place, value in alone.items()}
            unjudged += causes
    if failures := untokenised + unjudged:
        score([encode(ordinary)])
        logger.warning("%d of %d texts could not be judged: %s", len(failures), len(things), failures[0])
    values = [scores.get(index, math.nan) for index in range(len(things))]
    return [round(value, DIGITS) if math.isfinite(value) else None for value in values]


def _batches(order: Sequence[int], sizes: Mapping[int, int]) -> Iterator[list[int]]:
    """Cut an order, the shortest first, into batches of at most `TOKENS`, of one text where that has more."""
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * sizes[index] > TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _attempt(do: Callable[[Any], T], things: Sequence[Any]) -> tuple[dict[int, T], list[Exception]]:
    """Return what `do` makes of each thing by its index, and the causes of those that failed."""
    done: dict[int, T] = {}
    causes: list[Exception] = []
    for index, thing in enumerate(things):
        try:
            done[index] = do(thing)
        except Exception as error:
            causes.append(error)
    return done, causes
