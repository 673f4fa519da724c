"""Rows of data: from files below a folder or from the hub, mapped to our column names, with a digest."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from .errors import UserError, first_line, hub_refusal
from .records import Item
from .specs import canonical
from .suite import CorporaSpec, SourceSpec

DataRow = dict[str, Any]
FILE = "@file"
"""The column that names a row's file or hub configuration until columns are mapped."""


@dataclass(frozen=True)
class Rows:
    """Rows of a source after mapping and selection; `digest` is of exactly these rows, `note` is the source's."""

    rows: list[DataRow]
    digest: str
    note: str = ""


def load_rows(source: SourceSpec, folder: Path | None) -> Rows:
    """Read a source: its files below `folder`, else a copy of its hub data set there, else the hub, else its stand-in.

    Raises:
        UserError: a file, column or data set is missing, no row is left, or a path leads out of the folder.
    """
    for pattern in source.paths:
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise UserError(
                f"{pattern!r} leads out of the data folder; name files below it, or pass another --data-root."
            )
    return _load(source.model_dump_json(), folder)


@lru_cache(maxsize=64)
def _load(source_json: str, folder: Path | None) -> Rows:
    source = SourceSpec.model_validate_json(source_json)
    try:
        raw = _raw(source, folder)
    except UserError:
        if source.otherwise is None:
            raise
        return load_rows(source.otherwise, folder)
    if source.part:
        raw = _part(raw, source)
    rows = [mapped for row in raw for mapped in _map(row, source) if _kept(mapped, source)]
    if source.distinct:
        rows = list({_hash(row.get(source.distinct)): row for row in reversed(rows)}.values())[::-1]
    if source.rows is not None:
        rows = _sample(rows, source.rows)
    if not rows:
        raise UserError(f"No row is left of {_name(source)}; check its columns and filters.")
    return Rows(rows, hashlib.sha256(canonical(rows)).hexdigest()[:16], source.note)


def texts(rows: Iterable[DataRow], where: SourceSpec) -> list[str]:
    """Return the `text` column, blank texts dropped; raise a `UserError` where there is none."""
    try:
        return [row["text"] for row in rows if str(row["text"]).strip()]
    except KeyError:
        raise UserError(f"{_name(where)} has no column 'text'; map one with columns: {{text: NAME}}.") from None


def hub_copy(hub: str, folder: Path | None) -> Path | None:
    """Return where a downloaded copy of a hub id lies below `folder`, at its `owner/name`; None where there is none.

    Raises:
        UserError: it is no hub id, but could lead out of the folder.
    """
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", hub):
        raise UserError(f"{hub!r} is no hub id; write owner/name.")
    copy = folder / hub if folder is not None else None
    return copy if copy is not None and copy.is_dir() else None


def corpora_digests(corpora: CorporaSpec, digest_of: Callable[[SourceSpec], str]) -> dict[str, Any]:
    """Return the digests of a track's text: forget topics, retain, probe (None where it has none)."""
    return {
        "forget": {topic: digest_of(source) for topic, source in corpora.forget.items()},
        "retain": digest_of(corpora.retain),
        "probe": None if corpora.probe is None else digest_of(corpora.probe),
    }


def _name(source: SourceSpec) -> str:
    return ", ".join(source.paths) or source.hub or "a source without path or hub id"


def _raw(source: SourceSpec, folder: Path | None) -> list[DataRow]:
    """Return the rows as they are at the first place that has them, with their file or configuration as `@file`."""
    if folder is not None and not folder.is_dir():
        raise UserError(f"Data folder {folder} does not exist; pass an existing one with --data-root.")
    for pattern in source.paths:
        files = sorted(folder.glob(pattern)) if folder is not None else []
        if files:
            return [row for file in files for row in _read_file(file)]
    if source.hub is not None:
        return _read_hub(source, folder, hub_copy(source.hub, folder))
    if folder is None:
        raise UserError(f"{_name(source)} needs a folder: pass --data-root DIR.{_advice(source)}")
    raise UserError(
        f"No file matches {_name(source)} below {folder}; put the data there or pass another --data-root."
        f"{_advice(source)}"
    )


def _advice(source: SourceSpec) -> str:
    return f" {source.advice}" if source.advice else ""


def _read_file(file: Path) -> list[DataRow]:
    try:
        return [{FILE: re.sub(r"_(test|dev|val)$", "", file.stem), **row} for row in _parse(file)]
    except (ValueError, OSError) as error:
        kind = file.suffix or "text"
        raise UserError(f"{file} cannot be read as {kind}: {first_line(error)} Mend or replace it.") from error


