"""Reasons to doubt a row, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...harness.records import Mark
from ..schema import Component, Row, components
from ..spec import BoardSpec, Checkpoint
from ..stats.intervals import Estimate
from .audit import BELOW, Audit
from .groups import none_of

ALIKE = 0.80  # share of the questions answered with one position from which that is worth a warning
SAME = 0.25  # share of the prompts continued with one text, likewise


def degenerate_share(spec: BoardSpec, row: Row) -> float:
    """Return the share of a row's answers to its forget task that are none; 0 where it has none."""
    task = row["forget"]["task"] if row["forget"] else ""
    return none_of(spec.tasks[task], row["marks"].get(task, {})) if task else 0.0


def one_form(row: Row) -> float:
    """Return the share of the forget task that is answered with one position or one text; 0 where that is no sign."""
    numbers = row["audit"].get(row["forget"]["task"], {}) if row["forget"] is not None else {}
    most, same = numbers.get("most_answered", 0.0), numbers.get("same_text", 0.0)
    return max(most if most >= ALIKE else 0.0, same if same >= SAME else 0.0)


def at_chance(spec: BoardSpec, component: Component | None) -> bool:
    """Tell whether the interval of a metric includes what no knowledge scores (0 for a rate), or lies below it."""
    return (
        component is not None
        and component["low"] is not None
        and component["low"] <= spec.tasks[component["task"]].chance
    )


@dataclass(frozen=True)
class Known:
    """What is known of a row beside its numbers.

    Attributes:
        members: all its checkpoints.
        lacking: cell to the tasks of its track's S of which it has no score.
        uncontrolled: measured cell to the control tasks of which it has no score.
        audits: measured cell to what its answers look like, by task.
        s: its S.
        noises: of how many of its measured checkpoints noise of the same norm is measured.
    """

    members: Sequence[Checkpoint]
    lacking: Mapping[str, Sequence[str]]
    uncontrolled: Mapping[str, Sequence[str]]
    audits: Mapping[str, Mapping[str, Audit]]
    s: Estimate | None
    noises: int


def row_warnings(spec: BoardSpec, row: Row, known: Known) -> list[str]:
    """Return the warnings of a row whose numbers are filled in."""
    members = known.members
    warnings = [*_unfinished(row, members, known.lacking, known.noises), *_uncontrolled(members, known.uncontrolled)]
    for component in components(row):
        warnings += _component_warnings(spec, row, component, members)
        for checkpoint in members:
            audit = known.audits.get(checkpoint.cell, {}).get(component["task"])
            if audit is not None:
                warnings += _audit_warnings(row, component, _who(checkpoint, members), audit)
    if row["s_unlearning"] is not None:
        warnings += _utility_warnings(spec, row)
        if row["s_unlearning"]["low"] is None:
            warnings.append("no interval: too few items or clusters with a score to resample")
        elif known.s is not None and known.s.constant:
            warnings.append("all resamples agree, so the interval has no width and says too little")
        elif known.s is not None and spec.interval == "bca" and not known.s.bca:
            warnings.append("BCa does not exist for S on these data: its interval is of percentiles")
        if row["finished"] == 2:
            warnings.append("two training seeds: the interval holds items only, a method's needs three seeds")
    return warnings + _said(members)


def _unfinished(
    row: Row, members: Sequence[Checkpoint], lacking: Mapping[str, Sequence[str]], noises: int
) -> list[str]:
    warnings = []
    for checkpoint in members:
        who = _who(checkpoint, members)
        if checkpoint.status == "failed":
            warnings.append(f"{who}failed: {checkpoint.failure or 'no cause was recorded'}")
        elif checkpoint.cell in lacking:
            warnings += [f"{who}has no score of {_of(checkpoint, task)}" for task in lacking[checkpoint.cell]]
    pending = sum(checkpoint.status == "pending" for checkpoint in members)
    if pending:
        warnings.append("not run yet" if pending == len(members) else f"{pending} of {len(members)} seeds not run yet")
    if 0 < noises < row["finished"]:
        warnings.append(f"noise of its own norm is measured for {noises} of its {row['finished']} checkpoints")
    if 0 < row["finished"] < row["planned"]:
        warnings.append(f"fewer seeds than planned: {row['finished']} of {row['planned']}")
    return warnings


def _of(checkpoint: Checkpoint, task: str) -> str:
    """Return a task with why a checkpoint has no score of items of it, where that is known."""
    return f"{task}: {checkpoint.missing[task]}" if task in checkpoint.missing else task


