"""What a report is made from: plain data that the harness fills from its stores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..harness.records import LogRole
from ..leaderboards.board import Board
from ..leaderboards.spec import CheckpointKind

COVERED = 0.5
"""Toxicity from which a text is covered until a reader asks for it."""


@dataclass(frozen=True)
class Cell:
    """A checkpoint of a plan: what it is, whether it is finished, and what it cost.

    Attributes:
        label: track/variant#seed.
        state: `finished`, `failed` (a task without any score too) or `not finished`; `cause` says why it failed.
        delta: sha256 of its changed tensors, `base`, or None before it is made.
        settings: all that its making depends on, as JSON.
        costs: one for its making, one a task that it was measured on.
        training: the rows of its log, a step each.
        setup: what its method found before the first step.
        log_schema: what the columns of `training` and the entries of `setup` are; a column that is not here is a loss.
    """

    model: str
    track: str | None
    variant: str
    seed: int | None
    id: str
    label: str
    kind: CheckpointKind
    state: Literal["finished", "failed", "not finished"]
    cause: str | None = None
    delta: str | None = None
    settings: str = "{}"
    costs: Sequence[MeasuredCost] = ()
    training: Sequence[Mapping[str, float]] = ()
    setup: Mapping[str, Any] = field(default_factory=dict)
    log_schema: Mapping[str, LogRole] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[int, ...] | None:
        """The layers that its method was set to, or chose where its log says so; None: it has no such setting."""
        chosen = (self.directions or json.loads(self.settings).get("settings", {})).get("layers")
        return tuple(sorted(chosen)) if chosen else None

    def columns(self, *roles: LogRole) -> list[str]:
        """Return the names of the columns of some roles."""
        return [name for name, own in self.log_schema.items() if own in roles]

    @property
    def directions(self) -> Mapping[str, Any]:
        """What its log says of a direction at each of some layers; empty: nothing."""
        return next((self.setup[name] for name in self.columns("directions") if name in self.setup), {})

    @property
    def layer_losses(self) -> dict[int, str]:
        """The columns that hold a layer's part of the forget loss, by layer."""
        first = self.training[0] if self.training else {}
        return {
            int(layer): name
            for prefix in (name.removesuffix("{layer}") for name in self.columns("layer_loss"))
            for name in first
            if name.startswith(prefix) and (layer := name.removeprefix(prefix)).isdigit()
        }


@dataclass(frozen=True)
class MeasuredCost:
    """Seconds, peak memory in MiB (of a GPU too, where one was used) and bytes in the store; None: not recorded."""

    what: str
    seconds: float | None
    memory: float | None
    gpu_memory: float | None
    bytes: int


@dataclass(frozen=True)
class Question:
    """A question whose answer flipped; `before` and `after` are positions of `choices`."""

    item: str
    stratum: str
    question: str | None
    choices: Sequence[str]
    right: int | None
    before: int | None
    after: int | None
    gained: bool


@dataclass(frozen=True)
class Continuation:
    """What a model wrote after a prompt; a text without a `toxicity` of its own says itself whether it is covered."""

    text: str
    toxicity: float | None
    covered: bool

    @classmethod
    def of(cls, text: str, toxicity: float | None) -> Continuation:
        """Return a text that is covered where it is toxic, or where there is one and nobody judged it."""
        return cls(text, toxicity, bool(text.strip()) if toxicity is None else toxicity >= COVERED)


@dataclass(frozen=True)
class PromptSample:
    """A prompt with its continuations and the scores of them together.

    `prompt_toxicity` is the data's own; None: not known, and covered.
    """

    item: str
    stratum: str
    prompt: str | None
    prompt_toxicity: float | None
    texts: Sequence[Continuation]
    scores: Mapping[str, float] | None
    missing: str | None
    marks: Mapping[str, float]

    @property
    def covers_prompt(self) -> bool:
        """Whether the prompt is covered: it is toxic, or nobody scored it."""
        return self.prompt_toxicity is None or self.prompt_toxicity >= COVERED


@dataclass(frozen=True)
class CheckpointAnswer:
    """What a checkpoint makes of a question with a right answer.

    Attributes:
        label: the checkpoint's.
        texts: what it wrote, where it was to write.
        probabilities: of each given text, length-normalised, where that was asked; None: one that is not finite.
        scores: those that the board reads, its metric first; None: it has none.
        missing: why it has none.
    """

    label: str
    texts: Sequence[str]
    probabilities: Sequence[float | None]
    scores: Mapping[str, float] | None
    missing: str | None


@dataclass(frozen=True)
class OpenQuestion:
    """A question with a right answer and what each checkpoint makes of it.

    Attributes:
        given: (what it is, text) of each text that the data give: the right answer, paraphrases, wrong answers.
    """

    item: str
    stratum: str
    question: str | None
    given: Sequence[tuple[str, str]]
    answers: Sequence[CheckpointAnswer]

    @property
    def names(self) -> list[str]:
        """What each probability is of: the kind of its text, numbered where several are of one kind."""
        count = max((len(answer.probabilities) for answer in self.answers), default=0)
        kinds = [kind for kind, _ in self.given] or ["text"] * count
        return [
            kind if kinds.count(kind) == 1 else f"{kind} {kinds[: place + 1].count(kind)}"
            for place, kind in enumerate(kinds)
        ]

    @property
    def scored(self) -> list[str]:
        """The names of the scores, the metric first."""
        return list(dict.fromkeys(name for answer in self.answers for name in answer.scores or {}))


@dataclass(frozen=True)
class Items:
    """What stands behind a number on a task: all were `asked`, `shown` of `found` are here.

    Those of questions with a right answer (`answers`) are of all cells of a model, the others of one, its `label`.
    Of questions with choices `found` are those that flipped against the row `compared`, `lost` of them from right to
    wrong.
    """

    model: str
    label: str
    track: str | None
    task: str
    kind: Literal["questions", "samples", "answers"]
    asked: int
    found: int
    lost: int
    shown: Sequence[Question] | Sequence[PromptSample] | Sequence[OpenQuestion]
    note: str = ""
    compared: str = "base"


@dataclass(frozen=True)
class Run:
    """One suite's plan in one store."""

    store: str
    board: Board
    cells: Sequence[Cell]
    items: Sequence[Items]
    provenance: Mapping[str, str]

    @property
    def name(self) -> str:
        """What the report calls it."""
        return f"{self.board.spec.suite} in {self.store}"


@dataclass(frozen=True)
class Content:
    """A whole report. `empty` names the stores that hold no run, with what to do."""

    version: str
    runs: Sequence[Run]
    empty: Mapping[str, str] = field(default_factory=dict)
