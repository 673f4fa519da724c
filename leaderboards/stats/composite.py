"""Composites as a suite writes them: a registered statistic of scores, of other composites and of numbers.

    forget_quality: {statistic: ks, of: {unlearned: forget.truth_ratio, retain: forget.truth_ratio}}
    auc_loss:       {statistic: auc, of: {forget: forget.loss, holdout: holdout.loss}}
    privleak:       {statistic: privleak, of: {unlearned: auc_loss, retain: auc_loss}}
    kept:           {statistic: quotient, of: [utility, utility@original]}

An argument is of the row's own checkpoint, unless it is called `retain`, `original` or `base` or its text ends in
`@ROLE`: then it is of the checkpoint with that role. `1 - ` before a name takes it from 1. Where items are asked for,
`TASK.SCORE - TASK.SCORE@ROLE` is the score of an item less the one that the checkpoint with that role has there (with
several of the role, the mean of theirs).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...harness.errors import UserError, suggest
from .formula import Better, Formula, statistics

ROLES = ("original", "retain", "base")
OPERAND = re.compile(rf"(?P<less>1 *- *)?(?P<name>.+?)(?:@(?P<role>{'|'.join(ROLES)}))?")
DIFFERENCE = re.compile(rf"(?P<name>.+?) - (?P=name)@(?P<role>{'|'.join(ROLES)})")
CONDITION = re.compile(r"(?P<name>.+?) *(?P<sign><=|>=|==|<|>) *(?P<bound>[-+.\deE]+)")


@dataclass(frozen=True)
class Composite:
    """A composite in plain JSON types.

    Attributes:
        statistic: registered name.
        of: argument to what it is given, or what its arguments are given in their order: `TASK.SCORE`, the name of
            another composite, or a number.
        settings: keyword arguments of the statistic.
        where: role to conditions `TASK.SCORE >= 0.5` on its record of an item: the items of that task that all hold for
            count. With several checkpoints of the role the mean of their scores is held to them.
        better: which way a row is better; None: the statistic's own.
        tracks: where it is shown; None: on every track that has all of its tasks.
        description: what a reader is told of it.
        inherited: of a suite that this one extends: where no track has its tasks it is left out.
        place: where it is shown among the others.
    """

    statistic: str
    of: Mapping[str, str | float] | Sequence[str | float]
    settings: Mapping[str, Any] = field(default_factory=dict)
    where: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    better: Better | None = None
    tracks: Sequence[str] | None = None
    description: str = ""
    inherited: bool = False
    place: int = 0


@dataclass(frozen=True)
class Score:
    """A score of a task."""

    task: str
    name: str


@dataclass(frozen=True)
class Operand:
    """What an argument is given: a score, another composite's value or a number; of whom, and whether 1 less it.

    `beside`: the role whose score of the same item is taken off.
    """

    of: Score | str | float
    role: str | None
    less: bool
    beside: str | None = None


@dataclass(frozen=True)
class Condition:
    """What a record of an item under a role is held to."""

    role: str
    score: Score
    sign: str
    bound: float


@dataclass(frozen=True)
class Definition:
    """A composite that was read.

    Attributes:
        formula: its statistic.
        arguments: (name, operand) in the order of the statistic's.
        settings: of the statistic.
        conditions: that items are held to.
        better: which way a row is better.
        scores: of all tasks behind it, those of composites in it too.
        paired: whether differences of its resamples are those of differences.
        tracks: where it is shown.
    """

    formula: Formula
    arguments: tuple[tuple[str, Operand], ...]
    settings: Mapping[str, Any]
    conditions: tuple[Condition, ...]
    better: Better | None
    scores: tuple[Score, ...]
    paired: bool
    tracks: tuple[str, ...]


def definitions(
    composites: Mapping[str, Composite], tasks: Iterable[str], tracks: Mapping[str, Iterable[str]]
) -> dict[str, Definition]:
    """Return what composites say, each after those that it is made of.

    Args:
        composites: by name.
        tasks: names of the suite's tasks.
        tracks: track to its tasks.

    Raises:
        UserError: an unknown statistic, argument, setting, task or composite, a circle, or a composite that no track
            has the tasks of.
    """
    reader = _Reader(composites, sorted(tasks, key=len, reverse=True), {t: set(own) for t, own in tracks.items()})
    for name in composites:
        reader.read(name, ())
    return reader.known


class _Reader:
    def __init__(self, composites: Mapping[str, Composite], tasks: Sequence[str], tracks: Mapping[str, set[str]]):
        self.composites, self.tasks, self.tracks = composites, tasks, tracks
        self.known: dict[str, Definition] = {}

    def read(self, name: str, above: tuple[str, ...]) -> Definition:
        if name in above:
            raise UserError(f"Composite {name!r} is made of itself: {' of '.join((*above, name))}; break the circle.")
        if name not in self.known:
            self.known[name] = self._definition(name, self.composites[name], (*above, name))
        return self.known[name]

    def _definition(self, name: str, composite: Composite, above: tuple[str, ...]) -> Definition:
        where = f"Composite {name!r}"
        formula = statistics.get(composite.statistic)
        arguments = tuple((key, self._operand(where, key, text)) for key, text in _arguments(where, composite, formula))
        unknown = [key for key in composite.settings if key not in formula.settings]
        if unknown:
            told = suggest(unknown[0], formula.settings)
            raise UserError(f"{where}: {composite.statistic} has no setting {unknown[0]!r}.{told}")
        for key, operand in arguments:
            if key in formula.samples and not isinstance(operand.of, Score):
                raise UserError(f"{where}: {key!r} is computed of items; name a score of a task, TASK.SCORE.")
            if operand.beside and key not in formula.samples:
                raise UserError(f"{where}: {key!r} is a number, and no difference of items; take `- …@ROLE` away.")
        inner = [self.read(operand.of, above) for _, operand in arguments if isinstance(operand.of, str)]
        conditions = tuple(self._conditions(where, composite))
        own = [operand.of for _, operand in arguments if isinstance(operand.of, Score)]
        scores = [*own, *(condition.score for condition in conditions), *(s for one in inner for s in one.scores)]
        return Definition(
            formula,
            arguments,
            composite.settings,
            conditions,
            composite.better or formula.better,
            tuple(dict.fromkeys(scores)),
            formula.paired and all(one.paired for one in inner),
            self._tracks(where, composite, {score.task for score in scores}),
        )

    def _tracks(self, where: str, composite: Composite, tasks: set[str]) -> tuple[str, ...]:
        for track in composite.tracks or ():
            if track not in self.tracks:
                raise UserError(f"{where} names the track {track!r}.{suggest(track, self.tracks)}")
        chosen = self.tracks if composite.tracks is None else composite.tracks
        able = tuple(track for track in chosen if tasks <= self.tracks[track])
        if not able and composite.inherited:
            return ()
        if not able or (composite.tracks is not None and len(able) < len(composite.tracks)):
            lacking = min((sorted(tasks - self.tracks[track]) for track in chosen if track not in able), key=len)
            raise UserError(f"{where} needs {', '.join(lacking)}: add it to the `controls` of the track it is for.")
        return able

    def _operand(self, where: str, key: str, text: str | float) -> Operand:
        if isinstance(text, int | float):
            return Operand(float(text), None, less=False)
        own_role = key if key in ROLES else None
        if beside := DIFFERENCE.fullmatch(text.strip()):
            return Operand(self._score(where, beside["name"]), own_role, less=False, beside=beside["role"])
        matched = OPERAND.fullmatch(text.strip())
        if matched is None:
            raise UserError(f"{where}: {key!r} is empty; name a score of a task, TASK.SCORE, or another composite.")
        name, role = matched["name"], matched["role"] or own_role
        of = name if name in self.composites else self._score(where, name)
        return Operand(of, role, less=matched["less"] is not None)

    def _score(self, where: str, name: str) -> Score:
        task = next((task for task in self.tasks if name.startswith(f"{task}.")), None)
        if task is None:
            known = [*(f"{task}.SCORE" for task in self.tasks), *self.composites]
            raise UserError(f"{where}: {name!r} is neither TASK.SCORE nor a composite.{suggest(name, known)}")
        return Score(task, name.removeprefix(f"{task}."))

    def _conditions(self, where: str, composite: Composite) -> Iterator[Condition]:
        for role, texts in composite.where.items():
            if role not in ROLES:
                raise UserError(f"{where}: `where` is said of a role.{suggest(role, ROLES)}")
            for text in [texts] if isinstance(texts, str) else texts:
                matched = CONDITION.fullmatch(text.strip())
                try:
                    bound = float(matched["bound"]) if matched else None
                except ValueError:
                    bound = None
                if matched is None or bound is None:
                    raise UserError(f"{where}: {text!r} is no condition; write TASK.SCORE >= 0.5.")
                yield Condition(role, self._score(where, matched["name"]), matched["sign"], bound)


def _arguments(where: str, composite: Composite, formula: Formula) -> list[tuple[str, str | float]]:
    """Return the arguments by name in the order of the statistic's; those of a `*name` are numbered."""
    of, name = composite.of, composite.statistic
    if formula.variadic:
        if not of:
            raise UserError(f"{where}: {name} is of nothing; give it what it is computed of.")
        return list(of.items()) if isinstance(of, Mapping) else [(str(k), text) for k, text in enumerate(of)]
    takes = ", ".join(formula.arguments)
    if not isinstance(of, Mapping):
        if len(of) > len(formula.arguments):
            raise UserError(f"{where}: {name} is of {takes}; it was given {len(of)}.")
        of = dict(zip(formula.arguments, of, strict=False))
    unknown = [key for key in of if key not in formula.arguments]
    if unknown:
        raise UserError(f"{where}: {name} is of {takes}; it knows no {unknown[0]!r}.")
    lacking = [key for key in formula.required if key not in of]
    if lacking:
        raise UserError(f"{where}: {name} is of {takes}; it was not given {', '.join(lacking)}.")
    return [(key, of[key]) for key in formula.arguments if key in of]
