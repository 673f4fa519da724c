"""A report as a document: sections of blocks, which `html` and `markdown` write each in its way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...leaderboards.text.table import Table
from ..data import Items
from ..figures.style import Plot


@dataclass(frozen=True)
class Words:
    """A paragraph; `code` and **strong** are marked so, all else is text."""

    text: str
    tone: str = ""


@dataclass(frozen=True)
class Bullets:
    """A list of such paragraphs."""

    texts: Sequence[str]


@dataclass(frozen=True)
class Pairs:
    """What is known under which name."""

    values: Mapping[str, str]


@dataclass(frozen=True)
class Listing:
    """The items behind the numbers of several cells."""

    items: Sequence[Items]


Block = Words | Bullets | Table | Pairs | Listing | Plot


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it; level 2 stands in the table of contents, 3 below it."""

    key: str
    title: str
    level: int
    blocks: Sequence[Block] = ()


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    lead: str
    sections: Sequence[Section] = field(default_factory=list)
