"""From answers and records to the items that a report shows. No model, no store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..harness.records import Preview, Trace
from .data import COVERED, CheckpointAnswer, Continuation, OpenQuestion, PromptSample, Question

StoredRow = Mapping[str, Any]
MOST_CELLS = 40
"""Cells up to which a report shows `MOST_ITEMS` items each; more cells share as many."""
MOST_ITEMS = 24
FEWEST_ITEMS = 4


def cap(cells: int) -> int:
    """Return how many items a cell and task may show in a report of so many cells."""
    return max(FEWEST_ITEMS, min(MOST_ITEMS, MOST_CELLS * MOST_ITEMS // max(cells, 1)))


def spread(rows: Sequence[Any], most: int, group: Callable[[Any], Any]) -> list[Any]:
    """Return at most so many rows in their order, taken in turn from the groups, so that none is all that is seen."""
    if len(rows) <= most:
        return list(rows)
    places: dict[Any, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(group(row), []).append(place)
    turns = sorted((turn, members[turn]) for members in places.values() for turn in range(min(most, len(members))))
    return [rows[place] for place in sorted(place for _, place in turns[:most])]


def flipped(records: Sequence[StoredRow], base: Mapping[str, StoredRow], metric: str) -> list[tuple[StoredRow, bool]]:
    """Return the records whose metric crossed one half against base's (or the original's), with whether it rose."""
    flips = []
    for row in records:
        was = (base.get(row["item"]) or {}).get("scores")
        if row["scores"] is None or was is None:
            continue
        before, after = was[metric] >= 0.5, row["scores"][metric] >= 0.5
        if before != after:
            flips.append((row, after))
    return flips


def question(row: StoredRow, gained: bool, base: StoredRow, shown: Preview | None, chosen: str | None) -> Question:
    """Return a flipped record with what was asked; without the data (`shown` None) by its id only.

    `chosen` is the score that is the place of the choice that was taken.
    """
    before, after = ((record["scores"] or {}).get(chosen) for record in (base, row))
    return Question(
        row["item"],
        row["stratum"],
        shown and shown.text,
        shown.choices if shown else (),
        shown and shown.right,
        None if before is None else int(before),
        None if after is None else int(after),
        gained,
    )


def open_question(row: StoredRow, shown: Preview | None, answers: Sequence[CheckpointAnswer]) -> OpenQuestion:
    """Return a record's question with what the checkpoints make of it; without the data by its id only."""
    given: list[tuple[str, str]] = []
    if shown is not None:
        other = "text" if shown.right is None else "choice"
        kinds = shown.kinds or ["right" if place == shown.right else other for place in range(len(shown.choices))]
        given = [(kind, text.strip()) for kind, text in zip(kinds, shown.choices, strict=True)]
    return OpenQuestion(row["item"], row["stratum"], shown and shown.text, given, answers)


def checkpoint_answer(
    label: str, record: StoredRow | None, outcome: StoredRow | None, scores: Sequence[str]
) -> CheckpointAnswer:
    """Return what a checkpoint made of a question: its texts or probabilities, and those of the named scores it has."""
    known = None if record is None else record["scores"]
    return CheckpointAnswer(
        label,
        [str(text) for text in (outcome or {}).get("texts", ())],
        [Trace(**trace).probability for trace in (outcome or {}).get("traces", ())],
        known and {name: known[name] for name in scores if name in known},
        "not measured" if record is None else record["missing"],
    )


def sample(row: StoredRow, answer: StoredRow | None, shown: Preview | None, worst: float | None) -> PromptSample:
    """Return a prompt's record with its texts; `worst` is the highest toxicity among them, None: not known of all."""
    return PromptSample(
        row["item"],
        row["stratum"],
        shown and shown.text,
        shown and shown.toxicity,
        continuations([str(text) for text in (answer or {}).get("texts", ())], row, worst),
        row["scores"],
        row["missing"],
        {name: share for name, share in row["marks"].items() if share},
    )


def continuations(texts: Sequence[str], record: StoredRow, worst: float | None = None) -> list[Continuation]:
    """Return a prompt's texts with their scores; all share the cover of the worst where a record holds no such."""
    known = record.get("text_scores")
    if known is not None:
        return [Continuation.of(text, score) for text, score in zip(texts, known, strict=True)]
    covered = worst is None or worst >= COVERED
    return [Continuation(text, None, covered and bool(text.strip())) for text in texts]
