"""Data: files of rows in every format, rows of a source under our column names with their digest, samples of items."""

from .files import DataRow
from .memory import ask_hub_again
from .rows import FILE, Rows, hub_copy, load_rows
from .samples import sample_items
from .text import (
    Question,
    TrainingText,
    characters,
    corpora_digests,
    forget_texts,
    lacking,
    pool_digests,
    pool_lines,
    template_of,
    texts,
)

__all__ = [
    "FILE",
    "DataRow",
    "Question",
    "Rows",
    "TrainingText",
    "ask_hub_again",
    "characters",
    "corpora_digests",
    "forget_texts",
    "hub_copy",
    "lacking",
    "load_rows",
    "pool_digests",
    "pool_lines",
    "sample_items",
    "template_of",
    "texts",
]
