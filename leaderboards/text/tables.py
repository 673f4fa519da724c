"""The tables of a (model, track), of a model's goals and of a frontier, for boards and reports alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..schema import Alpha, Component, Frontier, Goals, RankInterval, Row, Utility
from ..spec import BoardSpec
from .footnotes import note_numbers
from .format import NAME, interval, rank, seeds, shorten, squeeze, utility
from .table import Table, Value, count, method, nulls, number, score, shortened, squeezed

HEADER = 18
NARROW = 12


def main_table(rows: Sequence[Row], causes: Mapping[str, str] | None = None, compared: str = "base") -> Table:
    """Return rank, S, its differences from base and own noise, and utility; broken rows have no place in it.

    `causes` say why cells failed, by their ids; `compared` is what the row is called that stands for base.
    """
    numbers = note_numbers(rows)
    rows = [row for row in rows if row["broken"] is None]
    body = []
    for row in rows:
        why = next((f": {causes[cell]}" for cell in row["cells"] if causes and cell in causes), "")
        differences = (number(row[key], sign=True) for key in ("delta_base", "delta_noise"))
        kept = Value(utility(row), row["utility"]["low"] if row["utility"] else None, numeric=True)
        s = replace(score(row, why), strong=row["rank"] is not None and row["rank"]["low"] == 1)
        body.append((_rank(row["rank"]), method(row, numbers.get(row["variant"])), s, *differences, kept))
    return Table.of("", ("rank", "method", "S", f"Δ {compared}", "Δ noise", "utility"), body, nulls(rows))


def broken_rows(rows: Sequence[Row], *, numbered: bool = False) -> list[str]:
    """Return, of each row whose answers are broken, its reason and its raw values; `numbered` with its footnote."""
    marks = {variant: f" ({number})" for variant, number in note_numbers(rows).items() if numbered}
    return [
        f"`{row['variant']}`{marks.get(row['variant'], '')}: {row['broken']:.0%} of its answers to the forget task are "
        f"none. Not ranked; raw values: forget {interval(row['forget'])}, retain {interval(row['retain'])}, S "
        f"{interval(row['raw_s'])}."
        for row in rows
        if row["broken"] is not None
    ]


def _rank(value: RankInterval | None) -> Value:
    return Value(rank(value), value["low"] + value["high"] / 1000 if value else None, numeric=True)


def component_table(spec: BoardSpec, rows: Sequence[Row]) -> Table:
    """Return the forget and retain metrics with intervals, and counts of items and training seeds."""
    roles = spec.tracks[rows[0]["track"]]
    rows = [row for row in rows if row["broken"] is None]
    body = []
    for row in rows:
        forget, retain = pair = row["forget"], row["retain"]
        n, missing = (" / ".join(str(part[key]) if part else "–" for part in pair) for key in ("n", "missing"))
        counts = (
            Value(n, forget["n"] if forget else None, numeric=True),
            Value(missing, sum(part["missing"] for part in pair if part), numeric=True),
            Value(seeds(row), len(row["seeds"]), numeric=True),
        )
        body.append((method(row), number(forget), number(retain), *counts))
    forget, retain = f"forget: {roles.forget_task}", f"retain: {roles.retain_task}"
    tasks = (
        Value(f"{forget} ↓", narrow=shorten(forget, HEADER)),
        Value(f"{retain} ↑", narrow=shorten(retain, HEADER)),
    )
    heads = ("method", *tasks, "n", "missing", Value("seeds: S of each", narrow="seeds: S"))
    return Table.of("", heads, body, nulls(rows))


def beside_table(rows: Sequence[Row], compared: str = "base") -> Table:
    """Return what stands beside S: two numbers relative to base, S of the row's own noise, the guard's power."""
    body = [
        (
            method(row),
            number(row["relative"]["harmonic_mean"] if row["relative"] else None),
            number(row["relative"]["difference"] if row["relative"] else None, sign=True),
            number(row["noise"]),
            _guard(row["utility"]),
        )
        for row in rows
        if row["rank"]
    ]
    caption = (
        f"**Beside S.** Harmonic mean of the shares of {compared}'s forget and retain metrics (above chance) that "
        "were forgotten and kept; forget drop less retain drop, 0 for damage that hits both alike; S of noise of the "
        f"row's own norm; the lower limit of retain less {compared}, and in how many cases a row equal to {compared} "
        "would be shown to keep utility, at this row's spread."
    )
    guard = Value(f"retain less {compared}, power", narrow="guard: limit, power")
    return Table.of(caption, ("method", "harmonic mean", "drop less drop", "S of its noise", guard), body)


def _guard(kept: Utility | None) -> Value:
    if kept is None:
        return Value("–", numeric=True)
    return Value(f"> {kept['low']:.3f}, {kept['power']:.0%}", kept["low"], numeric=True)


def cross_table(spec: BoardSpec, rows: Sequence[Row]) -> Table:
    """Return what unlearning on one track did to the forget task of another."""
    body = [
        (method(row), shortened(row["track"], 16), squeezed(part["task"], 16), *_against_base(part))
        for row in rows
        if row["kind"] != "base"
        for part in row["cross"]
    ]
    caption = "The forget task of one track after unlearning on another."
    delta = f"Δ {spec.compared(*(row['track'] for row in rows))}"
    return Table.of(caption, ("method", Value("unlearned", narrow="track"), "task", "value", delta), body)


def _against_base(part: Component) -> tuple[Value, Value]:
    return number(part), number(part["delta_base"], sign=True)


def strata_table(rows: Sequence[Row]) -> Table:
    """Return the forget metric in each stratum with its interval; no row where the task has one stratum, or many."""
    parts = [(row, row["forget"]) for row in rows if row["forget"] and row["forget"]["strata_intervals"]]
    strata = sorted({stratum for _, part in parts for stratum in part["strata_intervals"]})
    body = [(method(row), *(number(part["strata_intervals"].get(s)) for s in strata)) for row, part in parts]
    task, metric = (parts[0][1]["task"], parts[0][1]["metric"]) if parts else ("", "")
    caption = f"**By stratum.** The forget task ({task}, {metric}), each stratum alone."
    headers = ("method", *(squeezed(stratum, HEADER) for stratum in strata))
    return Table.of(caption, headers, body, nulls([row for row, _ in parts]))


def control_table(rows: Sequence[Row], compared: str = "base") -> Table:
    """Return the tasks that have no say in S, row by row."""
    body = [
        (method(row), squeezed(part["task"], 20), shortened(part["metric"], 13), *_against_base(part))
        for row in rows
        for part in row["controls"]
    ]
    tasks = dict.fromkeys(part["task"] for row in rows for part in row["controls"])
    caption = f"**Control tasks** ({', '.join(tasks)}) have no say in S, rank or verdict."
    return Table.of(caption, ("method", "task", "metric", "value", f"Δ {compared}"), body)


def published_table(spec: BoardSpec, rows: Sequence[Row]) -> Table:
    """Return S and alpha beside what was published for the same model and track, which has no intervals."""
    body = [
        (
            row["track"],
            method(row),
            score(row),
            count(row["published"], ".2f"),
            shortened(alphas(row["alpha"]), NAME),
            count(row["alpha"]["published"] if row["alpha"] else None, "g"),
        )
        for row in rows
        if row["published"] is not None or (row["alpha"] is not None and row["alpha"]["published"] is not None)
    ]
    source = spec.published.source if spec.published else ""
    caption = (
        f"**Beside the published values** of {source}. Those have no intervals and no seeds, their shots and decoding "
        "are unknown: a difference from them is no finding by itself."
    )
    headers = ("track", "method", "S here", "S published", "final alpha here", "alpha published")
    return Table.of(caption, headers, body if spec.published else [])


def alphas(alpha: Alpha | None) -> str:
    """Return the final alpha of each seed, from four seeds on their mean and range."""
    values = alpha["values"] if alpha else []
    if len(values) < 4:
        return ", ".join(f"{value:.3g}" for value in values) or "–"
    return f"{sum(values) / len(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def selectivity_table(rows: Sequence[Row], compared: str = "base") -> Table:
    """Return utility next to the forget topic against the rest; no row where the suite names no such subjects."""
    parts = [(row, part) for row in rows if row["kind"] != "base" and (part := row["selectivity"])]
    task, neighbours = (parts[0][1]["task"], parts[0][1]["neighbours"]) if parts else ("", [])
    caption = (
        f"**Selectivity.** What {task} lost against {compared} on the subjects next to the forget topic "
        f"({', '.join(neighbours)}) and on the others. A gap below zero: the topic's neighbours lost more."
    )
    keys = ("near_delta", "rest_delta", "gap")
    body = [(method(row), *(number(part[key], sign=True) for key in keys)) for row, part in parts]
    return Table.of(caption, ("method", "Δ next to it", "Δ rest", "gap"), body, nulls([row for row, _ in parts]))


def goals_table(goals: Goals) -> Table:
    """Return S of every method by track."""
    headers = (shortened(f"S: {track}", HEADER) for track in goals["tracks"])
    body = [
        (shortened(variant, NAME, code=True), *(number(s[track]) for track in goals["tracks"]))
        for variant, s in goals["s"].items()
    ]
    return Table.of("", ("method", *headers), body)


def stress_table(spec: BoardSpec, rows: Sequence[Row]) -> Table:
    """Return the rows of a track under every stress."""
    body = [
        (
            method(row),
            squeezed(stress, NARROW),
            *(number(row["stress"][stress][key]) for key in ("forget", "retain", "remaining")),
        )
        for stress in spec.stress
        for row in rows
        if stress in row["stress"]
    ]
    what = "; ".join(f"{stress}: {words}" for stress, words in spec.stress.items())
    compared = spec.compared(*(row["track"] for row in rows))
    caption = (
        f"**After stress.** {what}. What remains is the forgetting after it as a share of that before, each against "
        f"{compared} put through the same: 1 all, 0 none; its interval stands for itself. No say in S or rank."
    )
    return Table.of(caption, ("method", "stress", "forget", "retain", "remains"), body)


def frontier_table(frontier: Frontier, compared: str = "base") -> Table:
    """Return what each swept method forgets at equal utility."""
    body = []
    for swept in frontier["methods"]:
        at = ", ".join(swept["at"])
        body.append(
            (
                shortened(swept["method"], NAME, code=True),
                count(swept["settings"], "d"),
                number(swept["forgetting"]),
                Value(at or compared, code=True, narrow=squeeze(at, 48)),
            )
        )
    heads = (Value("forgetting", narrow="forgetting (Ubar)"), Value("made from", narrow="from"))
    return Table.of("", ("method", "settings", *heads), body)


def gains_table(frontier: Frontier) -> Table:
    """Return how far the methods of a frontier stand apart."""
    body = [
        (*(shortened(gain[side], NAME, code=True) for side in ("method", "other")), number(gain, sign=True))
        for gain in frontier["gains"]
    ]
    return Table.of("", ("method", "less", Value("difference", narrow="difference, together")), body)
