"""Text to train on: documents, or questions with their answers and what else their rows hold beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..corpora import TemplateSpec
from ..errors import DataError
from ..specs import LabelledRow, QuestionRow, RowSpec, TextRow, place_of, shown
from ..suite import CorporaSpec, SourceSpec
from .files import DataRow
from .rows import Rows, source_name


@dataclass(frozen=True)
class Question:
    """A question with its answer; `auxiliary`: by column, other answers to it of which one is drawn."""

    prompt: str
    answer: str
    auxiliary: tuple[tuple[str, tuple[str, ...]], ...] = ()


TrainingText: TypeAlias = str | Question
"""A document, or a question with its answer."""
RowsOf: TypeAlias = Callable[[SourceSpec, type[RowSpec]], Rows]
"""Reads a source by a schema."""
DigestOf: TypeAlias = Callable[[SourceSpec, type[RowSpec]], str]
"""Returns the digest of what that reads."""


def texts(rows: Iterable[DataRow], where: SourceSpec, auxiliary: Sequence[str] = ()) -> list[TrainingText]:
    """Return a source's rows as text to train on, blank documents dropped.

    Args:
        rows: the rows.
        where: their source, which says whether they are documents or questions.
        auxiliary: columns that stand beside each question, a text or a list of them to draw from.

    Raises:
        DataError: a row without its text, its question or answer, or one of these columns.
    """
    name = source_name(where)
    if where.text_row is TextRow:
        if auxiliary:
            raise DataError(f"{name} holds documents, {_lacking(auxiliary[0])}")
        return list(_documents(rows, name))
    rows = list(rows)
    return [
        Question(typed.prompt, typed.answer, tuple((column, _choices(row, column, number)) for column in auxiliary))
        for number, (row, typed) in enumerate(zip(rows, QuestionRow.read_all(rows, name), strict=True), start=1)
    ]


def _documents(rows: Iterable[DataRow], name: str) -> Iterator[str]:
    return (row.text for row in TextRow.read_all(rows, name) if row.text.strip())


def _choices(row: DataRow, column: str, number: int) -> tuple[str, ...]:
    place = place_of(row, number)
    if column not in row:
        raise DataError(f"{place} has no {column!r}, {_lacking(column)}")
    cell = row[column]
    values = cell if isinstance(cell, list) else [cell]
    if not values or any(isinstance(v, bool) or not isinstance(v, str | int) or shown(v) == "blank" for v in values):
        raise DataError(f"{place}: {column!r} is {shown(cell)}; write a text, or a list of texts to draw from.")
    return tuple(map(str, values))


def _lacking(name: str) -> str:
    return (
        f"and a method of this run trains on {name!r} text beside each forget row: map a column of questions to it"
        f" (`columns: {{{name}: COLUMN}}`), or give lines to draw from (`pools: {{{name}: {{path: FILE}}}}` among the"
        " track's corpora)."
    )


def characters(text: TrainingText) -> int:
    """Return how long a text is, without the words of a template."""
    return len(text) if isinstance(text, str) else len(text.prompt) + len(text.answer)


def corpora_digests(corpora: CorporaSpec, digest_of: DigestOf) -> dict[str, Any]:
    """Return the digests of a track's text: forget topics, retain, probe (None where it has none).

    The template is among them where some of the text is questions.
    """
    return {
        "forget": {topic: digest_of(source, source.text_row) for topic, source in corpora.forget.items()},
        "retain": digest_of(corpora.retain, corpora.retain.text_row),
        "probe": None if corpora.probe is None else digest_of(corpora.probe, LabelledRow),
        **template_of((*corpora.forget.values(), corpora.retain), corpora.template),
    }


def template_of(sources: Iterable[SourceSpec], template: TemplateSpec) -> dict[str, Any]:
    """Return what of a template is identity of a training on sources: nothing where all are documents."""
    return {"template": template.identity()} if any(source.text_row is QuestionRow for source in sources) else {}


def pool_digests(corpora: CorporaSpec, auxiliary: Iterable[str], digest_of: DigestOf) -> dict[str, Any]:
    """Return the digests of the pools of lines that a method draws from; empty where it draws from none."""
    pools = {name: digest_of(corpora.pools[name], TextRow) for name in auxiliary if name in corpora.pools}
    return {"pools": pools} if pools else {}


def forget_texts(corpora: CorporaSpec, auxiliary: Iterable[str], rows_of: RowsOf) -> dict[str, list[TrainingText]]:
    """Return each forget topic's texts, those columns of `auxiliary` beside them that no pool has.

    Raises:
        DataError: as `texts`.
    """
    columns = [name for name in auxiliary if name not in corpora.pools]
    return {
        topic: texts(rows_of(source, source.text_row).rows, source, columns) for topic, source in corpora.forget.items()
    }


def lacking(corpora: CorporaSpec, auxiliary: Iterable[str], rows_of: RowsOf) -> str | None:
    """Return the first name of `auxiliary` that a track has no text of, neither a pool nor a column; None: it has all.

    A column that some rows have is there; `forget_texts` names the row that misses it.
    """
    for name in auxiliary:
        for source in () if name in corpora.pools else corpora.forget.values():
            documents = source.text_row is TextRow
            if documents or not any(name in row for row in rows_of(source, source.text_row).rows):
                return name
    return None


def pool_lines(corpora: CorporaSpec, auxiliary: Iterable[str], rows_of: RowsOf) -> dict[str, list[str]]:
    """Return the lines of the pools that a method draws from, by name; blank ones dropped."""
    pools = {name: corpora.pools[name] for name in auxiliary if name in corpora.pools}
    return {
        name: list(_documents(rows_of(source, TextRow).rows, source_name(source))) for name, source in pools.items()
    }
