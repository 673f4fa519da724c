"""Files of rows: every format gives the table that was written, or says file, row, column and what to do."""

from __future__ import annotations

import bz2
import csv
import datetime
import decimal
import gzip
import io
import json
import lzma
from collections.abc import Callable
from typing import Any

import numpy
import pandas
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import feather, ipc, parquet
from unlearn_bench.harness.data.files import read_rows, stem
from unlearn_bench.harness.errors import DataError

TRICKY = ["", " ", "a\tb", "a\nb", "1.50", "007", "1e5", "true", "NA", "null", "nan", "-", "2024-01-01", "a,b", '"']
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
cells = st.sampled_from(TRICKY) | st.text(characters, max_size=12)
names = st.lists(
    st.text(characters, min_size=1, max_size=6).filter(lambda name: name.strip() and name[0] != "\ufeff"),
    min_size=1,
    max_size=4,
    unique=True,
)
numbers = st.integers(-(2**80), 2**80) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    cells | numbers | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(characters, max_size=3), inner, max_size=3),
    max_leaves=4,
)
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: pyarrow.compress(content, codec="zstd", asbytes=True),
}
Table = list[dict[str, Any]]


@st.composite
def tables(draw: Any, cell: st.SearchStrategy[Any]) -> Table:
    columns = draw(names)
    return draw(st.lists(st.fixed_dictionaries(dict.fromkeys(columns, cell)), min_size=1, max_size=4))


def delimited(table: Table, delimiter: str = ",", end: str = "\n") -> str:
    file = io.StringIO(newline="")
    breaks = any("\r" in text for row in table for text in (*row, *row.values()))
    quoting = csv.QUOTE_ALL if breaks else csv.QUOTE_MINIMAL
    writer = csv.DictWriter(file, list(table[0]), delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writeheader()
    writer.writerows(table)
    return file.getvalue()


def packed(name: str, content: bytes, how: str) -> Table:
    return [dict(row) for row in read_rows(f"{name}{how}", PACKED[how](content))]


@given(tables(cells), st.sampled_from([",", "\t"]), st.sampled_from(["\n", "\r\n"]), st.sampled_from([*PACKED]))
@settings(max_examples=300, deadline=None)
def test_delimited_files_give_every_cell_as_it_was_written(table: Table, delimiter: str, end: str, how: str) -> None:
    name = "rows.csv" if delimiter == "," else "rows.tsv"
    text = delimited(table, delimiter, end)
    for mark in ("utf-8", "utf-8-sig"):
        assert packed(name, text.encode(mark), how) == table


@given(tables(cells))
@settings(max_examples=100, deadline=None)
def test_delimited_files_give_what_pandas_gives_as_text(table: Table) -> None:
    plain = [{column: cell.replace("\r", " ") for column, cell in row.items()} for row in table]
    content = delimited(plain).encode()
    frame = pandas.read_csv(io.BytesIO(content), dtype=str, na_filter=False, skip_blank_lines=False)
    if list(frame.columns) == list(plain[0]):
        assert read_rows("rows.csv", content) == frame.to_dict("records")


@given(tables(values), st.sampled_from([".json", ".ndjson", ".JSONL"]), st.sampled_from([*PACKED]), st.booleans())
@settings(max_examples=300, deadline=None)
def test_json_gives_every_value_as_it_was_written(table: Table, suffix: str, how: str, ascii_only: bool) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in table)
    text = json.dumps(table, indent=1, ensure_ascii=ascii_only) if suffix == ".json" else lines
    assert packed(f"rows{suffix}", text.encode(), how) == table


@given(tables(cells | st.none()), st.sampled_from([*PACKED]))
@settings(max_examples=60, deadline=None)
def test_arrow_gives_every_cell_as_it_was_written(table: Table, how: str) -> None:
    arrow = pyarrow.Table.from_pylist(table, pyarrow.schema([(column, pyarrow.string()) for column in table[0]]))
    contents = {"rows.parquet": io.BytesIO(), "rows.feather": io.BytesIO(), "rows.arrow": io.BytesIO()}
    parquet.write_table(arrow, contents["rows.parquet"])
    feather.write_feather(arrow, contents["rows.feather"])
    with ipc.new_stream(contents["rows.arrow"], arrow.schema) as stream:
        stream.write_table(arrow)
    for name, file in contents.items():
        assert packed(name, file.getvalue(), how) == table


Q = {"question": "Q?", "answer": 0}


