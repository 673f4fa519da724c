"""What a board is made from: plain types that the harness fills from its store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ..harness.errors import UserError, suggest
from ..harness.records import Mark, Record
from .stats.arrays import Answers
from .stats.composite import Composite

Changes = Literal["weights", "decoding"]
CheckpointKind = Literal["method", "base", "noise", "import", "null", "reference"]
NULLS = ("base", "noise", "null", "reference")
"""Kinds in which nothing was unlearned: shown, never ranked."""
Role = Literal["original", "retain"]
"""What a checkpoint stands for on its track: the model before unlearning, or one trained without the forget text."""
LOG = "log"
"""The method of a reference that is stored values alone."""
Attached = Literal["noise", "replica"]
"""What a checkpoint may be to another: noise of its norm, or its training once more from weights a hair apart."""
IntervalKind = Literal["percentile", "bca"]
CheckpointStatus = Literal["ok", "failed", "pending"]


@dataclass(frozen=True)
class TaskInfo:
    """What a board must know of a task.

    Attributes:
        name: the task's name in the suite.
        metric: the key in `Record.scores` that the board reads; its values lie between 0 and `largest`.
        chance: what no knowledge scores; 0 for a rate.
        better: whether a model is more useful with a higher or a lower value.
        version: the task's version.
        description: one line for the list of facts.
        largest: the largest value of the metric; None: it has none.
        marks: what its marks say of a row; of a mark that is not here, a row says what it is called.
        chosen: the key in `Record.scores` of the place of the choice that was taken; None: nothing is chosen.

    `marks` and `chosen` serve to build a board and are no part of its JSON.
    """

    name: str
    metric: str
    chance: float
    better: Literal["higher", "lower"]
    version: int
    description: str = ""
    largest: float | None = 1.0
    marks: Mapping[str, Mark] = field(default_factory=dict)
    chosen: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what a board's JSON holds of it, as plain JSON types."""
        return {name: value for name, value in vars(self).items() if name not in ("marks", "chosen")}


@dataclass(frozen=True)
class TrackRoles:
    """The tasks of a track: what is to be forgotten, what is to be kept, and what is shown without a say in S.

    Attributes:
        forget_task, retain_task: those that S is made of.
        cross_tasks: the forget tasks of other tracks.
        controls: further tasks, such as a topic without forget text or the same questions in another form.
        neighbours: strata of the retain task that are next to the forget topic.
        compared: the row that all others are compared with: `base`, or `original` where methods start from that.
    """

    forget_task: str
    retain_task: str
    cross_tasks: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()
    compared: Literal["base", "original"] = "base"

    def to_json(self) -> dict[str, Any]:
        """Return what a board's JSON holds of it, as plain JSON types; `compared` where it is not base."""
        return {name: value for name, value in asdict(self).items() if name != "compared" or value != "base"}

    @property
    def tasks(self) -> tuple[str, ...]:
        """All tasks of the track, each once."""
        return tuple(dict.fromkeys((self.forget_task, self.retain_task, *self.cross_tasks, *self.controls)))


