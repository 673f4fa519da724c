"""The shape of a board in JSON (schema 1), and reading it back. What does not exist is null."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal, TypedDict, cast

from ..harness.errors import UserError
from .spec import BoardSpec

SCHEMA = 1
DIGITS = 6
SMALLEST = 1e-6
"""The smallest p that a board shows: it would be rounded to 0, which no p is."""
Status = Literal["ok", "failed", "partial"]


class Interval(TypedDict):
    """A value with its interval; `low` and `high` are null where the data do not allow an interval."""

    value: float
    low: float | None
    high: float | None


class RankInterval(TypedDict):
    """Ranks that a row may hold, and its tie group."""

    low: int
    high: int
    group: int


class Component(TypedDict):
    """A task's number. `n`: items with a score in every finished seed; `missing`: the other items that were asked.

    `interval` says where `low` and `high` come from: `bootstrap`, or `exact` where all items score 0, or all 1, so that
    resamples could not differ (older boards: `wilson`). `also` holds the means of the task's other scores, `strata`
    those of this score by stratum (forget tasks only), and `strata_intervals` the same with intervals where there are
    two to six strata.
    """

    task: str
    metric: str
    value: float
    low: float | None
    high: float | None
    interval: Literal["bootstrap", "exact", "wilson"]
    n: int
    n_clusters: int
    missing: int
    delta_base: Interval | None
    delta_noise: Interval | None
    also: dict[str, float]
    strata: dict[str, float]
    strata_intervals: dict[str, Interval]


class PairedTest(TypedDict):
    """A test that a row's metric is that of `against`, base or its own noise; `n` items are scored by all checkpoints.

    `p` is two-sided, `p_holm` corrected for all comparisons of the (model, track) table; below `SMALLEST` both read as
    that. `minimum_detectable` is the true difference that a test at the board's confidence finds with 80 % power.
    """

    against: str
    test: Literal["mcnemar", "permutation"]
    n: int
    p: float
    p_holm: float
    minimum_detectable: float | None


class Tests(TypedDict):
    """Comparisons of a ranked row's forget and retain metrics with base, and with its own noise."""

    forget: PairedTest | None
    retain: PairedTest | None
    forget_noise: PairedTest | None
    retain_noise: PairedTest | None


class NoiseShares(TypedDict):
    """Shares of the variance of S that come from its items and from its training seeds."""

    items: float
    seeds: float


class Unclipped(TypedDict):
    """Ubar and Rbar before they are cut to [0, 1]."""

    forget: Interval | None
    retain: Interval | None


class Claims(TypedDict):
    """Differences of S from base and own noise with intervals that hold for all ranked rows of the table together."""

    base: Interval | None
    noise: Interval | None


class Utility(TypedDict):
    """Whether a row keeps base's utility: non-inferiority within a margin of the retain metric.

    `low` is the lower limit of retain less base, `kept` whether it lies above -`margin`, `lost` whether the upper limit
    lies below it, and `power` in how many cases of all a row that equals base would be found to keep it, at this row's
    spread.
    """

    low: float
    margin: float
    kept: bool
    lost: bool
    power: float


class Relative(TypedDict):
    """What a row forgot and kept of what base has (see `relative`)."""

    harmonic_mean: Interval | None
    difference: Interval | None


class Replica(TypedDict):
    """The same training from weights moved by a millionth: its S and metrics."""

    seed: int | None
    s_unlearning: float
    forget: float
    retain: float


class Selectivity(TypedDict):
    """The retain metric on the strata next to the forget topic (`near`) and on the others (`rest`).

    The deltas are from base; `gap` is `near_delta` less `rest_delta`: below zero, what lies next to the topic lost
    more than the rest.
    """

    task: str
    neighbours: list[str]
    near: Interval
    rest: Interval
    near_delta: Interval | None
    rest_delta: Interval | None
    gap: Interval | None


class Alpha(TypedDict):
    """Final alpha of each finished seed that has one, and the published value."""

    values: list[float]
    published: float | None


class Stressed(TypedDict):
    """What a row's checkpoints come to under a stress; the deltas are from base under the same stress.

    `remaining` is the share of the forgetting that is left (see `stress`); where it is null, `note` says why. `cells`
    are the derived ones, `planned` their number, `finished` those that are measured.
    """

    s_unlearning: Interval | None
    forget: Interval | None
    retain: Interval | None
    s_delta_base: Interval | None
    forget_delta_base: Interval | None
    retain_delta_base: Interval | None
    remaining: Interval | None
    note: str
    planned: int
    finished: int
    cells: list[str]


