"""The warnings below a table: each row's own, and those that rows share said once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..rows.sentences import merged, pattern
from ..schema import Row
from .format import bullets, fits


def note_numbers(rows: Sequence[Row]) -> dict[str, int]:
    """Return the footnote number of every row that has a warning, or a name that is cut in the table."""
    noted = [row["variant"] for row in rows if row["warnings"] or not fits(row)]
    return {variant: place for place, variant in enumerate(noted, start=1)}


def footnotes(rows: Sequence[Row]) -> str:
    """Return the warnings of the rows in words, numbered as in the table; what several rows share is said once."""
    numbers = note_numbers(rows)
    notes: dict[str, list[tuple[int, str]]] = {}
    for row in rows:
        for text in row["warnings"]:
            notes.setdefault(pattern(text), []).append((numbers[row["variant"]], text))
    shared = {key for key, entries in notes.items() if len({number for number, _ in entries}) > 1}
    lines = []
    for row in rows:
        own = [] if fits(row) else ["name cut in the table"]
        own += [text for text in row["warnings"] if pattern(text) not in shared]
        if own:
            lines.append(f"({numbers[row['variant']]}) `{row['variant']}`: {'; '.join(own)}.")
    for key in notes:
        if key in shared:
            lines.append(f"({runs({number for number, _ in notes[key]})}) {merged([text for _, text in notes[key]])}.")
    return bullets(lines)


def at_decoding(rows: Sequence[Row]) -> str:
    """Return which rows work at decoding time and what that means, "" where none does."""
    names = [f"`{row['variant']}`" for row in rows if row["changes"] == "decoding"]
    if not names:
        return ""
    works, model, they = ("works", "a model", "It has") if len(names) == 1 else ("work", "models", "They have")
    return (
        f"{', '.join(names)} {works} at decoding time: {model} with the base's own weights, whose logits are changed as"
        f" it answers. {they} no noise to compare with; stress and export have nothing to work on."
    )


def runs(numbers: Iterable[int]) -> str:
    """Return whole numbers with neighbours joined: `1-3, 5`."""
    groups: list[list[int]] = []
    for number in sorted(numbers):
        if groups and number == groups[-1][-1] + 1:
            groups[-1].append(number)
        else:
            groups.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in groups)
