"""From checkpoints to rows: one for each (model, track, variant), in the JSON shape of `schema`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from ..harness.errors import UserError, suggest
from .compare import SEEDS_FOR_METHOD, Estimate, estimate, noise_shares, rank_intervals, wilson
from .doubts import doubts
from .evidence import Evidence
from .inputs import BoardSpec, Checkpoint
from .metrics import Floats
from .schema import (
    SMALLEST,
    Alpha,
    Comparison,
    Component,
    Interval,
    NoiseShares,
    RankInterval,
    Row,
    Status,
    comparisons,
    rounded,
)
from .scores import mark_shares, mean_scores
from .significance import holm

RANKED = ("method", "import")
STRATA = range(2, 7)
"""Numbers of strata of a forget task of which each gets an interval of its own."""


@dataclass(frozen=True)
class Group:
    """The checkpoints of a row: all that were planned, and the columns of those that are measured on the track."""

    variant: str
    members: tuple[int, ...]
    columns: tuple[int, ...]
    first: Checkpoint


def build_rows(spec: BoardSpec, checkpoints: Sequence[Checkpoint]) -> list[Row]:
    """Return the rows of a board, sorted by model, track and S (the highest first, rows without a value last).

    Raises:
        UserError: a checkpoint of an unknown track, two cells for the same seed of a row, or records that do not match.
    """
    for checkpoint in checkpoints:
        if checkpoint.track is not None and checkpoint.track not in spec.tracks:
            raise UserError(
                f"Cell {checkpoint.cell} is of the track {checkpoint.track!r}.{suggest(checkpoint.track, spec.tracks)}"
            )
    rows = []
    for model in sorted({checkpoint.model for checkpoint in checkpoints}):
        evidence = Evidence(spec, [checkpoint for checkpoint in checkpoints if checkpoint.model == model])
        for track in sorted(spec.tracks):
            rows += _track_rows(evidence, model, track)
    return [cast(Row, rounded(row)) for row in rows]


def _track_rows(evidence: Evidence, model: str, track: str) -> list[Row]:
    groups = _groups(evidence, track)
    base = next((group for group in groups if group.first.kind == "base"), None)
    noise = _hardest(evidence, track, [group for group in groups if group.first.kind == "noise"])
    ranked = [group for group in groups if group.first.kind in RANKED and group.columns]
    ranks = rank_intervals([evidence.s_draws(track, group.columns) for group in ranked], evidence.spec.confidence)
    places: dict[str, RankInterval] = {
        group.variant: {"low": rank.low, "high": rank.high, "group": rank.group}
        for group, rank in zip(ranked, ranks, strict=True)
    }
    rows = [_row(evidence, model, track, group, base, noise, places.get(group.variant)) for group in groups]
    _correct(rows)
    return sorted(rows, key=_position)


def _correct(rows: Sequence[Row]) -> None:
    """Fill in Holm's p of every comparison of a table: they are one family."""
    family = [comparison for row in rows for _, comparison in comparisons(row)]
    for comparison, p in zip(family, holm([comparison["p"] for comparison in family]), strict=True):
        comparison["p_holm"] = p


def _position(row: Row) -> tuple:
    value = row["s_unlearning"]
    return (value is None, -value["value"] if value else 0.0, row["variant"])


def _groups(evidence: Evidence, track: str) -> list[Group]:
    members: dict[str, list[int]] = {}
    for index, checkpoint in enumerate(evidence.checkpoints):
        if checkpoint.track in (None, track):
            members.setdefault(checkpoint.variant, []).append(index)
    groups = []
    for variant, indices in sorted(members.items()):
        found = [evidence.checkpoints[index] for index in indices]
        if len({checkpoint.kind for checkpoint in found}) > 1:
            raise UserError(f"{variant!r} is the name of rows of different kinds; rename the imported checkpoint.")
        seeds = [checkpoint.seed for checkpoint in found]
        if len(set(seeds)) < len(seeds):
            cells = ", ".join(checkpoint.cell for checkpoint in found)
            raise UserError(f"Row {variant!r} ({found[0].model}, {track}) has two cells for one seed: {cells}.")
        measured = [k for k in indices if evidence.checkpoints[k].status == "ok" and not evidence.lacking(track, k)]
        groups.append(Group(variant, tuple(indices), tuple(measured), found[0]))
    return groups