def _parse(file: Path) -> list[DataRow]:
    match file.suffix:
        case ".jsonl" | ".json":
            text = file.read_text(encoding="utf-8")
            lines = (
                json.loads(text) if text.lstrip().startswith("[") else map(json.loads, filter(None, text.split("\n")))
            )
            return list(lines)
        case ".csv" | ".tsv" | ".parquet":
            return _parse_table(file)
        case _:
            lines = file.read_text(encoding="utf-8").split("\n")
            return [{"text": line.strip()} for line in lines if line.strip() and not re.match(r"^\s*=.*=\s*$", line)]


def _parse_table(file: Path) -> list[DataRow]:
    import pandas as pd

    if file.suffix == ".parquet":
        rows = pd.read_parquet(file).to_dict("records")
        return [{str(k): v.tolist() if hasattr(v, "tolist") else v for k, v in row.items()} for row in rows]
    frame = pd.read_csv(file, sep="\t" if file.suffix == ".tsv" else ",", keep_default_na=False)
    return frame.to_dict("records")  # pyright: ignore[reportReturnType]


def _read_hub(source: SourceSpec, folder: Path | None, copy: Path | None) -> list[DataRow]:
    """Read a data set from its downloaded copy, else from the hub; several configurations are joined."""
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    place: dict[str, Any] = {"path": str(copy)} if copy else {"path": source.hub, "revision": source.revision}
    configs = source.config if isinstance(source.config, list) else [source.config]
    rows: list[DataRow] = []
    for config in configs:
        try:
            dataset: Any = load_dataset(**place, name=config, split=source.split)
        except Exception as error:
            raise UserError(_unreachable(source, folder, copy, error)) from error
        rows += [{FILE: config or "", **row} for row in dataset]
    return rows


def _unreachable(source: SourceSpec, folder: Path | None, copy: Path | None, error: Exception) -> str:
    if copy is not None:
        return f"{copy} cannot be read as a downloaded copy of {source.hub}: {first_line(error)} Download it again."
    patterns = source.paths
    looked = f"No file matches {_name(source)} below {folder}, and the" if patterns and folder else "The"
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
    out = {name: value for name, value in row.items() if name != FILE}
    for ours, theirs in source.columns.items():
        names = _column(theirs, row, source)
        for name in names:
            out.pop(name, None)
        out[ours] = row[names[0]] if len(names) == 1 else [row[name] for name in names]
    if not source.labels:
        return [out]
    columns = {_column(column, row, source)[0]: label for column, label in source.labels.items()}
    group = {"group": _group(row, source)} if source.group else {}
    return [{"text": out[column], "label": label, **group} for column, label in columns.items() if out.get(column)]


def _column(wanted: str, row: DataRow, source: SourceSpec) -> list[str]:
    """Return the columns of a row that `a|b,c` names: `a`, or where it has none `b` and `c`."""
    choices = [[name.strip() for name in choice.split(",")] for choice in wanted.split("|")]
    columns = next((names for names in choices if all(name in row for name in names)), None)
    if columns is None:
        has = ", ".join(repr(name) for name in row if name != FILE)
        raise UserError(f"{_name(source)} has no column {wanted!r}; it has {has}. Name one of them under `columns:`.")
    return columns


def _kept(row: DataRow, source: SourceSpec) -> bool:
    if source.min_characters and len(str(row.get("text", ""))) < source.min_characters:
        return False
    return all(row.get(column) == value for column, value in source.where.items())


def _hash(row: Any) -> str:
    return hashlib.sha256(canonical(row)).hexdigest()


def _part(rows: list[DataRow], source: SourceSpec) -> list[DataRow]:
    kept, _, count = (source.part or "0/1").partition("/")
    first, _, last = kept.partition("-")
    wanted = range(int(first), int(last or first) + 1)
    return [row for row in rows if int(_hash(_group(row, source))[:8], 16) % int(count) in wanted]


def _group(row: DataRow, source: SourceSpec) -> Any:
    """Return what keeps a row together with others: the value of the group's column, else all that it holds."""
    if source.group is None:
        return {name: value for name, value in row.items() if name != FILE}
    return row[_column(source.group, row, source)[0]]


def _sample(rows: list[DataRow], count: int) -> list[DataRow]:
    chosen = sorted(range(len(rows)), key=lambda i: (_hash(rows[i]), i))[:count]
    return [rows[i] for i in sorted(chosen)]


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
        for item in sorted(group, key=lambda item: _hash([seed, item.id]))[: shares[name]]
    }
    return [item for item in items if item.id in chosen]


def _shares(sizes: Mapping[str, int], limit: int, seed: int) -> dict[str, int]:
    total = sum(sizes.values())
    exact = {name: limit * size / total for name, size in sizes.items()}
    shares = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(sizes, key=lambda name: (shares[name] - exact[name], _hash([seed, name])))
    for name in by_remainder[: limit - sum(shares.values())]:
        shares[name] += 1
    return shares
