"""The tables of a report, from rows of a board and cells of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..leaderboards.board import Board
from ..leaderboards.rows.frontier import Frontier
from ..leaderboards.schema import Component, Goals, Interval, Row
from ..leaderboards.spec import NULLS, BoardSpec
from ..leaderboards.text.format import interval, outcome, rank, seeds
from ..leaderboards.text.tables import alphas
from .data import Cell, Run
from .document.blocks import Table, Value


def _number(value: Interval | Component | None, *, sign: bool = False) -> Value:
    return Value(interval(value, sign=sign), value["value"] if value else None)


def _count(value: int | float | None, form: str = ",.0f") -> Value:
    return Value("–", None) if value is None else Value(format(value, form), value)


def _method(row: Row) -> Value:
    return Value(row["variant"], code=True)


def _faint(rows: Sequence[Row]) -> frozenset[int]:
    return frozenset(place for place, row in enumerate(rows) if row["kind"] in NULLS)


def claims(board: Board) -> Table | None:
    """Return what is shown of every ranked row, and how sure it is: the board's verdicts and what they go by."""
    rows = {(row["model"], row["track"], row["variant"]): row for row in board.rows}
    several = len({row["model"] for row in board.rows}) > 1
    body = []
    for verdict in board.verdicts:
        reasons = {**dict.fromkeys(verdict["winners"], "beats base and noise, no loss of utility"), **verdict["others"]}
        for variant, reason in reasons.items():
            row = rows[verdict["model"], verdict["track"], variant]
            together = row["claims"] or {"base": None, "noise": None}
            body.append(
                [
                    Value(f"{verdict['model']} · {verdict['track']}" if several else verdict["track"]),
                    _method(row),
                    Value(("✓ " if variant in verdict["winners"] else "") + reason),
                    _number(together["base"], sign=True),
                    _number(together["noise"], sign=True),
                    Value(_speaks_of(row)),
                ]
            )
    confidence = f"{board.spec.confidence:.0%}"
    caption = (
        f"What is claimed, and what it goes by: intervals of S that hold for all rows of a table at {confidence}. That "
        "a row falls below is told by its own interval, in the leaderboard, which is narrower."
    )
    headers = ("board", "method", "what is shown", "S less base", "S less noise", "speaks of")
    return Table(caption, headers, body, frozenset({3, 4})) if body else None


def _speaks_of(row: Row) -> str:
    count = len(row["seeds"])
    if not row["finished"]:
        return "–"
    if row["speaks_of"] == "method":
        return f"the method ({count} seeds)"
    return "this checkpoint (1 seed)" if count == 1 else "this checkpoint" if not count else f"{count} checkpoints"


def failures(run: Run) -> Table | None:
    """Return the cells that failed or were not run, with the cause."""
    body = [
        [Value(cell.model), Value(cell.label, code=True), Value(cell.state), Value(cell.cause or "not run yet")]
        for cell in run.cells
        if cell.state != "finished"
    ]
    return Table("Cells without all their numbers.", ("model", "cell", "state", "cause"), body) if body else None


def board(spec: BoardSpec, rows: Sequence[Row], cells: Sequence[Cell]) -> Table:
    """Return the board of a model and track; a row that failed says why."""
    causes = {cell.id: cell.cause for cell in cells if cell.cause}
    roles = spec.tracks[rows[0]["track"]]
    body = []
    for row in rows:
        s, place = row["s_unlearning"], row["rank"]
        parts = row["forget"], row["retain"]
        counts = " / ".join(str(part["n"]) if part else "–" for part in parts)
        missing = " / ".join(str(part["missing"]) if part else "–" for part in parts)
        why = next((f": {causes[cell]}" for cell in row["cells"] if cell in causes), "")
        body.append(
            [
                Value(rank(place), place["low"] + place["high"] / 1000 if place else None),
                _method(row),
                _number(s) if s else Value(outcome(row) + why),
                _number(row["delta_base"], sign=True),
                _number(row["delta_noise"], sign=True),
                _number(parts[0]),
                _number(parts[1]),
                Value(counts, parts[0]["n"] if parts[0] else None),
                Value(missing, sum(part["missing"] for part in parts if part)),
                Value(seeds(row), len(row["seeds"])),
            ]
        )
    headers = (
        "rank",
        "method",
        "S",
        "Δ base",
        "Δ noise",
        f"forget: {roles.forget_task} ↓",
        f"retain: {roles.retain_task} ↑",
        "n",
        "missing",
        "seeds",
    )
    caption = (
        f"{rows[0]['model']}, {rows[0]['track']}: S-unlearning with {spec.confidence:.0%} intervals; "
        "base and noise are not ranked. ↓ less means more forgotten, ↑ more is better."
    )
    return Table(caption, headers, body, frozenset({0, *range(2, 10)}), _faint(rows))


def cross(rows: Sequence[Row]) -> Table | None:
    """Return what unlearning on one track did to the forget task of another."""
    body = [
        [_method(row), Value(row["track"]), Value(part["task"]), _number(part), _number(part["delta_base"], sign=True)]
        for row in rows
        if row["kind"] != "base"
        for part in row["cross"]
    ]
    caption = "The forget task of one track after unlearning on another."
    return Table(caption, ("method", "unlearned", "task", "value", "Δ base"), body, frozenset({3, 4})) if body else None