def of_frame(**columns: Any) -> bytes:
    file = io.BytesIO()
    pandas.DataFrame({"question": ["Q?", "R?"], **columns}).to_parquet(file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ({"level": [1.5, None]}, [1.5, None]),
        ({"many": numpy.array([2**64 - 1, 1], dtype="uint64")}, [2**64 - 1, 1]),
        ({"when": pandas.to_datetime(["2024-01-01", None])}, ["2024-01-01T00:00:00", None]),
        ({"day": [datetime.date(2024, 1, 31), None]}, ["2024-01-31", None]),
        ({"hour": [datetime.time(9, 30), None]}, ["09:30:00", None]),
        ({"took": [datetime.timedelta(hours=1), None]}, ["1:00:00", None]),
        ({"price": [decimal.Decimal("1.50"), decimal.Decimal("2.00")]}, ["1.50", "2.00"]),
        ({"tags": [{"all": ["a", "b"]}, {"all": []}]}, [{"all": ["a", "b"]}, {"all": []}]),
        ({"kind": pandas.Categorical(["a", "b"])}, ["a", "b"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_parquet_cells_become_plain_values(column: dict[str, Any], expected: list[Any]) -> None:
    [name] = column
    assert [row[name] for row in read_rows("rows.parquet", of_frame(**column))] == expected


def test_the_index_that_pandas_keeps_is_no_column() -> None:
    file = io.BytesIO()
    pandas.DataFrame([{**Q, "n": number} for number in range(4)]).query("n > 1").to_parquet(file)
    assert [dict(row) for row in read_rows("rows.parquet", file.getvalue())] == [{**Q, "n": 2}, {**Q, "n": 3}]


def twin_columns() -> bytes:
    file = io.BytesIO()
    parquet.write_table(pyarrow.table([["a"], ["b"]], names=["text", "text"]), file)
    return file.getvalue()


LINES = b'{"text": "one"}\n\n{"text": "two"}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"question,answer\nIf so, why?,0\n", r"a\.csv, row 1 \(line 2\) has 3 cells and the header 2; put a"),
        ("a.csv", b'q,a\n"two\nlines",0\nshort\n', r"row 2 \(line 4\) has 1 cells and the header 2"),
        ("a.tsv", b"q\ta\nx\ty\tz\n", r"row 1 \(line 2\) has 3 cells .* tab, a quote"),
        ("a.csv", b'q,a\nx,0\n"open,1\n', r"row 2 \(line 3\) cannot be read: .* close every quote"),
        ("a.csv", b'q,a\n"x" y,0\n', r"row 1 \(line 2\) cannot be read: .* inside of a quoted cell twice"),
        ("a.csv", b"q\none\rtwo\n", r"row 1 \(line 2\) cannot be read: new-line .* Put line breaks into quotes"),
        ("a.csv", b",q,a\n0,x,1\n", "column 1 has no name; .* index=False"),
        ("a.csv", b"q,a,q\nx,0,y\n", "has two columns of the name 'q'; rename one"),
        ("a.parquet", twin_columns(), "has two columns of the name 'text'"),
        ("a.csv", "q,a\nné,0\n".encode("latin-1"), r"a\.csv, line 2, is not UTF-8; save .* `iconv -f LATIN1"),
        ("a.csv", "q,a\nx,0\n".encode("utf-16"), r"line 1, is not UTF-8; save .* `iconv -f UTF-16"),
        ("a.jsonl", '{"text": "x"}'.encode("utf-16-le"), "line 1, has a NUL character; save .* UTF-16"),
        ("a.txt", b"one\ntwo\0\n", "line 2, has a NUL character"),
        ("a.csv", b"", r"a\.csv holds no row"),
        ("a.csv", b"q,a\n", "holds no row"),
        ("a.json", b"[]", "holds no row"),
        ("a.jsonl", b"\n\n", "holds no row"),
        ("a.txt", b" = Title = \n", "holds no row"),
        ("a.txt", LINES, r"a\.txt holds JSON, which would be read as text; name it \.jsonl"),
        ("a.raw", b'[\n{"text": "one"}]', "holds JSON, which would be read as text"),
        ("a.xlsx", b"PK", r"a\.xlsx says no known format by its suffix; save it as one of \.csv, .*\.gz"),
        ("a.yaml", b"- text: a", "says no known format"),
        ("rows", b"text", "says no known format"),
        ("a.gz", gzip.compress(b"text", mtime=0), "says no known format"),
        ("a.jsonl.gz", b"plain", r"a\.jsonl\.gz cannot be read as \.gz: .* Mend or replace it"),
        ("a.jsonl.xz", lzma.compress(LINES)[:-9], "cannot be read"),
        ("a.json.bz2", b"BZh9 cut", "cannot be read"),
        ("a.csv.zst", b"plain", "cannot be read"),
        ("a.parquet", b"PAR1", "cannot be read"),
        ("a.arrow", b"ARROW1", "cannot be read"),
        ("a.jsonl", LINES + b'{"text": "three"', r"row 3 \(line 4\) is no JSON"),
        ("a.jsonl", LINES + b'{"text": "three"} end\n', r"row 3 \(line 4\) is no JSON: Extra data"),
        ("a.json", b'[{"text": "one"}] end', "cannot be read as .json: Extra data"),
        ("a.jsonl", LINES + b'"three"\n', r"row 3 \(line 4\) is 'three', not an object of columns"),
        ("a.json", b'["one", "two"]', "row 1 is 'one', not an object"),
        ("a.json", b"7", r"row 1 \(line 1\) is 7, not an object"),
        ("a.json", b'{"data": [{"text": "one"}]}', "is one object that holds rows under a key; write a list of rows"),
        ("a.json", b'{"text": ["one", "two"], "label": [0, 1]}', "is one object that holds a list for each column"),
        (
            "a.jsonl",
            LINES + b'{"text": "a", "n": NaN}',
            r"row 3 \(line 4\): 'n' is nan, which is no number; write null",
        ),
        ("a.jsonl", b'{"n": [0, -Infinity]}', "'n' is -inf, which is no number"),
        ("a.jsonl", b'{"n": 1e999}', "'n' is inf, which is no number"),
        ("a.jsonl", rb'{"text": "cut \ud83d"}', "'text' holds half of a surrogate pair, .* write it whole"),
        ("a.jsonl", LINES + b'{"text": "a", "text": "b"}', r"row 3 \(line 4\) has a column twice"),
        ("a.jsonl", b'{"prompt": {"text": "a", "text": "b"}}', "'prompt' holds an object with a key that stands twice"),
        ("a.jsonl", b'{"n": ' + b"9" * 5000 + b"}", "is no JSON"),
        ("a.jsonl", b'{"n": ' + b"[" * 100_000, "cannot be read"),
        ("a.parquet", of_frame(raw=[b"x", b"y"]), "row 1: 'raw' is of the type bytes, which is no text; .* leave the"),
    ],
)
def test_what_cannot_be_read_as_it_stands_is_refused_with_its_place(name: str, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_rows(name, content)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", b"text\r\none\r\n\r\ntwo\r\n", [{"text": "one"}, {"text": "two"}]),
        ("a.csv", b"text\rone\rtwo", [{"text": "one"}, {"text": "two"}]),
        ("a.csv", b'text,n\n5" pipe,1\n', [{"text": '5" pipe', "n": "1"}]),
        ("A.CSV", b"text\n" + b"a" * 300_000, [{"text": "a" * 300_000}]),
        ("a.jsonl", b'\xef\xbb\xbf{"text": "one"}\r\n', [{"text": "one"}]),
        ("a.jsonl", '{"text": "a\u2028b\x85c"}'.encode(), [{"text": "a\u2028b\x85c"}]),
        ("a.jsonl", b'{"text": "a\\u0000b"}', [{"text": "a\0b"}]),
        ("a.jsonl", b'{"n": 123456789012345678901234567890}', [{"n": 123456789012345678901234567890}]),
        ("a.json", b'{\n "text": "one"\n}', [{"text": "one"}]),
        ("a.json", LINES, [{"text": "one"}, {"text": "two"}]),
        ("a.JSONL", b'[{"text": "one"}]', [{"text": "one"}]),
        ("a.TXT", b"\xef\xbb\xbfone \r\n = Title =\r\n two", [{"text": "one"}, {"text": "two"}]),
    ],
)
def test_what_can_be_read_is_read_as_it_stands(name: str, content: bytes, expected: Table) -> None:
    assert read_rows(name, content) == expected


def test_a_row_says_where_it_stands() -> None:
    [_, second] = read_rows("a.csv", b'text\n"one\nand a half"\n\n\ntwo\n')
    assert second.place == "a.csv, row 2 (line 6)"


@pytest.mark.parametrize("name", ["dir/virology_test.csv", "virology_test.CSV.gz", "virology_test.jsonl.zst"])
def test_a_stem_has_no_suffix_of_format_or_compression(name: str) -> None:
    assert stem(name) == "virology_test"
    assert stem("wiki.test.raw") == "wiki.test"
