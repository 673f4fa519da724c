"""From checkpoints to rows: one for each (model, track, variant), in the JSON shape of `schema`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from ...harness.errors import UserError, suggest
from ..schema import (
    Alpha,
    Claims,
    CompositeTable,
    Frontier,
    Goals,
    RankInterval,
    Row,
    Status,
    Tests,
    comparisons,
    rounded,
)
from ..spec import BoardSpec, Checkpoint
from ..stats.arrays import mark_shares
from ..stats.intervals import Estimate
from ..stats.significance import holm
from ..stats.simultaneous import against, rank_intervals
from .audit import Audit, audit, mean_numbers
from .components import comparison, component, difference, from_noise, interval, selectivity, shares
from .composites import build_composites
from .frontier import build_frontiers
from .groups import Group, base_of, groups_of
from .guard import equivalent, utility
from .interactions import build_goals
from .relative import relative, uniform_gain
from .resampling import Resamples
from .row_warnings import Known, row_warnings
from .stability import replicas, seed_range, unstable
from .stress import stressed


def build_rows(
    spec: BoardSpec, checkpoints: Sequence[Checkpoint]
) -> tuple[list[Row], list[Goals], list[Frontier], list[CompositeTable]]:
    """Return the rows of a board, sorted by model, track and S (the highest first, rows without a value last).

    What a row says is a function of its own records, base's and its own noise's, but for ranks, `claims` and Holm's p,
    which hold for all rows of a table together.

    Beside them, for each model with methods on several tracks, whether the best of them depends on the track, the
    frontiers of methods that were swept, and the composites of each track.

    Raises:
        UserError: a checkpoint of an unknown track, two cells for the same seed of a row, or records that do not match.
    """
    for checkpoint in checkpoints:
        if checkpoint.track is not None and checkpoint.track not in spec.tracks:
            raise UserError(
                f"Cell {checkpoint.cell} is of the track {checkpoint.track!r}.{suggest(checkpoint.track, spec.tracks)}"
            )
    rows, goals, frontiers, composites = [], [], [], []
    for model in sorted({checkpoint.model for checkpoint in checkpoints}):
        resamples = Resamples(spec, [checkpoint for checkpoint in checkpoints if checkpoint.model == model])
        groups = {track: groups_of(resamples, track) for track in sorted(spec.tracks)}
        for track, track_groups in groups.items():
            rows += _track_rows(resamples, model, track, track_groups)
        goals += build_goals(resamples, model, groups)
        frontiers += build_frontiers(resamples, model, groups)
        composites += build_composites(resamples, model, groups, rows)
    return (
        [cast(Row, rounded(row)) for row in rows],
        [cast(Goals, rounded(table)) for table in goals],
        [cast(Frontier, rounded(frontier)) for frontier in frontiers],
        composites,
    )


def _track_rows(resamples: Resamples, model: str, track: str, groups: Sequence[Group]) -> list[Row]:
    base = base_of(resamples, track, groups)
    ranked = [group for group in groups if group.ranked]
    freedom = resamples.freedom(resamples.s(track))
    draws = [resamples.s_unbounded(track, group.columns) for group in ranked]
    ranks = rank_intervals(draws, resamples.spec.confidence, freedom)
    places: dict[str, RankInterval] = {
        group.variant: {"low": rank.low, "high": rank.high, "group": rank.group}
        for group, rank in zip(ranked, ranks, strict=True)
    }
    claims = claims_of(resamples, track, ranked, base)
    rows = [
        _row(resamples, model, track, group, base, places.get(group.variant), claims.get(group.variant))
        for group in groups
    ]
    _correct(rows)
    return sorted(rows, key=_position)


def claims_of(resamples: Resamples, track: str, ranked: Sequence[Group], base: Group | None) -> dict[str, Claims]:
    """Return what the verdict goes by: differences from base and own noise that hold for all ranked rows together."""
    pairs = [
        (group, name, columns)
        for group in ranked
        for name, columns in (("base", base.columns if base else ()), ("noise", group.noise))
        if columns
    ]
    compared = {columns for group, _, other in pairs for columns in (group.columns, other)}
    draws = {columns: resamples.s_unbounded(track, columns) for columns in compared}
    sides = [(draws[group.columns], draws[other]) for group, _, other in pairs]
    together = against(sides, resamples.spec.confidence, resamples.freedom(resamples.s(track)))
    claims: dict[str, Claims] = {group.variant: {"base": None, "noise": None} for group in ranked}
    for (group, name, _), gap in zip(pairs, together, strict=True):
        claims[group.variant][name] = interval(gap)
    return claims


def _correct(rows: Sequence[Row]) -> None:
    """Fill in Holm's p of every comparison of a table: they are one family."""
    family = [test for row in rows for _, test in comparisons(row)]
    for test, p in zip(family, holm([test["p"] for test in family]), strict=True):
        test["p_holm"] = p


