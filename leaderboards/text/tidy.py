"""A board as one line a number: what a data frame groups and plots without taking columns apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..schema import BoardData, Component, Row

COLUMNS = (
    "model", "track", "method", "variant", "kind", "seeds", "stress",
    "quantity", "task", "metric", "value", "low", "high", "n",
)  # fmt: skip
"""`quantity` is the key of the board's JSON; `seeds` the number of finished ones; `low` and `high` may be empty."""
SCORES = ("s_unlearning", "delta_base", "delta_noise", "noise")
STRESSED = ("s_unlearning", "forget", "retain", "s_delta_base", "forget_delta_base", "retain_delta_base", "remaining")


def numbers(board: BoardData) -> Iterator[dict[str, Any]]:
    """Give every number of the rows that has an interval, and those of composites; what is missing has no line."""
    composites = {
        (table["model"], table["track"], row["variant"]): row["values"]
        for table in board.composites
        for row in table["rows"]
    }
    for row in board.rows:
        place = {key: row[key] for key in ("model", "track", "method", "variant", "kind")}
        place |= {"seeds": len(row["seeds"]), "stress": None}
        yield from ({**place, **line} for line in _of_row(row))
        for name, value in composites.get((row["model"], row["track"], row["variant"]), {}).items():
            for quantity, interval in ((name, value["value"]), (f"{name}_delta_base", value["delta_base"])):
                yield from ({**place, **line} for line in _line(quantity, interval, n=value["n"]))


def _of_row(row: Row) -> Iterator[dict[str, Any]]:
    for key in SCORES:
        yield from _line(key, row[key])
    for quantity in ("forget", "retain"):
        yield from _of_task(quantity, row[quantity])
    for quantity, parts in (("cross", row["cross"]), ("control", row["controls"])):
        for part in parts:
            yield from _of_task(quantity, part)
    for name, part in row["stress"].items():
        for key in STRESSED:
            yield from ({**line, "stress": name} for line in _line(key, part[key]))


def _of_task(quantity: str, part: Component | None) -> Iterator[dict[str, Any]]:
    if part is not None:
        of = {"task": part["task"], "metric": part["metric"], "n": part["n"]}
        yield from _line(quantity, part, **of)
        for key in ("delta_base", "delta_noise"):
            yield from _line(f"{quantity}_{key}", part[key], **of)


def _line(quantity: str, interval: Mapping[str, Any] | None, **of: Any) -> Iterator[dict[str, Any]]:
    if interval is not None:
        yield {"quantity": quantity, **of, **{key: interval[key] for key in ("value", "low", "high")}}
