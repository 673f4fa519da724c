"""The composites of a (model, track) as a table, with what is missing and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..rows.sentences import names
from ..schema import CompositeTable, CompositeValue, Row
from ..spec import BoardSpec
from ..stats.composite import Composite
from .format import shorten
from .table import Table, Value, count, method, nulls, number

HEADER = 26
ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}


def composite_table(spec: BoardSpec, rows: Sequence[Row], table: CompositeTable) -> Table:
    """Return the composites of the rows of a track: references and base first; a dash for what is missing."""
    own = {row["variant"]: row for row in rows}
    shown = [own[row["variant"]] for row in table["rows"]]
    ordered = _names(spec, table)
    heads = [f"{name}{ARROWS[table['better'][name]]}" for name in ordered]
    body = [
        (method(row), *(_cell(found["values"][name]) for name in ordered))
        for row, found in zip(shown, table["rows"], strict=True)
    ]
    headers = ("method", *(Value(head, narrow=shorten(head, HEADER)) for head in heads))
    return Table.of(_caption(spec, table), headers, body, nulls(shown))


def _names(spec: BoardSpec, table: CompositeTable) -> list[str]:
    """Return the composites in the order of the suite's file, which JSON does not keep."""
    return sorted(table["better"], key=lambda name: spec.composites[name].place)


def _caption(spec: BoardSpec, table: CompositeTable) -> str:
    said = "; ".join(f"{name}: {described(spec.composites[name])}" for name in _names(spec, table))
    roles = {row["role"]: f"`{row['variant']}`" for row in table["rows"] if row["role"]}
    named = {role: variant for role, variant in sorted(roles.items()) if variant != f"`{role}`"}
    stand = "".join(f" {variant} stands as {role}." for role, variant in named.items())
    return f"**Composites** have no say in S, rank or verdict. {said}.{stand}"


def described(composite: Composite) -> str:
    """Return what a composite is: its own description, else its statistic and what that is of."""
    if composite.description:
        return composite.description.rstrip(".")
    of = composite.of
    parts = [f"{key} {text}" for key, text in sorted(of.items())] if isinstance(of, Mapping) else map(str, of)
    held = [text for texts in composite.where.values() for text in ([texts] if isinstance(texts, str) else texts)]
    roles = ", ".join(f"{role}'s {text}" for role, text in zip(composite.where, held, strict=False))
    return f"{composite.statistic} of {', '.join(parts)}" + (f", where {roles}" if held else "")


def _cell(found: CompositeValue) -> Value:
    value = number(found["value"])
    return replace(value, text=f"{value.text}, p {p_values(found['p'])}") if found["p"] else value


def p_values(values: Sequence[float]) -> str:
    """Return a p to three digits; of several the smallest and the largest."""
    ends = sorted({f"{value:.3g}" for value in (min(values), max(values))}, key=float)
    return " to ".join(ends)


def composite_notes(table: CompositeTable) -> list[str]:
    """Return why values are missing, the rows of one reason together."""
    notes: dict[tuple[str, str], list[str]] = {}
    for row in table["rows"]:
        for name, value in row["values"].items():
            if value["missing"]:
                notes.setdefault((name, value["missing"]), []).append(row["variant"])
    return [f"{name}, {names(variants)}: {reason}." for (name, reason), variants in notes.items()]


def composite_details(spec: BoardSpec, rows: Sequence[Row], table: CompositeTable) -> Table:
    """Return each composite less that of the row that all are compared with, and what is behind it."""
    compared = spec.tracks[table["track"]].compared
    own = {row["variant"]: row for row in rows}
    body = [
        (
            method(own[row["variant"]]),
            Value(name, narrow=shorten(name, HEADER)),
            number(value["value"]),
            number(value["delta_base"], sign=True),
            count(value["n"]),
            count(value["checkpoints"]),
        )
        for row in table["rows"]
        for name, value in row["values"].items()
        if value["value"]
    ]
    caption = (
        f"Composites less those of {compared} (paired; a dash where resamples of two rows say nothing of their "
        "difference), the items of the smallest part and the checkpoints that they are of."
    )
    return Table.of(caption, ("method", "composite", "value", f"Δ {compared}", "items", "checkpoints"), body)
