"""Reading data rows: identities that last, and messages that name the row."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..harness.errors import UserError
from ..harness.specs import canonical


def identities(rows: Sequence[Mapping[str, Any]], contents: Sequence[Any], task: str) -> list[tuple[str, str]]:
    """Return (id, name shared by its copies) of each row: the row's own `id`, or a digest of its content.

    Rows of the same content get `-2`, `-3`… after the digest, so that ids are unique and copies can be resampled
    together under the digest.

    Raises:
        UserError: two rows carry the same `id`.
    """
    own = Counter(str(row["id"]) for row in rows if row.get("id") is not None)
    twice = [name for name, count in own.items() if count > 1]
    if twice:
        raise UserError(
            f"{task}: {len(twice)} ids occur more than once in the data, the first is {twice[0]!r}; give each row its"
            " own, or none."
        )
    seen: Counter[str] = Counter()
    pairs = []
    for row, content in zip(rows, contents, strict=True):
        if row.get("id") is not None:
            pairs.append((str(row["id"]), str(row["id"])))
            continue
        name = hashlib.sha256(canonical(content)).hexdigest()[:16]
        seen[name] += 1
        pairs.append((name if seen[name] == 1 else f"{name}-{seen[name]}", name))
    return pairs


def field(row: Mapping[str, Any], name: str, number: int, task: str) -> Any:
    """Return a row's field; raise a `UserError` that names the row (counted from 0) and what it has."""
    if name not in row:
        has = ", ".join(map(repr, row)) or "nothing"
        raise UserError(f"{task}: row {number} has no {name!r}; it has {has}. Add it, or map another under `columns:`.")
    return row[name]