class Row(TypedDict):
    """One row of a board: a variant of a model on a track.

    `changes` is `decoding` where the base's weights stand and its logits are changed as it answers (see `notes`).
    `seeds` are the finished training seeds (empty: not trained), `planned` the number of checkpoints that the row was
    to have, `speaks_of` what the interval is about: items only (`checkpoint`) or training seeds too (`method`).
    `controls` are tasks without a say in S, `published` is the S that someone else reports for the same row. `claims`
    are what the verdict goes by. `stress` is what remains after each, by name. `marks` are means over items and seeds
    of shares of their answers, `audit` holds what answers have in common over items (see `audit`), by task.

    `noise` is S of the row's own noise, `seed_range` the smallest and largest S of a seed, `equivalent` whether S is
    shown to lie within the margin of base's. `broken` is the share of answers to the forget task that are none, where
    it costs the row its S; `raw_s` is what S would be. `unstable` says why another run may give another value,
    `uniform_gain` (base only) by how much damage that hits both tasks alike could raise S.
    """

    model: str
    track: str
    method: str
    variant: str
    kind: str
    changes: Literal["weights", "decoding"]
    status: Status
    seeds: list[int]
    planned: int
    finished: int
    speaks_of: Literal["checkpoint", "method"]
    s_unlearning: Interval | None
    delta_base: Interval | None
    delta_noise: Interval | None
    noise: Interval | None
    claims: Claims | None
    utility: Utility | None
    equivalent: bool | None
    relative: Relative | None
    seed_range: list[float] | None
    replicas: list[Replica]
    unstable: str | None
    broken: float | None
    raw_s: Interval | None
    uniform_gain: float | None
    noise_shares: NoiseShares | None
    tests: Tests | None
    rank: RankInterval | None
    forget: Component | None
    retain: Component | None
    selectivity: Selectivity | None
    cross: list[Component]
    controls: list[Component]
    published: float | None
    alpha: Alpha | None
    unclipped: Unclipped | None
    stress: dict[str, Stressed]
    marks: dict[str, dict[str, float]]
    audit: dict[str, dict[str, float]]
    warnings: list[str]
    cells: list[str]


class Interaction(Interval):
    """How much higher `method` stands above `other` on `track` than on `other_track`; intervals hold together."""

    method: str
    other: str
    track: str
    other_track: str


class Goals(TypedDict):
    """Whether the best method depends on the track (see `goals`).

    `s` is S by variant and track, `best` the variants that may be the best of a track. `differs` is the share of
    resamples of items and seeds in which two tracks differ in the method with the highest S: a description, no
    confidence, since it is high for methods that are all equal too. The statement is `answer`.
    """

    model: str
    tracks: list[str]
    s: dict[str, dict[str, Interval | None]]
    interactions: list[Interaction]
    best: dict[str, list[str]]
    differs: float | None
    answer: Literal["differs", "same", "cannot tell"]
    sentence: str


class Swept(TypedDict):
    """A method on its frontier at the level: `curve` are its variants on the hull, `at` those that make the value.

    `settings` counts the swept variants; noise has one, and stands beside as what no method is.
    """

    method: str
    settings: int
    seeds: int
    curve: list[str]
    at: list[str]
    forgetting: Interval


class Gain(Interval):
    """How much more `method` forgets than `other` at the level; the intervals of a frontier hold together."""

    method: str
    other: str


class Frontier(TypedDict):
    """Swept methods of a model and track at equal utility: `tolerance` of the retain metric below base."""

    model: str
    track: str
    tolerance: float
    utility: float
    methods: list[Swept]
    gains: list[Gain]
    sentence: str


class CompositeValue(TypedDict):
    """A composite of a row, null with what is `missing` where it has none.

    `p` are those of the data, one a checkpoint (and reference), where the statistic has a p. `delta_base` (from the
    original where rows are compared with that) is null where differences of its resamples say nothing. `n` counts the
    items of its smallest part, `checkpoints` those it is of.
    """

    value: Interval | None
    p: list[float]
    delta_base: Interval | None
    n: int
    checkpoints: int
    missing: str | None


class CompositeRow(TypedDict):
    """The composites of a row by name; `role` is what its checkpoints stand for on the track."""

    variant: str
    kind: str
    role: Literal["original", "retain"] | None
    values: dict[str, CompositeValue]


class CompositeTable(TypedDict):
    """The composites of a model and track: references and base first, then the rows as the board has them.

    `better` says of each composite which way a row is better, null where neither.
    """

    model: str
    track: str
    better: dict[str, Literal["higher", "lower"] | None]
    rows: list[CompositeRow]


