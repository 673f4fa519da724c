"""The store: finished things by id and manifest; files, resume of partial results, deltas (changed weights), locks."""

from .entries import Entry, Store

__all__ = ["Entry", "Store"]