def goals(found: Goals) -> Table:
    """Return S of every method by track."""
    tracks = found["tracks"]
    body = [[Value(variant, code=True), *(_number(s[track]) for track in tracks)] for variant, s in found["s"].items()]
    return Table(
        "S by goal.", ("method", *(f"S: {track}" for track in tracks)), body, frozenset(range(1, 1 + len(tracks)))
    )


def published(spec: BoardSpec, rows: Sequence[Row]) -> Table | None:
    """Return S and alpha beside what was published; published values have no intervals."""
    body = [
        [
            Value(row["track"]),
            _method(row),
            _number(row["s_unlearning"]) if row["s_unlearning"] else Value(outcome(row)),
            _count(row["published"], ".2f"),
            Value(alphas(row["alpha"])),
            _count(row["alpha"]["published"] if row["alpha"] else None, "g"),
        ]
        for row in rows
        if row["published"] is not None or (row["alpha"] is not None and row["alpha"]["published"] is not None)
    ]
    headers = ("track", "method", "S here", "S published", "final alpha here", "alpha published")
    caption = "Ours with intervals; published values are marked so and have none."
    return Table(caption, headers, body, frozenset({2, 3, 5})) if body else None


def frontier(found: Frontier, confidence: float) -> Iterator[Table]:
    """Return what each swept method forgets at equal utility, and how far they stand apart."""
    body = [
        [
            Value(each["method"], code=True),
            Value(str(each["settings"]), each["settings"]),
            _number(each["forgetting"]),
            Value(", ".join(each["at"]) or "base", code=True),
        ]
        for each in found["methods"]
    ]
    caption = (
        f"Forgetting (Ubar) on each frontier where {found['tolerance']:g} of the retain metric is lost against base, "
        f"with {confidence:.0%} intervals; noise stands beside."
    )
    yield Table(caption, ("method", "settings", "forgetting", "made from"), body, frozenset({1, 2}))
    gains = [
        [Value(each["method"], code=True), Value(each["other"], code=True), _number(each, sign=True)]
        for each in found["gains"]
    ]
    if gains:
        caption = f"How much more one forgets there than another; the intervals hold together at {confidence:.0%}."
        yield Table(caption, ("method", "less", "difference"), gains, frozenset({2}))


def strata(rows: Sequence[Row]) -> Table | None:
    """Return the forget metric in each stratum, where it has a few."""
    parts = [(row, row["forget"]) for row in rows if row["forget"] and row["forget"]["strata_intervals"]]
    if not parts:
        return None
    names = sorted({name for _, part in parts for name in part["strata_intervals"]})
    body = [[_method(row), *(_number(part["strata_intervals"].get(name)) for name in names)] for row, part in parts]
    caption = f"The forget task ({parts[0][1]['task']}) by stratum."
    return Table(caption, ("method", *names), body, frozenset(range(1, 1 + len(names))), _faint([r for r, _ in parts]))


def selectivity(rows: Sequence[Row]) -> Table | None:
    """Return what the retain task lost next to the forget topic, and elsewhere."""
    found = [(row, part) for row in rows if row["kind"] != "base" and (part := row["selectivity"])]
    if not found:
        return None
    keys = ("near_delta", "rest_delta", "gap")
    body = [[_method(row), *(_number(part[key], sign=True) for key in keys)] for row, part in found]
    caption = (
        f"Selectivity: what {found[0][1]['task']} lost against base on the subjects next to the forget topic and on "
        "the others. A gap below zero: the topic's neighbours lost more."
    )
    headers = ("method", "Δ next to it", "Δ rest", "gap")
    return Table(caption, headers, body, frozenset({1, 2, 3}), _faint([row for row, _ in found]))


def controls(rows: Sequence[Row]) -> Table | None:
    """Return the tasks that have no say in S."""
    body = [
        [
            _method(row),
            Value(part["task"]),
            Value(part["metric"]),
            _number(part),
            _number(part["delta_base"], sign=True),
        ]
        for row in rows
        for part in row["controls"]
    ]
    caption = "Control tasks: no say in S, rank or verdict."
    return Table(caption, ("method", "task", "metric", "value", "Δ base"), body, frozenset({3, 4})) if body else None


def costs(cells: Sequence[Cell]) -> Table:
    """Return time, memory and bytes of the making and of each measurement of every cell."""
    gpu = any(cost.gpu_memory is not None for cell in cells for cost in cell.costs)
    body = [
        [
            Value(cell.label, code=True),
            Value(cost.what),
            _count(cost.seconds, ",.1f"),
            _count(cost.memory),
            *([_count(cost.gpu_memory)] if gpu else []),
            _count(cost.bytes / 1024, ",.0f"),
        ]
        for cell in cells
        for cost in cell.costs
    ]
    headers = ("cell", "what", "seconds", "peak memory, MiB", *(["peak GPU memory, MiB"] if gpu else []), "kept, KiB")
    caption = (
        "As recorded when it ran. The peak is that of the worker process until then, which other cells may have set; "
        "seconds include waiting for processors that others used."
    )
    return Table(caption, headers, body, frozenset(range(2, len(headers))))


def provenance(cells: Sequence[Cell]) -> Table:
    """Return ids, digests and settings of all cells."""
    body = [
        [
            Value(cell.model),
            Value(cell.label, code=True),
            Value(cell.id, code=True),
            Value((cell.delta or "–")[:16], code=True),
            Value(cell.settings, code=True),
        ]
        for cell in cells
    ]
    return Table("Cells: what they are, and what came out.", ("model", "cell", "id", "delta sha256", "settings"), body)
