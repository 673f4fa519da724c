"""Files of rows: what a suffix holds, read as it stands or refused with file, row, column and what to do.

Cells of delimited files are text. JSON and Arrow keep their types; what JSON has no type for (dates, times, decimals)
becomes text, and what is no value at all (NaN, bytes, half a surrogate pair) is refused.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any

from ..errors import CellError, DataError, first_line
from ..specs import shown

CELL = 2**31 - 1
"""Characters that a cell may have."""
HEADING = re.compile(r"^\s*=.*=\s*$")
"""A line of plain text that is a title, as in WikiText."""
AGAIN = "Mend or replace it."

Located = Iterator[tuple[str, Any]]
"""Where each row stands in its file, and the row: a mapping of columns to cells, if the file is in order."""


class DataRow(dict[str, Any]):
    """A row of data. `place` says for messages where it stands (file, row, line); it is no part of what the row is."""

    __slots__ = ("place",)

    def __init__(self, cells: Any = (), place: str = "") -> None:
        super().__init__(cells)
        self.place = place


class _Twins(dict[str, Any]):
    """A JSON object in which a key stands twice."""


def read_rows(name: str, content: bytes, form: str | None = None) -> list[DataRow]:
    """Return the rows of a file, compressed or not, by its form or else by the suffix of its name in any case.

    Raises:
        DataError: an unknown suffix, a damaged file, a file without a row, or a cell that cannot be kept as it stands.
    """
    try:
        read = _reader(name, form)
        rows = [plain_row(f"{name}, {place}", cells) for place, cells in read(_decompressed(name, content), name)]
    except (ValueError, OSError, EOFError, csv.Error, lzma.LZMAError, zlib.error, RecursionError) as error:
        kind = PurePath(name).suffix
        raise DataError(f"{name} cannot be read as {kind}: {first_line(error)} {AGAIN}") from error
    if not rows:
        raise DataError(f"{name} holds no row. {AGAIN}")
    return rows


def _reader(name: str, form: str | None) -> Callable[[bytes, str], Located]:
    """Return what reads a file; raise a `DataError` where neither its form is said nor its suffix says one."""
    suffix = f".{form}" if form else _suffixes(name)[0]
    if suffix not in FORMATS:
        raise DataError(
            f"{name} says no known format by its suffix; save it as one of {', '.join(FORMATS)} (each may end in"
            f" {', '.join(DECOMPRESS)}) and name it so, or name its `format:`."
        )
    return FORMATS[suffix]


def stem(name: str) -> str:
    """Return a file's name without folder and without the suffixes of its format."""
    return PurePath(name).name[: -len("".join(_suffixes(name))) or None]


def _suffixes(name: str) -> tuple[str, str]:
    """Return the suffix of a file's format in lower case, and that of its compression, empty where there is none."""
    plain = PurePath(name).name.lower()
    packed = next((end for end in DECOMPRESS if plain.endswith(end)), "")
    return PurePath(plain.removesuffix(packed)).suffix, packed


def _unzstd(content: bytes) -> bytes:
    import pyarrow

    return pyarrow.input_stream(io.BytesIO(content), compression="zstd").read()


DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
    ".zst": _unzstd,
}


def _decompressed(name: str, content: bytes) -> bytes:
    packed = _suffixes(name)[1]
    return DECOMPRESS[packed](content) if packed else content


def plain_row(place: str, cells: Any) -> DataRow:
    """Return a row of plain JSON types; raise a `DataError` that says where it is none."""
    if not isinstance(cells, dict):
        raise DataError(f"{place} is {shown(cells)}, not an object of columns; write it as {{column: value}}.")
    row = DataRow(place=place)
    for column, cell in cells.items():
        try:
            row[column] = _plain(cell)
        except CellError as error:
            raise DataError(f"{place}: {column!r} {error}, or leave the column out.") from None
    if isinstance(cells, _Twins):
        raise DataError(f"{place} has a column twice; it has {', '.join(map(repr, cells))}. Leave one of the two out.")
    return row