def _position(row: Row) -> tuple:
    value = row["s_unlearning"]
    return (value is None, -value["value"] if value else 0.0, row["variant"])


def _row(
    resamples: Resamples,
    model: str,
    track: str,
    group: Group,
    base: Group | None,
    rank: RankInterval | None,
    claims: Claims | None,
) -> Row:
    members = [resamples.checkpoints[index] for index in group.members]
    finished = [resamples.checkpoints[index] for index in group.columns]
    base = None if group == base else base
    row: Row = {
        "model": model,
        "track": track,
        "method": group.first.method,
        "variant": group.variant,
        "kind": group.first.kind,
        "changes": group.first.changes,
        "status": _status(members, len(finished)),
        "seeds": [checkpoint.seed for checkpoint in finished if checkpoint.seed is not None],
        "planned": len(members),
        "finished": len(finished),
        "speaks_of": "method" if group.replicated else "checkpoint",
        "s_unlearning": None,
        "delta_base": None,
        "delta_noise": None,
        "noise": None,
        "claims": claims,
        "utility": None,
        "equivalent": None,
        "relative": None,
        "seed_range": None,
        "replicas": [],
        "unstable": None,
        "broken": group.broken,
        "raw_s": None,
        "uniform_gain": None,
        "noise_shares": None,
        "tests": None,
        "rank": rank,
        "forget": None,
        "retain": None,
        "selectivity": None,
        "cross": [],
        "controls": [],
        "published": _published(resamples.spec, model, track, group),
        "alpha": _alpha(resamples.spec, model, track, group, finished),
        "unclipped": None,
        "stress": {},
        "marks": {},
        "audit": {},
        "warnings": [],
        "cells": sorted(checkpoint.cell for checkpoint in members),
    }
    tasks = resamples.spec.tracks[track].tasks
    row["stress"] = stressed(resamples, track, group, base)
    audits = {k: {task: audit(resamples, k, task) for task in tasks} for k in group.columns}
    s = _fill(resamples, row, track, group, base) if finished else None
    if not finished:
        _fill_known(resamples, row, track, group, base)
    for task in tasks:
        numbers = mean_numbers([by_task[task] for by_task in audits.values()])
        if numbers:
            row["audit"][task] = numbers
    row["warnings"] = row_warnings(resamples.spec, row, _known(resamples, track, group, audits, s))
    return row


def _status(members: Sequence[Checkpoint], finished: int) -> Status:
    if finished == len(members):
        return "ok"
    return "partial" if finished or all(checkpoint.status == "pending" for checkpoint in members) else "failed"


def _fill(resamples: Resamples, row: Row, track: str, group: Group, base: Group | None) -> Estimate | None:
    """Fill in the numbers of a row that has finished checkpoints; return its S."""
    roles, s = resamples.spec.tracks[track], resamples.s(track)
    own = resamples.estimate(s, group.columns)
    if group.broken is not None:
        row["raw_s"] = interval(own)
    else:
        row["s_unlearning"] = interval(own)
        row["noise_shares"] = shares(resamples.values(s, group.columns))
        row["seed_range"] = seed_range(resamples, track, group)
        row["delta_base"] = difference(resamples, s, group, base)
    row["forget"] = component(resamples, roles.forget_task, group, base, strata=True)
    row["retain"] = component(resamples, roles.retain_task, group, base)
    row["selectivity"] = selectivity(resamples, track, group, base)
    if group.variant == roles.compared:
        row["uniform_gain"] = uniform_gain(resamples, track, group)
    if group.ranked:
        _fill_ranked(resamples, row, track, group, base)
    cross = [component(resamples, task, group, base, strata=True) for task in roles.cross_tasks]
    row["cross"] = [number for number in cross if number is not None]
    controls = [component(resamples, task, group, base) for task in roles.controls]
    row["controls"] = [number for number in controls if number is not None]
    forget, retain = (interval(resamples.estimate(part, group.columns)) for part in resamples.unclipped(track))
    row["unclipped"] = {"forget": forget, "retain": retain}
    for task in roles.tasks:
        marks = mark_shares([resamples.answers[task][k] for k in resamples.scored(task, group.columns)])
        if marks:
            row["marks"][task] = marks
    return None if group.broken is not None else own


