"""Rows of data: from files below a folder or from the hub, mapped to our column names, with a digest."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from .errors import UserError
from .records import Item
from .specs import canonical
from .suite import CorporaSpec, SourceSpec

Row = dict[str, Any]


@dataclass(frozen=True)
class Rows:
    """Rows of a source after mapping and selection; `digest` is of exactly these rows."""

    rows: list[Row]
    digest: str


def load_rows(source: SourceSpec, folder: Path | None) -> Rows:
    """Read a source: its files below `folder`, or where there are none, its data set on the hub.

    Raises:
        UserError: a file, column or data set is missing, or no row is left, with what to do.
    """
    return _load(source.model_dump_json(), folder)


@lru_cache(maxsize=64)
def _load(source_json: str, folder: Path | None) -> Rows:
    source = SourceSpec.model_validate_json(source_json)
    raw = _read_files(source, folder) if source.path and folder else None
    if raw is None:
        raw = _read_hub(source, folder)
    if source.part:
        raw = _part(raw, source.part)
    rows = [mapped for row in raw for mapped in _map(row, source) if _kept(mapped, source)]
    if source.rows is not None:
        rows = _sample(rows, source.rows)
    if not rows:
        raise UserError(f"No row is left of {_name(source)}; check its columns and filters.")
    return Rows(rows, hashlib.sha256(canonical(rows)).hexdigest()[:16])


def texts(rows: Iterable[Row], where: SourceSpec) -> list[str]:
    """Return the `text` column, blank texts dropped; raise a `UserError` where there is none."""
    try:
        return [row["text"] for row in rows if str(row["text"]).strip()]
    except KeyError:
        raise UserError(f"{_name(where)} has no column 'text'; map one with columns: {{text: NAME}}.") from None


def corpora_digests(corpora: CorporaSpec, folder: Path | None) -> dict[str, Any]:
    """Return the digests of a track's text: forget topics, retain, probe (None where it has none)."""
    return {
        "forget": {topic: load_rows(source, folder).digest for topic, source in corpora.forget.items()},
        "retain": load_rows(corpora.retain, folder).digest,
        "probe": load_rows(corpora.probe, folder).digest if corpora.probe is not None else None,
    }


def _name(source: SourceSpec) -> str:
    return source.path or source.hub or "a source without path or hub id"


def _read_files(source: SourceSpec, folder: Path) -> list[Row] | None:
    pattern = source.path or ""
    if not folder.is_dir():
        raise UserError(f"Data folder {folder} does not exist; pass an existing one with --data-root.")
    files = sorted(folder.glob(pattern))
    if not files and source.hub is not None:
        return None
    if not files:
        raise UserError(f"No file matches {pattern} below {folder}; put the data there or pass another --data-root.")
    rows: list[Row] = []
    for file in files:
        try:
            rows.extend({"file": re.sub(r"_(test|dev|val)$", "", file.stem), **row} for row in _parse(file))
        except (ValueError, OSError) as error:
            raise UserError(f"{file} cannot be read as {file.suffix or 'text'}: {error}") from error
    return rows


def _parse(file: Path) -> list[Row]:
    import pandas as pd

    match file.suffix:
        case ".jsonl" | ".json":
            text = file.read_text(encoding="utf-8")
            lines = (
                json.loads(text) if text.lstrip().startswith("[") else map(json.loads, filter(None, text.split("\n")))
            )
            return list(lines)
        case ".csv" | ".tsv":
            frame = pd.read_csv(file, sep="\t" if file.suffix == ".tsv" else ",", keep_default_na=False)
            return frame.to_dict("records")  # pyright: ignore[reportReturnType]
        case ".parquet":
            rows = pd.read_parquet(file).to_dict("records")
            return [{str(k): v.tolist() if hasattr(v, "tolist") else v for k, v in row.items()} for row in rows]
        case _:
            lines = file.read_text(encoding="utf-8").split("\n")
            return [{"text": line.strip()} for line in lines if line.strip() and not re.match(r"^\s*=.*=\s*$", line)]


def _read_hub(source: SourceSpec, folder: Path | None) -> list[Row]:
    if source.hub is None:
        raise UserError(f"{_name(source)} needs a folder: pass --data-root DIR.")
    from datasets import load_dataset

    try:
        return list(load_dataset(source.hub, source.config, split=source.split, revision=source.revision))  # pyright: ignore
    except Exception as error:
        cause = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".") + "."
        looked = f"No file matches {source.path} below {folder}, and the" if source.path and folder else "The"
        raise UserError(
            f"{looked} data set {source.hub} cannot be loaded from the hub: {cause} Check the network and, where it is"
            " gated, accept its terms and log in with `hf auth login`; or pass local files with --data-root DIR."
        ) from error


def _map(row: Row, source: SourceSpec) -> list[Row]:
    out = dict(row)
    for ours, theirs in source.columns.items():
        names = [theirs] if isinstance(theirs, str) else theirs
        missing = [name for name in names if name not in row]
        if missing:
            raise UserError(f"{_name(source)} has no column {missing[0]!r}; it has {', '.join(map(repr, row))}.")
        for name in names:
            out.pop(name, None)
        out[ours] = row[names[0]] if isinstance(theirs, str) else [row[name] for name in names]
    if not source.labels:
        return [out]
    return [{"text": out[column], "label": label} for column, label in source.labels.items() if out.get(column)]


def _kept(row: Row, source: SourceSpec) -> bool:
    return all(row.get(column) == value for column, value in source.where.items())


def _hash(row: Any) -> str:
    return hashlib.sha256(canonical(row)).hexdigest()


def _part(rows: list[Row], part: str) -> list[Row]:
    index, count = (int(number) for number in part.split("/"))
    return [row for row in rows if int(_hash(row)[:8], 16) % count == index]


def _sample(rows: list[Row], count: int) -> list[Row]:
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
