"""Rows of data: from files below a folder or from the hub, mapped to our column names, with a digest."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import DataError, UserError, first_line, hub_refusal, settle_offline
from ..specs import RowSpec, TextRow, canonical
from ..suite import SourceSpec
from .files import DataRow, plain_row, read_rows, stem
from .memory import Content, content_of, remembered

FILE = "@file"
"""The column that names a row's file or hub configuration until columns are mapped."""


@dataclass(frozen=True)
class Rows:
    """Rows of a source after mapping and selection; `digest` is of exactly these rows, `note` is the source's."""

    rows: list[DataRow]
    digest: str
    note: str = ""


def load_rows(source: SourceSpec, folder: Path | None, schema: type[RowSpec] | None = None) -> Rows:
    """Read a source: its files below `folder`, else a copy of its hub data set there, else the hub, else its stand-in.

    Every row that the source's filters leave is held to the schema, and what delimited files write out as text gets
    the schema's type.

    Raises:
        UserError: a file or data set is missing, or a path leads out of the folder; a `DataError` where what is there
            cannot be read, a column is missing, a cell is not what the schema says, or no row is left.
    """
    for pattern in source.paths:
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise UserError(
                f"{pattern!r} leads out of the data folder; name files below it, or pass another --data-root."
            )
    try:
        rows = remembered(
            (source.model_dump_json(), folder, schema),
            source_name(source),
            lambda: _content(source, folder),
            lambda: _read(source, folder, schema),
            hub=source.hub is not None,
        )
    except DataError:
        raise
    except UserError:
        if source.otherwise is None:
            raise
        return load_rows(source.otherwise, folder, schema)
    return replace(rows, rows=[_copied(row) for row in rows.rows])


def _content(source: SourceSpec, folder: Path | None) -> Content:
    """Return the content of the files that a source is read from; of a downloaded copy, of all its files."""
    files = _files(source, folder)
    copy = hub_copy(source.hub, folder) if source.hub is not None and not files else None
    return content_of(sorted(copy.rglob("*")) if copy is not None else files)


def _copied(value: Any) -> Any:
    """Return a row, or what a cell of it holds, that whoever gets it may change."""
    if isinstance(value, dict):
        cells = {key: _copied(cell) for key, cell in value.items()}
        return DataRow(cells, value.place) if isinstance(value, DataRow) else cells
    return [_copied(cell) for cell in value] if isinstance(value, list) else value


def _read(source: SourceSpec, folder: Path | None, schema: type[RowSpec] | None) -> Rows:
    raw = _raw(source, folder)
    if source.part:
        raw = _part(raw, source)
    rows = [mapped for row in raw for mapped in _map(row, source) if _wanted(mapped, source)]
    if schema is not None:
        rows = [_typed(row, schema) for row in rows]
    if source.min_characters:
        rows = [row for row in rows if len(str(row.get("text", ""))) >= source.min_characters]
    if source.distinct:
        rows = _distinct(rows, source.distinct)
    rows = rows[: source.first]
    if source.rows is not None:
        rows = _sample(rows, source.rows)
    if not rows:
        raise DataError(f"No row is left of {source_name(source)}; check its columns and filters.")
    if schema is not None and issubclass(schema, TextRow) and not any(str(row["text"]).strip() for row in rows):
        raise DataError(f"No row of {source_name(source)} has any text; check its column `text`.")
    return Rows(rows, hashlib.sha256(canonical(rows)).hexdigest()[:16], source.note)


def hub_copy(hub: str, folder: Path | None) -> Path | None:
    """Return where a downloaded copy of a hub id lies below `folder`, at its `owner/name`; None where there is none.

    Raises:
        UserError: it is no hub id, but could lead out of the folder.
    """
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", hub):
        raise UserError(f"{hub!r} is no hub id; write owner/name.")
    copy = folder / hub if folder is not None else None
    return copy if copy is not None and copy.is_dir() else None


def source_name(source: SourceSpec) -> str:
    """Return what messages call a source: its globs, or its hub id."""
    return ", ".join(source.paths) or source.hub or "a source without path or hub id"


