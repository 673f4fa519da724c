"""The shape of a comparison: two sides, and what changed between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ...leaderboards.board import Board
from ...leaderboards.schema import CompositeTable, Interval, Row
from ...leaderboards.spec import BoardSpec, Checkpoint
from .judgement import Reproduction, Training

Facts = Mapping[str, str]
Key = tuple[str, str, str]  # model, track, variant
Change = Literal["same", "within noise", "better", "worse", "moved", "no interval", "not judged"]
Outcome = Literal["compared", "not comparable", "failed", "gained", "not measured"]


@dataclass(frozen=True)
class Side:
    """One of the two things that are compared.

    Attributes:
        name: what the reader calls it.
        spec: the spec of its board.
        identity: subject (`model micro`, `task wmdp`, ...) to what it is made from, as flat words.
        asked: (model, task) to all that must be equal for two numbers of the task to be comparable.
        checkpoints: what was measured; None where only a board is known.
        rows: the board's rows, where only that is known.
        trainings: where the checkpoints come from, by cell.
        composites: those of its board.
    """

    name: str
    spec: BoardSpec
    identity: Mapping[str, Facts]
    asked: Mapping[tuple[str, str], Facts]
    checkpoints: Sequence[Checkpoint] | None = None
    rows: Sequence[Row] = ()
    trainings: Mapping[str, Training] = field(default_factory=dict)
    composites: Sequence[CompositeTable] = ()

    @classmethod
    def of_board(cls, name: str, board: Board) -> Side:
        """Return what a board alone tells of itself."""
        spec = board.spec
        scorers = {key: value for key, value in spec.facts.items() if key.startswith(("scorer", "judge"))}
        chat = spec.facts.get("chat template", "off")
        by_task: dict[str, dict[str, str]] = {}
        for task, info in spec.tasks.items():
            by_task[task] = {"asked": info.description, "chat template": chat, **info_facts(spec, task)}
            if info.chance == 0:
                by_task[task]["scorer"] = "; ".join(scorers.values())
        identity = {"suite": {**suite_facts(spec), "command": spec.command}, "run": dict(spec.facts)}
        identity |= {f"task {task}": facts for task, facts in by_task.items()}
        models = {row["model"] for row in board.rows}
        return cls(
            name,
            spec,
            identity,
            {(model, task): facts for model in models for task, facts in by_task.items()},
            rows=board.rows,
            composites=board.composites,
        )


@dataclass(frozen=True)
class Difference:
    """What changed between two facts, and of which subjects."""

    what: str
    where: list[str]
    a: str | None
    b: str | None


@dataclass(frozen=True)
class Quantity:
    """S, forget or retain on both sides. `items` were scored on both, `changed` of them with another score.

    `change` is `moved` where a null row (base, noise) moved in S or forget: for it neither way is better; it is `not
    judged` where the row has fewer than three seeds and they are not the same checkpoints.
    """

    name: str
    task: str | None
    a: float
    b: float
    difference: Interval
    change: Change
    items: int | None = None
    changed: int | None = None


@dataclass(frozen=True)
class RowComparison:
    """A row of both sides.

    `reason` says what could not be compared and why, `unjudged` why differences are not judged; `notes` what a reader
    must know. `reproduction` is there where both sides are trainings of the same settings and seeds.
    """

    model: str
    track: str
    variant: str
    kind: str
    outcome: Outcome
    reason: str | None = None
    seeds: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    quantities: list[Quantity] = field(default_factory=list)
    unjudged: str | None = None
    reproduction: Reproduction | None = None

    @property
    def open(self) -> bool:
        """Whether something came out differently that is not judged."""
        return any(quantity.change == "not judged" for quantity in self.quantities)


@dataclass(frozen=True)
class CompositeComparison:
    """A composite of a row on both sides.

    `difference` is that of independent estimates, its interval at the boards' confidence for itself alone: a composite
    is of several checkpoints (its reference's too), which a comparison does not pair. It is None where `reason` says
    why the values are not comparable, or where the composite's intervals say nothing of differences.
    """

    model: str
    track: str
    variant: str
    name: str
    a: Interval
    b: Interval
    difference: Interval | None
    reason: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Two sides of one suite. `composites` have no say in what it comes to."""

    suite: str
    paired: bool
    confidence: float
    identity: list[Difference]
    rows: list[RowComparison]
    only_a: list[str]
    only_b: list[str]
    composites: list[CompositeComparison] = field(default_factory=list)

    def changes(self, *kinds: Change) -> list[tuple[RowComparison, Quantity]]:
        """Return the quantities that changed in one of these ways."""
        return [(row, quantity) for row in self.rows for quantity in row.quantities if quantity.change in kinds]


def suite_facts(spec: BoardSpec) -> dict[str, str]:
    """Return what of a suite and its intervals may change between two runs."""
    return {
        "revision": str(spec.revision),
        "limit": str(spec.limit),
        "tasks": ", ".join(sorted(spec.tasks)),
        "bootstrap": f"{spec.resamples} resamples, confidence {spec.confidence:g}, seed {spec.seed}",
        **{f"track {name}": f"{roles.forget_task} / {roles.retain_task}" for name, roles in spec.tracks.items()},
    }


def info_facts(spec: BoardSpec, task: str) -> dict[str, str]:
    """Return how a task's number is read: its version, metric, chance level and direction."""
    info = spec.tasks[task]
    return {
        "task version": str(info.version),
        "metric": info.metric,
        "chance": f"{info.chance:g}",
        "better": info.better,
    }
