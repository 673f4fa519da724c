"""The composites of a suite as a board computes them: read while planning, cut to what a plan asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ...leaderboards.spec import TrackRoles
from ...leaderboards.stats.composite import Composite, Definition, definitions
from ..planning.plan import Plan
from ..suite import SuiteSpec


def check_composites(suite: SuiteSpec) -> None:
    """Raise a `UserError` where a composite cannot be computed of the suite's tasks."""
    _definitions(suite)


def composites_of(plan: Plan, tracks: Mapping[str, TrackRoles]) -> dict[str, Composite]:
    """Return the composites that the tracks of a plan have the tasks of, each with those tracks."""
    found, named = {}, _named(plan.suite)
    for name, definition in _definitions(plan.suite).items():
        tasks = {score.task for score in definition.scores}
        able = [track for track in definition.tracks if track in tracks and tasks <= set(tracks[track].tasks)]
        if able:
            found[name] = replace(named[name], tracks=able)
    return {name: found[name] for name in named if name in found}


def _named(suite: SuiteSpec) -> dict[str, Composite]:
    return {name: Composite(**dict(spec)) for name, spec in suite.composites.items()}


def _definitions(suite: SuiteSpec) -> dict[str, Definition]:
    forget = [role.forget_task for role in suite.tracks.values()]
    tracks = {name: {role.retain_task, *role.controls, *forget} for name, role in suite.tracks.items()}
    return definitions(_named(suite), suite.tasks, tracks)