def _raw(source: SourceSpec, folder: Path | None) -> list[DataRow]:
    """Return the rows as they are at the first place that has them, with their file or configuration as `@file`."""
    if folder is not None and not folder.is_dir():
        raise UserError(f"Data folder {folder} does not exist; pass an existing one with --data-root.")
    if files := _files(source, folder):
        return [row for file in files for row in _read_file(file, source.format)]
    if source.hub is not None:
        return _read_hub(source, folder, hub_copy(source.hub, folder))
    if folder is None:
        raise UserError(f"{source_name(source)} needs a folder: pass --data-root DIR.{_advice(source)}")
    raise UserError(
        f"No file matches {source_name(source)} below {folder}; put the data there or pass another --data-root."
        f"{_advice(source)}"
    )


def _files(source: SourceSpec, folder: Path | None) -> list[Path]:
    """Return the files of the first place of a source that has some."""
    places = (sorted(folder.glob(pattern)) for pattern in source.paths) if folder is not None else ()
    return next(filter(None, places), [])


def _advice(source: SourceSpec) -> str:
    return f" {source.advice}" if source.advice else ""


def _read_file(file: Path, form: str | None) -> list[DataRow]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}; check what it is, and its permissions.") from error
    name = re.sub(r"_(test|dev|val)$", "", stem(file.name))
    return [DataRow({FILE: name, **row}, row.place) for row in read_rows(str(file), content, form)]


def _read_hub(source: SourceSpec, folder: Path | None, copy: Path | None) -> list[DataRow]:
    """Read a data set from its downloaded copy, else from the hub; several configurations are joined."""
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    place: dict[str, Any] = {"path": source.hub, "revision": source.revision}
    if copy is not None:
        place = {"path": str(copy), "cache_dir": str(_cache(_content(source, folder)))}
    else:
        settle_offline()
    configs = source.config if isinstance(source.config, list) else [source.config]
    rows: list[DataRow] = []
    for config in configs:
        try:
            dataset: Any = load_dataset(**place, name=config, split=source.split)
        except Exception as error:
            kind = UserError if copy is None else DataError
            raise kind(_unreachable(source, folder, copy, error)) from error
        part = f"{source.hub}, {config or source.split}"
        own = _written_out(dataset, place, config, source) or [
            plain_row(f"{part}, row {number}", cells) for number, cells in enumerate(dataset, start=1)
        ]
        rows += [DataRow({FILE: config or "", **row}, row.place) for row in own]
    return rows


def _written_out(dataset: Any, place: dict[str, Any], config: str | None, source: SourceSpec) -> list[DataRow]:
    """Return the rows of a data set of files in which `datasets` guesses types: numbers in CSV, dates in JSON.

    Empty for any other, which `datasets` reads as it stands.
    """
    kind, types = dataset.info.builder_name, str(dataset.features)
    if kind != "csv" and not (kind == "json" and re.search("timestamp|date|time", types)):
        return []
    from datasets import DownloadManager, load_dataset_builder

    files = dict(load_dataset_builder(**place, name=config).config.data_files or {}).get(source.split)
    if not files:
        raise DataError(f"{source.hub} has no split {source.split!r} of whole files; name one under `split:`.")
    fetched = DownloadManager().download(list(files))
    return [
        row for name, file in zip(files, fetched, strict=True) for row in read_rows(str(name), Path(file).read_bytes())
    ]


def _cache(content: Content) -> Path:
    """Return where `datasets` keeps what it makes of a copy with this content; it tells copies by path and time."""
    from datasets import config

    return Path(config.HF_DATASETS_CACHE) / "unlearn-bench" / content_hash(content)[:16]


