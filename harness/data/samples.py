"""Samples of items: seeded, stratified, as pure functions of the items' ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..records import Item
from .rows import content_hash


def sample_items(items: Sequence[Item], limit: int | None, seed: int = 0) -> list[Item]:
    """Return a seeded sample of at most `limit` items, stratified: each stratum gives its share, never the first N.

    Shares follow the largest remainders; ties and the items within a stratum are ordered by a hash of (seed, id), so
    that a larger limit contains most of a smaller one and nothing depends on the order of the rows.
    """
    if limit is None or limit >= len(items):
        return list(items)
    strata: dict[str, list[Item]] = {}
    for item in items:
        strata.setdefault(item.stratum, []).append(item)
    shares = _shares({name: len(group) for name, group in strata.items()}, limit, seed)
    chosen = {
        item.id
        for name, group in strata.items()
        for item in sorted(group, key=lambda item: content_hash([seed, item.id]))[: shares[name]]
    }
    return [item for item in items if item.id in chosen]


def _shares(sizes: Mapping[str, int], limit: int, seed: int) -> dict[str, int]:
    total = sum(sizes.values())
    exact = {name: limit * size / total for name, size in sizes.items()}
    shares = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(sizes, key=lambda name: (shares[name] - exact[name], content_hash([seed, name])))
    for name in by_remainder[: limit - sum(shares.values())]:
        shares[name] += 1
    return shares
