"""How sentences of a board are put together: names, and texts that say the same of different amounts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_NUMBER = re.compile(r"(?<![\w.])\d+(?:[.,]\d+)*(?!\w)")


def names(variants: Iterable[str]) -> str:
    """Return rows' names as a list in words."""
    return ", ".join(f"`{variant}`" for variant in variants)


def pattern(text: str) -> str:
    """Return a text without its numbers: texts of one pattern say the same of different amounts."""
    return _NUMBER.sub("#", text)


def merged(texts: Sequence[str]) -> str:
    """Return texts of one pattern as one, a number that differs as its range: `97-100% of the questions`."""
    parts, numbers = _NUMBER.split(texts[0]), [_NUMBER.findall(text) for text in texts]
    spans = [
        sorted(set(column), key=lambda number: float(number.replace(",", ""))) for column in zip(*numbers, strict=True)
    ]
    words = [span[0] if len(span) == 1 else f"{span[0]}-{span[-1]}" for span in spans]
    return "".join(part + word for part, word in zip(parts, [*words, ""], strict=True))