def _unreachable(source: SourceSpec, folder: Path | None, copy: Path | None, error: Exception) -> str:
    if copy is not None:
        return f"{copy} cannot be read as a downloaded copy of {source.hub}: {first_line(error)} Download it again."
    patterns = source.paths
    looked = f"No file matches {source_name(source)} below {folder}, and the" if patterns and folder else "The"
    local = f"files at {patterns[0]}" if patterns else f"a copy at {source.hub}"
    cause = hub_refusal("Data set", source.hub or "", source.revision, error)
    if cause is None:
        page = f"https://huggingface.co/datasets/{source.hub}"
        access = f"It is gated: ask for access on {page} and" if source.gated else "Where it is gated, ask on its page;"
        cause = f"{first_line(error)} {access} log in with `hf auth login`, or check the network."
    return (
        f"{looked} data set {source.hub} cannot be loaded from the hub: {cause} Or put {local} below --data-root."
        f"{_advice(source)}"
    )


def _map(row: DataRow, source: SourceSpec) -> list[DataRow]:
    """Return a row under our column names; with `labels` a labelled text for each of its columns that has one."""
    out = DataRow(((name, value) for name, value in row.items() if name != FILE), row.place)
    for ours, theirs in source.columns.items():
        names = _column(theirs, row, source)
        for name in names:
            out.pop(name, None)
        out[ours] = row[names[0]] if len(names) == 1 else [row[name] for name in names]
    if not source.labels:
        return [out]
    columns = {_column(column, row, source)[0]: label for column, label in source.labels.items()}
    group = {"group": _group(row, source)} if source.group else {}
    return [
        DataRow({"text": out[column], "label": label, **group}, row.place)
        for column, label in columns.items()
        if out.get(column) not in (None, "")
    ]


def _column(wanted: str, row: DataRow, source: SourceSpec) -> list[str]:
    """Return the columns of a row that `a|b,c` names: `a`, or where it has none `b` and `c`."""
    choices = [[name.strip() for name in choice.split(",")] for choice in wanted.split("|")]
    columns = next((names for names in choices if all(name in row for name in names)), None)
    if columns is None:
        has = ", ".join(repr(name) for name in row if name != FILE)
        raise DataError(f"{row.place} has no column {wanted!r}; it has {has}. Name one of them under `columns:`.")
    return columns


def _wanted(row: DataRow, source: SourceSpec) -> bool:
    """Return whether a row has the values of `where`, in text (`TRUE`, `3`) or in their own types."""
    return all(_same(row.get(column), value) for column, value in source.where.items())


def _same(cell: Any, value: Any) -> bool:
    if isinstance(cell, str) and isinstance(value, bool | int | float):
        return cell.strip().lower() == str(value).lower()
    return cell == value


def _typed(row: DataRow, schema: type[RowSpec]) -> DataRow:
    return DataRow({**row, **schema.read(row, row.place).typed(row)}, row.place)


def _distinct(rows: list[DataRow], column: str) -> list[DataRow]:
    """Return the first row of each value of a column."""
    for row in rows:
        if column not in row:
            raise DataError(f"{row.place} has no column {column!r}, which `distinct:` names; it has {', '.join(row)}.")
    return list({content_hash(row[column]): row for row in reversed(rows)}.values())[::-1]


def content_hash(row: Any) -> str:
    """Return the sha256 of plain JSON types."""
    return hashlib.sha256(canonical(row)).hexdigest()


def _part(rows: list[DataRow], source: SourceSpec) -> list[DataRow]:
    kept, _, count = (source.part or "0/1").partition("/")
    first, _, last = kept.partition("-")
    wanted = range(int(first), int(last or first) + 1)
    return [row for row in rows if int(content_hash(_group(row, source))[:8], 16) % int(count) in wanted]


def _group(row: DataRow, source: SourceSpec) -> Any:
    """Return what keeps a row together with others: the value of the group's column, else all that it holds."""
    if source.group is None:
        return {name: value for name, value in row.items() if name != FILE}
    return row[_column(source.group, row, source)[0]]


def _sample(rows: list[DataRow], count: int) -> list[DataRow]:
    chosen = sorted(range(len(rows)), key=lambda i: (content_hash(rows[i]), i))[:count]
    return [rows[i] for i in sorted(chosen)]
