"""Two stores, boards or cells side by side: what they are made from, what came out, and what is more than noise.

Where both sides have records, an item is compared with itself: all checkpoints of both sides share the draws of one
bootstrap, seeds are paired too, and the intervals of all differences hold together (max-t). From boards alone two
estimates are compared as if other items had been asked for each: d = b - a with

    low = d - sqrt((b - b_low)^2 + (a_high - a)^2),    high = d + sqrt((b_high - b)^2 + (a - a_low)^2),

the half-widths stretched to normal quantiles at which all hold together (Bonferroni). These intervals are wider.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy import stats

from ...harness.records import MANY
from ...leaderboards.rows.groups import RANKED, broken_share
from ...leaderboards.rows.resampling import Resamples
from ...leaderboards.schema import Component, Interval, Row
from ...leaderboards.spec import NULLS, Checkpoint, TrackRoles
from ...leaderboards.stats.arrays import Answers
from ...leaderboards.stats.intervals import SEEDS_FOR_METHOD, Estimate
from ...leaderboards.stats.metrics import Floats
from ...leaderboards.stats.simultaneous import simultaneous
from .composites import compare_composites, independent
from .judgement import Reproduction, Training, pooled_sd, unjudged
from .model import Change, Comparison, Difference, Facts, Key, Outcome, Quantity, RowComparison, Side

QUANTITIES = ("S", "forget", "retain")


@dataclass(frozen=True)
class Draft:
    """A quantity before its interval: `draws` are paired differences by seed, `sides` the intervals of two boards.

    `equal` says that not only the value but all that is known of it is the same on both sides.
    """

    name: str
    task: str | None
    a: float
    b: float
    equal: bool = False
    draws: Floats | None = None
    sides: tuple[Interval | Component, Interval | Component] | None = None
    items: int | None = None
    changed: int | None = None


class Sides:
    """What both ways of comparing share: which tasks two numbers may be compared on."""

    def __init__(self, a: Side, b: Side) -> None:
        self.sides = (a, b)

    def reason(self, model: str, task: str) -> str | None:
        """Return why the numbers of a task are not comparable on a model, None where they are."""
        a, b = (side.asked.get((model, task), {}) for side in self.sides)
        differ = [
            f"{key} {a.get(key, '–')} against {b.get(key, '–')}" for key in sorted({*a, *b}) if a.get(key) != b.get(key)
        ]
        return f"{task}: {'; '.join(differ)}" if differ else None

    @property
    def unlike(self) -> dict[tuple[str, str], str]:
        """Why the numbers of tasks are not comparable, by model and task; without those that are."""
        keys = dict.fromkeys(key for side in self.sides for key in side.asked)
        return {key: why for key in keys if (why := self.reason(*key))}

    def roles(self, track: str) -> TrackRoles | str:
        """Return the tasks of a track, or what differs."""
        a, b = (side.spec.tracks[track] for side in self.sides)
        pair = (a.forget_task, a.retain_task), (b.forget_task, b.retain_task)
        return a if pair[0] == pair[1] else f"the track asks {' / '.join(pair[0])} against {' / '.join(pair[1])}"

    def reasons(self, model: str, roles: TrackRoles) -> dict[str, str]:
        """Return why the quantities of a row are not comparable, by quantity; without those that are."""
        forget, retain = (self.reason(model, task) for task in (roles.forget_task, roles.retain_task))
        both = "; ".join(filter(None, (forget, retain)))
        return {name: why for name, why in zip(QUANTITIES, (both, forget, retain), strict=True) if why}


class Boards(Sides):
    """Two boards without records: independent estimates."""

    def keys(self, side: int) -> list[Key]:
        """Return the rows of a side in the order in which they are shown."""
        return [(row["model"], row["track"], row["variant"]) for row in self.sides[side].rows]

    def draft(self, key: Key) -> tuple[RowComparison, list[Draft]]:
        """Return a row of both sides with what of it can be compared."""
        model, track, variant = key
        a, b = (
            next(row for row in side.rows if (row["model"], row["track"], row["variant"]) == key) for side in self.sides
        )
        row = RowComparison(model, track, variant, b["kind"], "compared")
        settled = _settled(row, a["finished"] > 0, b["finished"] > 0, b["status"] == "failed")
        roles = self.roles(track)
        if settled is not None:
            return settled, []
        if isinstance(roles, str):
            return replace(row, outcome="not comparable", reason=roles), []
        reasons = self.reasons(model, roles)
        notes = []
        if a["seeds"] != b["seeds"]:
            notes.append(f"other training seeds: {_words(a['seeds'])} against {_words(b['seeds'])}")
        lost = ["some seeds failed"] if b["status"] != "ok" and b["finished"] < a["finished"] else []
        broken = _broken(a["broken"] is not None, b["broken"] is not None)
        notes += broken.notes
        drafts = []
        for name, field_name, task in _fields(roles):
            before, after = a[field_name], b[field_name]
            if name not in reasons and before is not None and after is not None:
                equal = all(before[key] == after[key] for key in ("value", "low", "high"))
                drafts.append(Draft(name, task, before["value"], after["value"], equal, sides=(before, after)))
        few = min(len(a["seeds"]), len(b["seeds"])) < SEEDS_FOR_METHOD
        row = replace(row, seeds=b["seeds"], notes=notes, lost=lost)
        if b["kind"] != "base" and drafts:
            row = replace(row, unjudged=self._unjudged(a, b) if few else None, reproduction=self._again(a, b, drafts))
        return _told(_lost(row, broken), reasons, drafts)

    def _unjudged(self, a: Row, b: Row) -> str:
        """Return why two rows are not judged: a board holds no bits of what was trained."""
        pairs = [(Training(one), Training(other)) for one, other in zip(a["cells"], b["cells"], strict=False)]
        facts = [side.spec.facts.get("measured with") for side in self.sides]
        machines = "; other machines or libraries (measured with, above)" if facts[0] != facts[1] else ""
        return f"{unjudged(pairs)}{machines}; boards do not say more, compare the stores"

    def _again(self, a: Row, b: Row, drafts: Sequence[Draft]) -> Reproduction | None:
        s = next((draft for draft in drafts if draft.name == "S"), None)
        again = s is not None and a["seeds"] == b["seeds"] and a["cells"] == b["cells"]
        return Reproduction.of(s.b - s.a, None) if again and s is not None else None

    def estimates(self, drafts: Sequence[Draft]) -> list[Estimate]:
        """Return differences with intervals that hold together."""
        confidence = self.sides[0].spec.confidence
        wanted = stats.norm.ppf(1 - (1 - confidence) / 2 / max(1, len(drafts)))
        stretch = [float(wanted / stats.norm.ppf((1 + side.spec.confidence) / 2)) for side in self.sides]
        return [_independent(draft, stretch) for draft in drafts]


def _independent(draft: Draft, stretch: Sequence[float]) -> Estimate:
    assert draft.sides is not None
    found = independent(*draft.sides, stretch)
    if found["low"] is None or found["high"] is None:
        return Estimate(found["value"], None, None)
    return Estimate(found["value"], max(found["low"], -1.0), min(found["high"], 1.0))


class Paired(Sides):
    """Two sets of records: one bootstrap for all checkpoints of both sides."""

    def __init__(self, a: Side, b: Side) -> None:
        super().__init__(a, b)
        shared = {task for model, task in a.asked if (model, task) in b.asked and not self.reason(model, task)}
        tracks = {
            name: TrackRoles(roles.forget_task, roles.retain_task)
            for name in a.spec.tracks
            if name in b.spec.tracks and isinstance(roles := self.roles(name), TrackRoles)
            if {roles.forget_task, roles.retain_task} <= shared
        }
        tasks = {name: info for name, info in a.spec.tasks.items() if name in shared}
        metrics = {name: info.metric for name, info in tasks.items()}
        pair, self.left_out = _common_items(a.checkpoints or (), b.checkpoints or (), metrics)
        self.evidence = Resamples(replace(a.spec, tracks=tracks, tasks=tasks, published=None), [*pair[0], *pair[1]])
        column = {id(checkpoint): k for k, checkpoint in enumerate(self.evidence.checkpoints)}
        self.groups = [
            self._groups(side, [column[id(checkpoint)] for checkpoint in pair[n]]) for n, side in enumerate(self.sides)
        ]

    def _groups(self, side: Side, columns: Sequence[int]) -> dict[Key, dict[int | None, int]]:
        groups: dict[Key, dict[int | None, int]] = {}
        for track in sorted(side.spec.tracks):
            for column in columns:
                checkpoint = self.evidence.checkpoints[column]
                if checkpoint.track in (None, track) and checkpoint.beside is None:
                    groups.setdefault((checkpoint.model, track, checkpoint.variant), {})[checkpoint.seed] = column
        return dict(sorted(groups.items(), key=lambda pair: (pair[0][:2], self._place(pair[1]), pair[0])))

    def _place(self, columns: Mapping[int | None, int]) -> int:
        kind = self.evidence.checkpoints[next(iter(columns.values()))].kind
        return (*NULLS, "method", "import").index(kind)

    def keys(self, side: int) -> list[Key]:
        """Return the rows of a side in the order in which they are shown."""
        return list(self.groups[side])

    def draft(self, key: Key) -> tuple[RowComparison, list[Draft]]:
        """Return a row of both sides with what of it can be compared."""
        model, track, variant = key
        planned = [group[key] for group in self.groups]
        checkpoints = self.evidence.checkpoints
        a, b = ({seed: k for seed, k in side.items() if checkpoints[k].status == "ok"} for side in planned)
        failed = [seed for seed, k in planned[1].items() if checkpoints[k].status == "failed" and seed in a]
        row = RowComparison(model, track, variant, checkpoints[next(iter(planned[1].values()))].kind, "compared")
        settled = _settled(row, bool(a), bool(b), bool(failed))
        if settled is not None:
            return settled, []
        row = replace(row, lost=[f"seed {seed} failed" for seed in failed])
        roles = self.roles(track)
        if isinstance(roles, str):
            return replace(row, outcome="not comparable", reason=roles), []
        common = sorted((seed for seed in a if seed in b), key=lambda seed: -1 if seed is None else seed)
        if not common:
            why = f"no training seed in common ({_words(a)} against {_words(b)})"
            return replace(row, outcome="not comparable", reason=why), []
        reasons = self.reasons(model, roles)
        broken = Broken() if "S" in reasons else _broken(*(self._is_broken(n, key) for n in (0, 1)))
        seeds = [seed for seed in common if seed is not None]
        notes = [
            f"{name} alone has seed {_words(rest)}"
            for name, rest in zip("AB", ([s for s in a if s not in b], [s for s in b if s not in a]), strict=True)
            if rest
        ]
        drafts = []
        for name, _, task in _fields(roles):
            if name in reasons or (name == "S" and broken.notes):
                continue
            needed = [task] if task else [roles.forget_task, roles.retain_task]
            pairs = [(a[seed], b[seed]) for seed in common if all(self._scored(t, a[seed], b[seed]) for t in needed)]
            if not pairs:
                reasons[name] = f"{needed[-1]}: no item with a score on both sides"
                continue
            before, after = ([pair[side] for pair in pairs] for side in (0, 1))
            draft = self._s(track, before, after) if task is None else self._task(name, task, before, after)
            left_out = {t: sum(self.left_out.get((id(checkpoints[k]), t), 0) for k in before) for t in needed}
            equal = all(self._equal(t, before, after) and not left_out[t] for t in needed)
            drafts.append(replace(draft, equal=equal))
            if task and left_out[task]:
                notes.append(f"{task}: {left_out[task]} items have a score on one side only and are left out")
        notes += broken.notes
        if drafts:
            trainings = [(self._training(0, a[seed]), self._training(1, b[seed])) for seed in common]
            s = next((draft for draft in drafts if draft.name == "S"), None)
            row = replace(row, unjudged=unjudged(trainings))
            if s is not None and row.kind != "base" and all(one.cell == other.cell for one, other in trainings):
                row = replace(row, reproduction=self._again(track, s, list(a.values()), list(b.values())))
            notes += _few_seeds(row.kind, len(seeds)) if row.unjudged is None else []
        return _told(_lost(replace(row, seeds=seeds, notes=notes), broken), reasons, drafts)

    def _training(self, side: int, column: int) -> Training:
        cell = self.evidence.checkpoints[column].cell
        return self.sides[side].trainings.get(cell, Training(cell))

    def _again(self, track: str, s: Draft, a: list[int], b: list[int]) -> Reproduction:
        return Reproduction.of(s.b - s.a, pooled_sd([self.evidence.s_draws(track, side)[0] for side in (a, b)]))

    def _is_broken(self, side: int, key: Key) -> bool:
        """Tell whether a row's answers to its forget task are mostly none on a side, and base's there are not."""
        checkpoints, (model, track, _) = self.evidence.checkpoints, key
        groups = {k: list(own.values()) for k, own in self.groups[side].items() if k[:2] == (model, track)}
        base = next((own for own in groups.values() if checkpoints[own[0]].kind == "base"), [])
        own, usual = (broken_share(self.evidence, track, columns) for columns in (groups[key], base))
        return checkpoints[groups[key][0]].kind in RANKED and own - usual > MANY

    def _scored(self, task: str, a: int, b: int) -> bool:
        return len(self.evidence.scored(task, [a, b])) == 2

    def _s(self, track: str, before: list[int], after: list[int]) -> Draft:
        a, b = self.evidence.s_draws(track, before), self.evidence.s_draws(track, after)
        return Draft("S", None, float(a[0].mean()), float(b[0].mean()), draws=b - a)

    def _task(self, name: str, task: str, before: list[int], after: list[int]) -> Draft:
        a, b = self.evidence.means[task][:, before], self.evidence.means[task][:, after]
        values = self.evidence.tables[task].values
        both = ~np.isnan(values[:, [*before, *after]]).any(axis=1)
        changed = (values[:, before] != values[:, after]).any(axis=1) & both
        draft = Draft(name, task, float(a[0].mean()), float(b[0].mean()), draws=b - a)
        return replace(draft, items=int(both.sum()), changed=int(changed.sum()))

    def _equal(self, task: str, before: list[int], after: list[int]) -> bool:
        values = self.evidence.tables[task].values
        return np.array_equal(values[:, before], values[:, after], equal_nan=True)

    def estimates(self, drafts: Sequence[Draft]) -> list[Estimate]:
        """Return differences with intervals that hold together."""
        draws = [draft.draws for draft in drafts if draft.draws is not None]
        return simultaneous(draws, self.evidence.spec.confidence)


def _common_items(
    a: Sequence[Checkpoint], b: Sequence[Checkpoint], metrics: Mapping[str, str]
) -> tuple[list[list[Checkpoint]], dict[tuple[int, str], int]]:
    """Return both sides with the records of items that the counterpart has a score of too, and how many were left out.

    Checkpoints without a counterpart keep their records. The counts are by (id of the checkpoint of A, task).
    """
    of_b = {_who(checkpoint): checkpoint for checkpoint in b}
    sides = ([], [replace(checkpoint) for checkpoint in b if _who(checkpoint) not in {_who(other) for other in a}])
    left_out = {}
    for checkpoint in a:
        other = of_b.get(_who(checkpoint))
        if other is None:
            sides[0].append(replace(checkpoint))
            continue
        kept: tuple[dict, dict] = ({}, {})
        counts = {}
        for task, metric in metrics.items():
            answers = [Answers.of(side.records.get(task, ())) for side in (checkpoint, other)]
            scored = [side.scored(metric) for side in answers]
            for side in (0, 1):
                kept[side][task] = answers[side].only(scored[0] & scored[1])
            counts[task] = len(scored[0] ^ scored[1])
        pair = replace(checkpoint, records=kept[0]), replace(other, records=kept[1])
        for side in (0, 1):
            sides[side].append(pair[side])
        left_out |= {(id(pair[0]), task): count for task, count in counts.items()}
    return [*sides], left_out


def _who(checkpoint: Checkpoint) -> tuple:
    return (checkpoint.model, checkpoint.track, checkpoint.variant, checkpoint.seed)


def _fields(roles: TrackRoles) -> Iterator[tuple[str, Literal["s_unlearning", "forget", "retain"], str | None]]:
    yield "S", "s_unlearning", None
    yield "forget", "forget", roles.forget_task
    yield "retain", "retain", roles.retain_task


def _settled(row: RowComparison, a: bool, b: bool, failed: bool) -> RowComparison | None:
    """Return what is to be said of a row that is not measured on both sides; None where it is."""
    if a and b:
        return None
    if a:
        if failed:
            return replace(row, outcome="failed", lost=["measured in A, failed in B"])
        return replace(row, outcome="not comparable", reason="not measured in B yet")
    return replace(row, outcome="gained" if b else "not measured")


@dataclass(frozen=True)
class Broken:
    """What is to be said where answers are broken: why S is not compared, and what was lost since A."""

    notes: Sequence[str] = ()
    lost: Sequence[str] = ()


def _broken(a: bool, b: bool) -> Broken:
    where = " and ".join(name for name, broken in (("A", a), ("B", b)) if broken)
    if not where:
        return Broken()
    lost = ["its answers are broken in B"] if b and not a else []
    return Broken([f"S is not compared: most answers to the forget task are none in {where}"], lost)


def _lost(row: RowComparison, broken: Broken) -> RowComparison:
    """Return a row with what its broken answers cost: a loss, or a note where one training does not say so."""
    if row.unjudged is None:
        return replace(row, lost=[*row.lost, *broken.lost])
    return replace(row, notes=[*row.notes, *broken.lost])


def _told(row: RowComparison, reasons: Mapping[str, str], drafts: list[Draft]) -> tuple[RowComparison, list[Draft]]:
    named = [reasons[name] for name in ("forget", "retain") if name in reasons] or list(reasons.values())
    reason = "; ".join(dict.fromkeys(named))
    outcome: Outcome = "compared" if drafts else "not comparable"
    if not drafts and not reason:
        reason = "no value on one of the sides"
    return replace(row, outcome=outcome, reason=reason or None), drafts


def _few_seeds(kind: str, seeds: int) -> list[str]:
    few = kind in ("method", "noise") and seeds < SEEDS_FOR_METHOD
    return [f"fewer than {SEEDS_FOR_METHOD} seeds: speaks of these checkpoints, not of the method"] if few else []


def _words(seeds: Any) -> str:
    return ", ".join(str(seed) for seed in seeds if seed is not None) or "none"


def compare_sides(a: Side, b: Side) -> Comparison:
    """Compare two sides of one suite: paired where both have records, else from their boards."""
    paired = a.checkpoints is not None and b.checkpoints is not None
    sides = Paired(a, b) if paired else Boards(a, b)
    keys_a, keys_b = sides.keys(0), sides.keys(1)
    drafts = [sides.draft(key) for key in keys_a if key in keys_b]
    values = [draft for _, quantities in drafts for draft in quantities]
    estimates = iter(sides.estimates(values))
    rows = [
        replace(row, quantities=[_quantity(row, draft, next(estimates)) for draft in quantities])
        for row, quantities in drafts
    ]
    return Comparison(
        suite=a.spec.suite,
        paired=paired,
        confidence=a.spec.confidence,
        identity=identity_changes(a.identity, b.identity),
        rows=rows,
        only_a=[" · ".join(key) for key in keys_a if key not in keys_b],
        only_b=[" · ".join(key) for key in keys_b if key not in keys_a],
        composites=compare_composites(a, b, sides.unlike),
    )


def identity_changes(a: Mapping[str, Facts], b: Mapping[str, Facts]) -> list[Difference]:
    """Return the facts that differ, of the subjects that both sides have; equal changes of several are one."""
    subjects: dict[tuple[str, str | None, str | None], list[str]] = {}
    for subject in sorted(set(a) & set(b)):
        for what in sorted(set(a[subject]) | set(b[subject])):
            before, after = a[subject].get(what), b[subject].get(what)
            if before != after:
                subjects.setdefault((what, before, after), []).append(subject)
    return [Difference(what, where, before, after) for (what, before, after), where in subjects.items()]


def _quantity(row: RowComparison, draft: Draft, estimate: Estimate) -> Quantity:
    difference: Interval = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    change = _change(draft, estimate, null=row.kind in NULLS, judged=row.unjudged is None)
    return Quantity(draft.name, draft.task, draft.a, draft.b, difference, change, draft.items, draft.changed)


def _change(draft: Draft, estimate: Estimate, *, null: bool, judged: bool) -> Change:
    if draft.equal:
        return "same"
    if not judged:
        return "not judged"
    if estimate.low is None or estimate.high is None:
        return "no interval"
    if estimate.low <= 0 <= estimate.high:
        return "within noise"
    if null and draft.name != "retain":
        return "moved"
    return "better" if (estimate.value < 0) == (draft.name == "forget") else "worse"