@dataclass(frozen=True)
class Published:
    """What someone else reports: bare values, without intervals or seeds.

    Attributes:
        source: where they stand.
        values: model, track and row (variant or `base`) to S.
        alpha: model, track and variant to the final alpha.
    """

    source: str
    values: Mapping[str, Mapping[str, Mapping[str, float]]]
    alpha: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A measured (or failed, or pending) checkpoint.

    Attributes:
        model: the base model's name.
        track: the track it was made for; None: it stands on every track (the base, an import).
        method: registered name of the method (`base`, `noise` for those kinds).
        variant: the name on the board.
        kind: `method` and `import` rows are ranked, `base` and `noise` rows are what they are compared with, `null`
            rows show what else nothing scores, `reference` rows what a checkpoint of a `role` does.
        seed: training seed; None where nothing was trained.
        cell: the cell's id.
        status: `ok` (measured), `failed` or `pending`.
        failure: why it failed, or why a control task has no score, one line.
        records: task name to records, one an item, or to the arrays made of them.
        alpha: the weight of the retain loss at the end of training, where the method has one that may move.
        warnings: what the harness has to say about it, in words.
        stress: what it was put through, by name; its `variant` is then that of its row, `+` and this name.
        changes: `decoding` where the base's weights stand and its logits are changed as it answers.
        texts: task name to what its continuations have in common, of `audit.audit_texts`.
        missing: task name to why items of it have no score, one line.
        beside: what it is to the checkpoint `of`: `noise` (kind `noise`) of that one's norm, tensor by tensor, or
            `replica` (kind `method`), trained like it from weights a hair apart; None: it is a row's own. Both are
            measured on the forget and retain tasks of their tracks alone, and are put through no stress.
        of: the cell id of the checkpoint that it belongs to; None where `beside` is None.
        role: what it stands for on its track (kind `reference`, or `base` where that is the original); None: nothing.
    """

    model: str
    track: str | None
    method: str
    variant: str
    kind: CheckpointKind
    seed: int | None
    cell: str
    status: CheckpointStatus = "ok"
    failure: str | None = None
    records: Mapping[str, Sequence[Record] | Answers] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    alpha: float | None = None
    texts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    stress: str | None = None
    changes: Changes = "weights"
    beside: Attached | None = None
    of: str | None = None
    role: Role | None = None


@dataclass(frozen=True)
class BoardSpec:
    """What a board covers and how its intervals are computed.

    Attributes:
        suite, revision, description: the suite's.
        tracks: track name to its tasks.
        tasks: task name to what the board must know of it.
        resamples, confidence, seed: of the bootstrap.
        interval: the ends of the intervals of single values and differences, percentiles or BCa.
        margin: loss of the retain metric against base that counts as utility kept; within it S counts as equivalent.
        limit: items a task, where not all were asked.
        facts: shown as a list (data, scorer, engine, what settings were tuned on ...).
        command: how to reproduce the board.
        published: values of others, shown beside.
        stress: what every checkpoint was put through too, by name, with what it is.
        composites: statistics of scores of one or several tasks and checkpoints, by name.

    Raises:
        UserError: a track names an unknown task, a chance level outside [0, 1), or a retain task of which less is
            better (S-unlearning is not defined for it).
    """

    suite: str
    revision: int
    description: str
    tracks: Mapping[str, TrackRoles]
    tasks: Mapping[str, TaskInfo]
    resamples: int = 10_000
    confidence: float = 0.95
    seed: int = 0
    interval: IntervalKind = "percentile"
    margin: float = 0.02
    limit: int | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    published: Published | None = None
    stress: Mapping[str, str] = field(default_factory=dict)
    composites: Mapping[str, Composite] = field(default_factory=dict)

    def compared(self, *tracks: str) -> str:
        """Return what rows of some tracks (none: of all) are compared with: `base`, `original`, `base or original`."""
        return " or ".join(sorted({self.tracks[track].compared for track in tracks or self.tracks}))

    def __post_init__(self) -> None:
        for track, roles in self.tracks.items():
            for name in roles.tasks:
                if name not in self.tasks:
                    raise UserError(f"Track {track!r} names the task {name!r}.{suggest(name, self.tasks)}")
            if self.tasks[roles.retain_task].better == "lower":
                raise UserError(
                    f"Track {track!r}: the retain task {roles.retain_task!r} is better when lower; "
                    "S-unlearning needs an accuracy-like retain metric."
                )
        for info in self.tasks.values():
            if not 0 <= info.chance < 1:
                raise UserError(f"Task {info.name!r}: chance must lie in [0, 1), got {info.chance}.")
        if self.resamples < 1 or not 0.5 < self.confidence < 1:
            raise UserError("A board needs at least one resample and a confidence between 0.5 and 1.")
        if not 0 < self.margin < 1:
            raise UserError(f"The margin of utility must lie between 0 and 1, got {self.margin}.")
