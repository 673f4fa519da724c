"""Identities of data rows that last, and messages that name the row."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..harness.errors import DataError
from ..harness.specs import RowSpec, canonical, place_of


def identities(rows: Sequence[Mapping[str, Any]], contents: Sequence[Any], task: str) -> list[tuple[str, str]]:
    """Return (id, name shared by its copies) of each row: the row's own `id`, or a digest of its content.

    Rows of the same content get `-2`, `-3`… after the digest, so that ids are unique and copies can be resampled
    together under the digest.

    Raises:
        DataError: two rows carry the same `id` (0 and "0" are the same), or one has an `id` that is no name.
    """
    own = [row.id for row in RowSpec.read_all(rows, task)]
    _check_unique(own, rows, task)
    seen: Counter[str] = Counter()
    pairs = []
    for given, content in zip(own, contents, strict=True):
        name = hashlib.sha256(canonical(content)).hexdigest()[:16] if given is None else given
        seen[name] += 1
        pairs.append((name if seen[name] == 1 else f"{name}-{seen[name]}", name))
    _check_unique([name for name, _ in pairs], rows, task)
    return pairs


def _check_unique(names: Sequence[str | None], rows: Sequence[Mapping[str, Any]], task: str) -> None:
    twice = [name for name, count in Counter(names).items() if name is not None and count > 1]
    if twice:
        places = [
            place_of(row, number)
            for number, (row, name) in enumerate(zip(rows, names, strict=True), start=1)
            if name == twice[0]
        ]
        raise DataError(
            f"{task}: {len(twice)} ids occur more than once in the data, the first is {twice[0]!r} ({places[0]}; and"
            f" {places[1]}); give each row its own, or none."
        )


def field(row: Mapping[str, Any], name: str, number: int, task: str) -> Any:
    """Return a row's field; raise a `DataError` that names the row (`number` counts from 0) and what it has."""
    if name not in row:
        has = ", ".join(map(repr, row)) or "nothing"
        raise DataError(
            f"{task}: {place_of(row, number + 1)} has no {name!r}; it has {has}. Add it, or map another under"
            " `columns:`."
        )
    return row[name]