def _hardest(evidence: Evidence, track: str, groups: list[Group]) -> Group | None:
    """Return the noise row to compare with: where a board has several, the one with the highest S."""
    measured = [group for group in groups if group.columns]
    return max(measured, key=lambda group: float(evidence.s_draws(track, group.columns)[0].mean()), default=None)


def _row(
    evidence: Evidence,
    model: str,
    track: str,
    group: Group,
    base: Group | None,
    noise: Group | None,
    rank: RankInterval | None,
) -> Row:
    members = [evidence.checkpoints[index] for index in group.members]
    finished = [evidence.checkpoints[index] for index in group.columns]
    against_base = base if base is not None and base.columns and group.first.kind != "base" else None
    against_noise = noise if group.first.kind in RANKED else None
    row: Row = {
        "model": model,
        "track": track,
        "method": group.first.method,
        "variant": group.variant,
        "kind": group.first.kind,
        "status": _status(members, len(finished)),
        "seeds": [checkpoint.seed for checkpoint in finished if checkpoint.seed is not None],
        "planned": len(members),
        "finished": len(finished),
        "speaks_of": "method" if len(finished) >= SEEDS_FOR_METHOD else "checkpoint",
        "s_unlearning": None,
        "delta_base": None,
        "delta_noise": None,
        "noise": against_noise.variant if against_noise else None,
        "noise_shares": None,
        "tests": None,
        "rank": rank,
        "forget": None,
        "retain": None,
        "cross": [],
        "controls": [],
        "published": _published(evidence.spec, model, track, group),
        "alpha": _alpha(evidence.spec, model, track, group, finished),
        "unclipped": None,
        "marks": {},
        "warnings": [],
        "cells": sorted(checkpoint.cell for checkpoint in members),
    }
    constant = False
    if finished:
        constant = _fill(evidence, row, track, group, against_base, against_noise)
    lacking = {
        evidence.checkpoints[k].cell: task
        for k in group.members
        if evidence.checkpoints[k].status == "ok" and (task := evidence.lacking(track, k))
    }
    uncontrolled = {
        evidence.checkpoints[k].cell: unscored
        for k in group.columns
        if (unscored := [task for task in evidence.spec.tracks[track].controls if not evidence.scored(task, [k])])
    }
    row["warnings"] = doubts(evidence.spec, row, members, lacking, uncontrolled, constant=constant)
    return row


def _status(members: Sequence[Checkpoint], finished: int) -> Status:
    if finished == len(members):
        return "ok"
    return "partial" if finished or all(checkpoint.status == "pending" for checkpoint in members) else "failed"


