"""The composites of a suite as a board computes them: read while planning, cut to what a plan asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ...leaderboards.spec import TrackRoles
from ...leaderboards.stats.composite import Composite, Definition, Score, definitions
from ..errors import UserError
from ..planning.plan import Plan
from ..suite import SuiteSpec


def check_composites(suite: SuiteSpec) -> None:
    """Raise a `UserError` where a composite cannot be computed of the suite's tasks."""
    _definitions(suite)


def check_logs(plan: Plan) -> None:
    """Raise a `UserError` where the composites of a track need scores of a stored log, and it serves none of them."""
    known, measured = _definitions(plan.suite), set(plan.tasks)
    for log in (log for log in plan.logs if log.role is not None):
        wanted = {
            name: scores
            for name, definition in known.items()
            if log.track in definition.tracks
            and {score.task for score in definition.scores} <= measured
            and (scores := _scores_of(definition, log.role, known))
        }
        if wanted and not any(all(map(log.has, scores)) for scores in wanted.values()):
            name, scores = next(iter(wanted.items()))
            lacking = next(score for score in scores if not log.has(score))
            raise UserError(
                f"The stored values of {log.role} on {log.track} serve no composite ({', '.join(wanted)}): {name} needs"
                f" {lacking[0]}.{lacking[1]} of them, and they have {', '.join(log.scores)}."
            )


def _scores_of(definition: Definition, role: str | None, known: Mapping[str, Definition]) -> list[tuple[str, str]]:
    """Return the scores (task, name) that a composite needs of the checkpoint of a role."""
    scores: list[Score] = []
    for _, operand in definition.arguments:
        if role in (operand.role, operand.beside) and isinstance(operand.of, Score):
            scores.append(operand.of)
        elif isinstance(operand.of, str):
            inner = known[operand.of]
            scores += inner.scores if operand.role == role else []
    scores += [condition.score for condition in definition.conditions if condition.role == role]
    return list(dict.fromkeys((score.task, score.name) for score in scores))


def left_out(plan: Plan) -> str:
    """Return which optional tasks are not measured, which composites have no value for it, and why."""
    known = _definitions(plan.suite)
    lacking = {
        task: [name for name, of in known.items() if any(score.task == task for score in of.scores)]
        for task in plan.left_out
    }
    return "; ".join(
        f"{', '.join((task, *lacking[task]))} ({cause.rstrip('.')})" for task, cause in plan.left_out.items()
    )


def composites_of(plan: Plan, tracks: Mapping[str, TrackRoles]) -> dict[str, Composite]:
    """Return the composites that the tracks of a plan have the tasks of, each with those tracks."""
    found, named = {}, _named(plan.suite)
    for name, definition in _definitions(plan.suite).items():
        tasks = {score.task for score in definition.scores}
        able = [track for track in definition.tracks if track in tracks and tasks <= set(tracks[track].tasks)]
        if able:
            found[name] = replace(named[name], tracks=able, inherited=False)
    return {name: found[name] for name in named if name in found}


def board_scores(plan: Plan) -> dict[str, list[str]]:
    """Return the scores of each task that a board reads: its metric, then those that composites are made of."""
    scores = {name: [task.without_data().metric.score] for name, task in plan.tasks.items()}
    for definition in _definitions(plan.suite).values():
        for score in definition.scores:
            if score.name not in scores.get(score.task, (score.name,)):
                scores[score.task].append(score.name)
    return scores


def _named(suite: SuiteSpec) -> dict[str, Composite]:
    return {name: Composite(**dict(spec)) for name, spec in suite.composites.items()}


def _definitions(suite: SuiteSpec) -> dict[str, Definition]:
    forget = [role.forget_task for role in suite.tracks.values()]
    tracks = {name: {role.retain_task, *role.controls, *forget} for name, role in suite.tracks.items()}
    return definitions(_named(suite), suite.tasks, tracks)