def _plain(value: Any) -> Any:
    """Return a cell as plain JSON types; raise a `CellError` that says what it is and what to write in its place."""
    match value:
        case None | bool() | int():
            return value
        case str():
            if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
                raise CellError("holds half of a surrogate pair, as of an emoji cut in two; write it whole")
            return value
        case float():
            if not math.isfinite(value):
                raise CellError(f"is {value}, which is no number; write null")
            return value
        case _Twins():
            raise CellError("holds an object with a key that stands twice; leave one of the two out")
        case dict():
            return {str(_plain(key)): _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case date() | time():
            return value.isoformat()
        case Decimal() | timedelta():
            return str(value)
        case _ if hasattr(value, "tolist"):
            return _plain(value.tolist())
    raise CellError(f"is of the type {type(value).__name__}, which is no text; write it as text")


def _decoded(content: bytes, name: str) -> str:
    """Return text without its byte-order mark."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        cause, place = "is not UTF-8", error.start
    else:
        cause, place = "has a NUL character", content.find(b"\0")
        if place < 0:
            return text
    coding = "UTF-16" if b"\0" in content[:100] else "LATIN1"
    line = content.count(b"\n", 0, place) + 1
    raise DataError(f"{name}, line {line}, {cause}; save the file as UTF-8, as by `iconv -f {coding} -t UTF-8`.")


def _lines(content: bytes, name: str) -> Located:
    text = _decoded(content, name)
    if re.match(r'\s*(\{\s*"[^"\n]*"\s*:|\[\s*\{)', text):
        raise DataError(f"{name} holds JSON, which would be read as text; name it .jsonl, or .json for a list.")
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip() and not HEADING.match(line):
            yield f"line {number}", {"text": line.strip()}


def _json(content: bytes, name: str) -> Located:
    """Give the objects of a list, of lines, or the one that a `.json` file holds."""
    text = _decoded(content, name)
    if text.lstrip().startswith("["):
        values = json.loads(text, object_pairs_hook=_object)
        return ((f"row {number}", value) for number, value in enumerate(values, start=1))
    if _suffixes(name)[0] != ".json":
        return _json_lines(text, name)
    try:
        return iter([("row 1 (line 1)", _record(json.loads(text, object_pairs_hook=_object), name))])
    except json.JSONDecodeError:
        return _json_lines(text, name)


def _json_lines(text: str, name: str) -> Located:
    number = 0
    for line_number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        number += 1
        place = f"row {number} (line {line_number})"
        try:
            yield place, json.loads(line, object_pairs_hook=_object)
        except ValueError as error:
            raise DataError(f"{name}, {place} is no JSON: {first_line(error)} {AGAIN}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    return values if len(values) == len(pairs) else _Twins(values)


def _record(value: Any, name: str) -> Any:
    """Return the one object of a file; raise where it holds the rows of a table by another arrangement."""
    inner = list(value.values()) if isinstance(value, dict) else []
    rows = [part for part in inner if isinstance(part, list) and any(isinstance(row, dict) for row in part)]
    if inner and (rows or all(isinstance(part, list) for part in inner)):
        held = "rows under a key" if rows else "a list for each column"
        raise DataError(f"{name} is one object that holds {held}; write a list of rows, or one row a line.")
    return value


def _delimited(delimiter: str) -> Callable[[bytes, str], Located]:
    def rows(content: bytes, name: str) -> Located:
        csv.field_size_limit(CELL)
        text = _decoded(content, name)
        lines = io.StringIO(text, newline="\n" if "\n" in text else "")
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        header: list[str] | None = None
        number, line = 0, 1
        try:
            for cells in reader:
                place, line = f"row {number} (line {line})", reader.line_num + 1
                if not cells:
                    continue
                if header is None:
                    header = _named(cells, name)
                elif len(cells) != len(header):
                    raise DataError(
                        f"{name}, {place} has {len(cells)} cells and the header {len(header)}; put a cell that holds"
                        f" a {'tab' if delimiter == chr(9) else 'comma'}, a quote or a line break into quotes."
                    )
                else:
                    yield place, dict(zip(header, cells, strict=True))
                number += 1
        except csv.Error as error:
            raise DataError(
                f"{name}, row {number} (line {line}) cannot be read: {str(error).partition(' - ')[0]}. Put line"
                " breaks into quotes, close every quote, and write one inside of a quoted cell twice."
            ) from None

    return rows


def _named(columns: Sequence[str], name: str) -> list[str]:
    """Return the names of columns; raise where one has none, or two have the same."""
    nameless = [str(number) for number, column in enumerate(columns, start=1) if not column.strip()]
    if nameless:
        raise DataError(
            f"{name}: column {', '.join(nameless)} has no name; give it one in the header, or leave it out (pandas"
            " writes such a column of row numbers unless told index=False)."
        )
    twice = [column for column, count in Counter(columns).items() if count > 1]
    if twice:
        raise DataError(f"{name} has two columns of the name {twice[0]!r}; rename one of them, or leave it out.")
    return list(columns)


def _parquet(content: bytes, name: str) -> Located:
    from pyarrow import BufferReader
    from pyarrow.parquet import ParquetFile

    return _table(ParquetFile(BufferReader(content)).read(), name)


def _arrow(content: bytes, name: str) -> Located:
    """Read Arrow's file format (Feather), else its stream, which `datasets` writes."""
    from pyarrow import ArrowInvalid, BufferReader, ipc

    try:
        return _table(ipc.open_file(BufferReader(content)).read_all(), name)
    except ArrowInvalid:
        return _table(ipc.open_stream(BufferReader(content)).read_all(), name)


def _table(table: Any, name: str) -> Located:
    """Give the rows of an Arrow table without the nameless index that pandas keeps in it."""
    table = table.drop_columns([column for column in set(table.column_names) if re.match("__index_level_", column)])
    _named(table.column_names, name)
    return ((f"row {number}", row) for number, row in enumerate(table.to_pylist(), start=1))


FORMATS: dict[str, Callable[[bytes, str], Located]] = {
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
    ".json": _json,
    ".jsonl": _json,
    ".ndjson": _json,
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".feather": _arrow,
    ".txt": _lines,
    ".raw": _lines,
}