def _who(checkpoint: Checkpoint, members: Sequence[Checkpoint]) -> str:
    return "" if checkpoint.seed is None or len(members) == 1 else f"seed {checkpoint.seed} "


def _uncontrolled(members: Sequence[Checkpoint], uncontrolled: Mapping[str, Sequence[str]]) -> list[str]:
    warnings = []
    for checkpoint in members:
        if checkpoint.cell in uncontrolled:
            tasks = ", ".join(_of(checkpoint, task) for task in uncontrolled[checkpoint.cell])
            cause = f" ({checkpoint.failure})" if checkpoint.failure else ""
            warnings.append(f"{_who(checkpoint, members)}has no score of the control task {tasks}{cause}")
    return warnings


def _audit_warnings(row: Row, component: Component, who: str, audit: Audit) -> list[str]:
    """Return what makes a checkpoint's answers to a task no evidence of what it knows or would say."""
    task = component["task"]
    warnings = [
        f"{who}answers {chr(ord('A') + place)!r} to {share:.0%} of the questions of {task}"
        for place, share in audit.answers.items()
        if share >= ALIKE
    ]
    is_retain = row["retain"] is not None and task == row["retain"]["task"]
    if audit.below is not None and audit.below < BELOW and not is_retain:
        warnings.append(f"{who}scores below chance on {task} (p < {BELOW:g}): answers are avoided or follow their form")
    if audit.texts.get("same_text", 0.0) >= SAME:
        warnings.append(
            f"{who}continues {audit.texts['same_text']:.0%} of the prompts of {task} with one and the same text"
        )
    return warnings


def _component_warnings(spec: BoardSpec, row: Row, component: Component, members: Sequence[Checkpoint]) -> list[str]:
    task, warnings = component["task"], []
    for name, share in row["marks"].get(task, {}).items():
        mark = spec.tasks[task].marks.get(name, Mark())
        if share > mark.above:
            words = {"share": f"{share:.0%}", "rest": f"{1 - share:.0%}", "task": task, "mark": name}
            warnings.append(mark.warning.format(**words))
    if component["interval"] == "exact":
        warnings.append(
            f"all {component['n']} items of {task} score {'one' if component['value'] else 'zero'}, so resamples "
            f"cannot differ: its interval ends where so many clusters ({component['n_clusters']}) would have shown "
            f"another with {spec.confidence:.0%}"
        )
    if component["missing"]:
        total = component["n"] + component["missing"]
        causes = ", ".join(dict.fromkeys(member.missing[task] for member in members if task in member.missing))
        warnings.append(
            f"{component['missing']} of {total} items of {task} have no score and are left out of its mean"
            + (f": {causes}" if causes else "")
        )
    return warnings


def _utility_warnings(spec: BoardSpec, row: Row) -> list[str]:
    retain, warnings = row["retain"], []
    if retain is None:
        return warnings
    chance = spec.tasks[retain["task"]].chance
    if chance > 0 and at_chance(spec, retain):
        below = retain["high"] is not None and retain["high"] < chance
        where = f"lies below {chance:g}" if below else f"includes {chance:g}"
        warnings.append(
            f"{'below' if below else 'at'} chance: the interval of {retain['task']} {where}, what no knowledge scores; "
            "S is then near 0 whatever was forgotten, and its interval one-sided"
        )
    noise = retain["delta_noise"]
    if noise is not None and noise["high"] is not None and noise["high"] < 0:
        warnings.append(
            f"utility ({retain['task']}) is {-noise['value']:.3f} below that of noise of its own norm: "
            "S is not evidence of unlearning here, it may be damage"
        )
    if row["unstable"] is not None:
        warnings.append(f"unstable: {row['unstable']}")
    return warnings


def _said(members: Sequence[Checkpoint]) -> list[str]:
    """Return what the harness said of the checkpoints, each text once, with its seeds where not all have it."""
    texts: dict[str, list[Checkpoint]] = {}
    for checkpoint in members:
        for text in dict.fromkeys(checkpoint.warnings):
            texts.setdefault(text, []).append(checkpoint)
    warnings = []
    for text, of in sorted(texts.items()):
        seeds = ", ".join(str(checkpoint.seed) for checkpoint in of)
        warnings.append(text if len(of) == len(members) else f"seed {seeds}: {text}")
    return warnings
