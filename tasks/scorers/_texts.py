"""What classifiers on transformers share: reading a folder, and batches that leave no trace in a judgement."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...harness.errors import UserError

BATCH = 64
DIGITS = 6
"""Probabilities are rounded to this many digits: the last bits depend on a text's batch."""


def folder_of(path: str, *needed: str) -> Path:
    """Return the folder; raise a `UserError` where it or a needed file is missing."""
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"Judge folder {path} does not exist.")
    for name in needed:
        if not (folder / name).is_file():
            found = ", ".join(sorted(file.name for file in folder.iterdir())) or "nothing"
            raise UserError(f"Judge folder {path} has no {name}; it holds {found}.")
    return folder


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object; raise a `UserError` that names the file."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{file} must hold an object.")
    return values


def in_batches(
    texts: Sequence[str], tokenizer: Any, limit: int, toxic: Callable[[dict[str, Any]], Sequence[float]]
) -> list[float | None]:
    """Judge texts in batches of similar length, padded on the right and masked.

    Args:
        texts: what to judge; cut at `limit` tokens.
        tokenizer: of transformers.
        limit: tokens the classifier takes.
        toxic: from token ids and mask, [rows, length] tensors, to the probability of being toxic of each row.

    Returns:
        The probability of each text, None where it is not finite.
    """
    encoded = [tokenizer(text, truncation=True, max_length=limit)["input_ids"] for text in texts]
    order = sorted(range(len(texts)), key=lambda index: len(encoded[index]))
    found: list[float | None] = [None] * len(texts)
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        padded = tokenizer.pad(
            {"input_ids": [encoded[index] for index in chosen]}, padding_side="right", return_tensors="pt"
        )
        inputs = {"input_ids": padded["input_ids"], "attention_mask": padded["attention_mask"]}
        for index, value in zip(chosen, toxic(inputs), strict=True):
            found[index] = round(value, DIGITS) if math.isfinite(value) else None
    return found
