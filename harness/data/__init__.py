"""Data: files of rows in every format, rows of a source under our column names with their digest, samples of items."""

from .rows import FILE, Rows, corpora_digests, hub_copy, load_rows, texts
from .samples import sample_items

__all__ = ["FILE", "Rows", "corpora_digests", "hub_copy", "load_rows", "sample_items", "texts"]
