"""Whether another run would give the same value: what seeds differ by, and what a millionth of a change does."""

from __future__ import annotations

from ..schema import NoiseShares, Replica
from .groups import Group
from .resampling import Resamples, Statistic

MOST = 0.5
"""Share of the variance of S that seeds have, or of a half-width that a replica moves by, that makes a row unstable."""


def seed_range(resamples: Resamples, track: str, group: Group) -> list[float] | None:
    """Return the smallest and the largest S of a row's seeds, None below two."""
    values = resamples.s_draws(track, group.columns)[0].tolist()
    return [min(values), max(values)] if len(values) > 1 else None


def replicas(resamples: Resamples, track: str, group: Group) -> list[Replica]:
    """Return what the replicas of a row's checkpoints come to."""
    return [
        {
            "seed": resamples.checkpoints[own].seed,
            **{name: float(resamples.values(part, [twin])[0, 0]) for name, part in _parts(resamples, track).items()},  # pyright: ignore[reportReturnType]
        }
        for own, twin in group.replicas
    ]


def unstable(resamples: Resamples, track: str, group: Group, shares: NoiseShares | None) -> str | None:
    """Return why another run of a row may give another value, None where nothing says so.

    `shares` are those of the variance of its S. From three seeds on: the variance between seeds exceeds that over
    items. A replica: S, or either metric, moves by more than half the half-width of the checkpoint's own interval.
    """
    if group.replicated and shares and shares["seeds"] > MOST:
        return f"{shares['seeds']:.0%} of the variance of S come from training seeds"
    for own, twin in group.replicas:
        for name, part in _parts(resamples, track).items():
            value = resamples.estimate(part, [own])
            if value is None or value.low is None or value.high is None:
                continue
            moved = float(resamples.values(part, [twin])[0, 0]) - value.value
            if abs(moved) > MOST * (value.high - value.low) / 2:
                what = "S" if name == "s_unlearning" else name
                return (
                    f"trained again from weights moved by a millionth, {what} changes by {moved:+.3f}, its interval"
                    f" reaches {(value.high - value.low) / 2:.3f}"
                )
    return None


def _parts(resamples: Resamples, track: str) -> dict[str, Statistic]:
    roles = resamples.spec.tracks[track]
    return {
        "s_unlearning": resamples.s(track),
        "forget": resamples.metric(roles.forget_task),
        "retain": resamples.metric(roles.retain_task),
    }