class Verdict(TypedDict):
    """What a track shows.

    `winners` are the methods of three seeds or more that beat base and their own noise with utility kept, `leads` the
    checkpoints that do so and are not replicated; `others` says why the rest does not.
    """

    model: str
    track: str
    winners: list[str]
    leads: list[str]
    others: dict[str, str]
    sentence: str


@dataclass(frozen=True)
class BoardData:
    """What anyone reads. Rows and verdicts are plain JSON types, rounded, in the order in which they are shown."""

    spec: BoardSpec
    rows: list[Row]
    verdicts: list[Verdict]
    goals: list[Goals] = field(default_factory=list)
    frontiers: list[Frontier] = field(default_factory=list)
    composites: list[CompositeTable] = field(default_factory=list)

    def tables(self) -> Iterator[tuple[tuple[str, str], list[Row]]]:
        """Yield (model, track) with its rows."""
        for key, group in groupby(self.rows, key=lambda row: (row["model"], row["track"])):
            yield key, list(group)

    def sentences(self) -> dict[tuple[str, str], str]:
        """Return what is claimed of each (model, track)."""
        return {(verdict["model"], verdict["track"]): verdict["sentence"] for verdict in self.verdicts}


ADDED: dict[str, Any] = {
    "changes": "weights",
    "controls": [],
    "published": None,
    "alpha": None,
    "noise_shares": None,
    "tests": None,
    "claims": None,
    "utility": None,
    "equivalent": None,
    "relative": None,
    "seed_range": None,
    "replicas": [],
    "unstable": None,
    "broken": None,
    "raw_s": None,
    "uniform_gain": None,
    "selectivity": None,
    "stress": {},
    "audit": {},
}
"""Keys that rows of older boards of this schema lack, as they read there."""


def components(row: Row) -> list[Component]:
    """Return every task's number that a row holds."""
    return [part for part in (row["forget"], row["retain"], *row["cross"], *row["controls"]) if part is not None]


def comparisons(row: Row) -> list[tuple[Component, PairedTest]]:
    """Return every test that a row holds, with what it tests, in the order of `Tests`."""
    tests, forget, retain = row["tests"], row["forget"], row["retain"]
    if tests is None or forget is None or retain is None:
        return []
    pairs = [
        (forget, tests["forget"]),
        (retain, tests["retain"]),
        (forget, tests["forget_noise"]),
        (retain, tests["retain_noise"]),
    ]
    return [(part, comparison) for part, comparison in pairs if comparison is not None]


def rounded(value: Any) -> Any:
    """Return plain JSON types with floats rounded to six digits (no negative zero), for one way of printing."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a board cannot hold {value}")
        return round(value, DIGITS) + 0.0
    if isinstance(value, Mapping):
        return {str(key): rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value


def encode(value: Any) -> str:
    """Return JSON text in one way only: sorted keys, two spaces, a newline at the end."""
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def decode(text: str, where: str) -> dict[str, Any]:
    """Parse and check a board's JSON.

    Raises:
        UserError: not JSON, not a board, another schema, or rows that lack keys (named).
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON (line {error.lineno}: {error.msg}).") from None
    if not isinstance(value, dict) or "schema" not in value or "rows" not in value:
        raise UserError(f"{where} is not a board: it needs the keys 'schema' and 'rows'.")
    if value["schema"] != SCHEMA:
        raise UserError(
            f"{where} has schema {value['schema']!r}, this version reads {SCHEMA}. "
            "Build the board again from its store with `unlearn-bench leaderboard`."
        )
    _require(value, ("suite", "revision", "tracks", "tasks", "bootstrap", "verdicts"), where)
    value["rows"] = [{**ADDED, **row} if isinstance(row, dict) else row for row in value["rows"]]
    for row in value["rows"]:
        if isinstance(row, dict) and isinstance(row.get("noise"), str):
            row["noise"] = None
    for number, row in enumerate(value["rows"]):
        _require(row, tuple(Row.__annotations__), f"{where}: row {number}")
        for part in components(cast(Row, row)):
            part.setdefault("strata_intervals", {})
            part.setdefault("interval", "bootstrap")
    value.setdefault("goals", [])
    value.setdefault("frontiers", [])
    value.setdefault("composites", [])
    for number, verdict in enumerate(value["verdicts"]):
        if isinstance(verdict, dict):
            verdict.setdefault("leads", [])
        _require(verdict, tuple(Verdict.__annotations__), f"{where}: verdict {number}")
    return value


def _require(value: Any, keys: tuple[str, ...], where: str) -> None:
    mapping = value if isinstance(value, dict) else {}
    missing = [key for key in keys if key not in mapping]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}; build the board again from its store.")
