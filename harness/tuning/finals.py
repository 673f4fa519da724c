"""The end of a search: the best trials of each method and track, trained with further seeds, and what they come to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from ...leaderboards.schema import DIGITS
from ..api import run
from ..runtime import RunOptions
from ..suite import VariantSpec
from .divergence import replicas_part
from .study import Study, keep_plan, ranked, round_request, trial_of
from .trial import FINALISTS, Trial


def decide(
    study: Study,
    trials: Sequence[Trial],
    output: Path,
    options: RunOptions | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Trial]:
    """Train the finalists with the study's final seeds; what the store holds is not run again.

    Args:
        study: of `plan_study`.
        trials: of `tune`.
        output, options, say: as for `tune`.

    Returns:
        The finalists with their means over these seeds; none of a method and track with fewer than two trials to choose
        from.
    """
    finals: list[Trial] = []
    for track, groups in ranked(trials).items():
        chosen = [trial for group in groups.values() if len(group) > 1 for trial in group[:FINALISTS]]
        if chosen:
            seeds = ", ".join(map(str, study.final_seeds))
            say(f"{track}: {len(chosen)} finalists are decided on the seeds {seeds}")
            by_seed = {seed: _with_seed(study, track, chosen, seed, output, options) for seed in study.final_seeds}
            finals += [final_of(trial, {s: results[trial.trial] for s, results in by_seed.items()}) for trial in chosen]
            keep_plan(study, track, [trial for trial in trials if trial.track == track], output)
    return finals


def _with_seed(
    study: Study, track: str, chosen: Sequence[Trial], seed: int, output: Path, options: RunOptions | None
) -> dict[str, Trial]:
    variants = {
        trial.trial: VariantSpec(method=trial.method, settings=trial.settings, training=trial.training)
        for trial in chosen
    }
    request = replace(study.request, seeds=(seed,))
    result = run(round_request(request, study.suite, track, variants), output, options or RunOptions())
    return {label: trial_of(study, track, label, variant, result) for label, variant in variants.items()}


def final_of(trial: Trial, by_seed: Mapping[int, Trial]) -> Trial:
    """Return a finalist by what it came to with each seed: means, the largest share of broken answers, its edge."""
    finished = {str(seed): result for seed, result in by_seed.items() if result.s_unlearning is not None}
    failed = [f"failed with seed {seed}: {result.failure}" for seed, result in by_seed.items() if result.failure]
    if not finished:
        return replace(trial, status="failed", s_unlearning=None, failure=failed[0] if failed else "not measured")
    seeds = {seed: result.s_unlearning or 0.0 for seed, result in finished.items()}
    edges = [*(result.edge for result in finished.values()), *failed, replicas_part(seeds)]
    gains = [result.gain for result in finished.values() if result.gain is not None]
    losses = [result.loss for result in finished.values() if result.loss is not None]
    return replace(
        trial,
        s_unlearning=_mean(seeds.values()),
        forget=_mean(result.forget or 0.0 for result in finished.values()),
        retain=_mean(result.retain or 0.0 for result in finished.values()),
        broken=max(result.broken or 0.0 for result in finished.values()),
        gain=_mean(gains) if gains else None,
        loss=_mean(losses) if losses else None,
        cells=[cell for result in finished.values() for cell in result.cells],
        edge=next(filter(None, edges), None),
        seeds=seeds,
    )


def _mean(values: Iterable[float]) -> float:
    return round(fmean(values), DIGITS)


def winners(trials: Sequence[Trial], finals: Sequence[Trial]) -> dict[str, dict[str, Trial]]:
    """Return per track and method the best finalist, or the best trial where there were none to choose from."""
    places = {(trial.track, trial.method) for trial in finals if trial.s_unlearning is not None}
    alone = [trial for trial in trials if (trial.track, trial.method) not in places]
    decided = {track: {name: group[0] for name, group in groups.items()} for track, groups in ranked(finals).items()}
    for track, groups in ranked(alone).items():
        for name, group in groups.items():
            decided.setdefault(track, {})[name] = group[0]
    return decided