def _fill(evidence: Evidence, row: Row, track: str, group: Group, base: Group | None, noise: Group | None) -> bool:
    """Fill in the numbers of a row that has finished checkpoints; return whether its S does not vary at all."""
    spec, roles = evidence.spec, evidence.spec.tracks[track]
    values = evidence.s_draws(track, group.columns)
    own = estimate(values, confidence=spec.confidence, bounds=(0.0, 1.0))
    row["s_unlearning"] = _interval(own)
    row["noise_shares"] = _shares(values)
    for key, other in (("delta_base", base), ("delta_noise", noise)):
        if other is not None:
            row[key] = _difference(values, evidence.s_draws(track, other.columns), spec)
    row["forget"] = _component(evidence, roles.forget_task, group, base, noise, strata=True)
    row["retain"] = _component(evidence, roles.retain_task, group, base, noise)
    if row["kind"] in RANKED:
        row["tests"] = {
            "forget": _comparison(evidence, roles.forget_task, group, base),
            "retain": _comparison(evidence, roles.retain_task, group, base),
            "forget_noise": _comparison(evidence, roles.forget_task, group, noise),
            "retain_noise": _comparison(evidence, roles.retain_task, group, noise),
        }
    cross = [_component(evidence, task, group, base, noise, strata=True) for task in roles.cross_tasks]
    row["cross"] = [component for component in cross if component is not None]
    controls = [_component(evidence, task, group, base, noise) for task in roles.controls]
    row["controls"] = [component for component in controls if component is not None]
    forget, retain = evidence.unclipped_draws(track, group.columns)
    row["unclipped"] = {
        "forget": _interval(estimate(forget, confidence=spec.confidence)),
        "retain": _interval(estimate(retain, confidence=spec.confidence)),
    }
    for task in roles.tasks:
        shares = mark_shares([evidence.records(k, task) for k in evidence.scored(task, group.columns)])
        if shares:
            row["marks"][task] = shares
    return own is not None and own.constant


def _component(
    evidence: Evidence, task: str, group: Group, base: Group | None, noise: Group | None, *, strata: bool = False
) -> Component | None:
    spec, info, table = evidence.spec, evidence.spec.tasks[task], evidence.tables[task]
    columns = evidence.scored(task, group.columns)
    draws = evidence.draws(task, columns)
    found = estimate(draws, confidence=spec.confidence, bounds=(0.0, 1.0))
    if found is None:
        return None
    n, clusters, missing = table.complete(columns)
    counted = found.constant and n > 1 and found.value in (0.0, 1.0) and table.binary and table.single
    low, high = wilson(found.value, n, spec.confidence) if counted else (found.low, found.high)
    also = mean_scores([evidence.records(k, task) for k in columns])
    also.pop(info.metric, None)
    return {
        "task": task,
        "metric": info.metric,
        "value": found.value,
        "low": low,
        "high": high,
        "interval": "wilson" if counted else "bootstrap",
        "n": n,
        "n_clusters": clusters,
        "missing": missing,
        "delta_base": _difference(draws, evidence.draws(task, base.columns), spec) if base else None,
        "delta_noise": _difference(draws, evidence.draws(task, noise.columns), spec) if noise else None,
        "also": also,
        "strata": table.stratum_means(columns) if strata and len(table.names) > 1 else {},
        "strata_intervals": _strata(evidence, task, columns) if strata and len(table.names) in STRATA else {},
    }


def _comparison(evidence: Evidence, task: str, group: Group, other: Group | None) -> Comparison | None:
    found = evidence.compare(task, group.columns, other.columns) if other else None
    if other is None or found is None:
        return None
    p = max(found.p, SMALLEST)
    return {
        "against": other.variant,
        "test": found.test,
        "n": found.n,
        "p": p,
        "p_holm": p,
        "minimum_detectable": found.detectable,
    }


def _shares(draws: Floats) -> NoiseShares | None:
    shares = noise_shares(draws)
    return {"items": shares[0], "seeds": shares[1]} if shares else None


def _strata(evidence: Evidence, task: str, columns: Sequence[int]) -> dict[str, Interval]:
    found = {}
    for name in evidence.tables[task].names:
        draws = evidence.stratum_draws(task, name, columns)
        mean = _interval(estimate(draws, confidence=evidence.spec.confidence, bounds=(0.0, 1.0)))
        if mean is not None:
            found[name] = mean
    return found


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


def _difference(plus: Floats, minus: Floats, spec: BoardSpec) -> Interval | None:
    return _interval(estimate(plus, minus, confidence=spec.confidence, bounds=(-1.0, 1.0)))


def _interval(found: Estimate | None) -> Interval | None:
    return None if found is None else {"value": found.value, "low": found.low, "high": found.high}