def _fill_ranked(resamples: Resamples, row: Row, track: str, group: Group, base: Group | None) -> None:
    """Fill in what is said of ranked rows only."""
    roles, s = resamples.spec.tracks[track], resamples.s(track)
    row["noise"] = interval(resamples.estimate(s, group.noise)) if group.noise else None
    row["delta_noise"] = from_noise(resamples, s, group)
    row["utility"] = utility(resamples, track, group, base)
    row["equivalent"] = equivalent(resamples, track, group, base)
    row["relative"] = relative(resamples, track, group, base)
    row["replicas"] = replicas(resamples, track, group)
    row["unstable"] = unstable(resamples, track, group, row["noise_shares"])
    rivals = {"": ("base", base.columns if base else ()), "_noise": ("noise", group.noise)}
    tests = {
        f"{part}{suffix}": comparison(resamples, task, group, *rival)
        for suffix, rival in rivals.items()
        for part, task in (("forget", roles.forget_task), ("retain", roles.retain_task))
    }
    row["tests"] = cast(Tests, tests)


def _fill_known(resamples: Resamples, row: Row, track: str, group: Group, base: Group | None) -> None:
    """Fill in the tasks' numbers that a row without S has: it failed on another task, or has no score of it."""
    roles, members = resamples.spec.tracks[track], replace(group, columns=group.members, noise=(), replicas=())
    row["forget"] = component(resamples, roles.forget_task, members, base)
    row["retain"] = component(resamples, roles.retain_task, members, base)
    controls = [component(resamples, task, members, base) for task in roles.controls]
    row["controls"] = [number for number in controls if number is not None]


def _known(
    resamples: Resamples, track: str, group: Group, audits: Mapping[int, Mapping[str, Audit]], s: Estimate | None
) -> Known:
    """Return what its checkpoints tell of a row beside its numbers."""
    members = [resamples.checkpoints[index] for index in group.members]
    roles = resamples.spec.tracks[track]
    measured = [k for k in group.members if resamples.checkpoints[k].status == "ok"]
    lacking = _unscored(resamples, (roles.forget_task, roles.retain_task), measured)
    uncontrolled = _unscored(resamples, roles.controls, [k for k in measured if k in group.columns])
    seen = {resamples.checkpoints[k].cell: by_task for k, by_task in audits.items()}
    return Known(members, lacking, uncontrolled, seen, s, len(group.noise))


def _unscored(resamples: Resamples, tasks: Sequence[str], columns: Sequence[int]) -> dict[str, list[str]]:
    """Return by cell the tasks of which it has no score."""
    lacking = {
        resamples.checkpoints[k].cell: [task for task in tasks if not resamples.scored(task, [k])] for k in columns
    }
    return {cell: names for cell, names in lacking.items() if names}


def _published(spec: BoardSpec, model: str, track: str, group: Group) -> float | None:
    if spec.published is None or group.first.kind not in ("base", "method"):
        return None
    return spec.published.values.get(model, {}).get(track, {}).get(group.variant)


def _alpha(spec: BoardSpec, model: str, track: str, group: Group, finished: Sequence[Checkpoint]) -> Alpha | None:
    values = [checkpoint.alpha for checkpoint in finished if checkpoint.alpha is not None]
    published = None
    if spec.published is not None and group.first.kind == "method":
        published = spec.published.alpha.get(model, {}).get(track, {}).get(group.variant)
    return {"values": values, "published": published} if values or published is not None else None
