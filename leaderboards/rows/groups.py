"""The rows of a table before their numbers: which checkpoints belong together, and which row is compared with which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...harness.errors import UserError
from ..spec import Checkpoint
from .resampling import Resamples

RANKED = ("method", "import")


@dataclass(frozen=True)
class Group:
    """The checkpoints of a row: all that were planned, and the columns of those that are measured on the track."""

    variant: str
    members: tuple[int, ...]
    columns: tuple[int, ...]
    first: Checkpoint

    @property
    def ranked(self) -> bool:
        """Whether it has a rank: methods and imports with a measured checkpoint."""
        return self.first.kind in RANKED and bool(self.columns)


@dataclass(frozen=True)
class Rivals:
    """What the rows of a table are compared with; None where there is no such row, or none measured."""

    base: Group | None
    noise: Group | None

    def of(self, group: Group) -> Rivals:
        """Return those of a row: base for all but itself, noise for ranked rows only."""
        base = self.base if group.first.kind != "base" else None
        return Rivals(base, self.noise if group.first.kind in RANKED else None)

    def __iter__(self):
        return iter((self.base, self.noise))


def groups_of(resamples: Resamples, track: str) -> list[Group]:
    """Return the rows of a track, by name.

    Raises:
        UserError: one name for rows of different kinds, or two cells for one seed.
    """
    members: dict[str, list[int]] = {}
    for index, checkpoint in enumerate(resamples.checkpoints):
        if checkpoint.track in (None, track) and checkpoint.stress is None:
            members.setdefault(checkpoint.variant, []).append(index)
    groups = []
    for variant, indices in sorted(members.items()):
        checkpoints = [resamples.checkpoints[index] for index in indices]
        if len({checkpoint.kind for checkpoint in checkpoints}) > 1:
            raise UserError(f"{variant!r} is the name of rows of different kinds; rename the imported checkpoint.")
        seeds = [checkpoint.seed for checkpoint in checkpoints]
        if len(set(seeds)) < len(seeds):
            cells = ", ".join(checkpoint.cell for checkpoint in checkpoints)
            raise UserError(f"Row {variant!r} ({checkpoints[0].model}, {track}) has two cells for one seed: {cells}.")
        measured = [k for k in indices if resamples.checkpoints[k].status == "ok" and not resamples.lacking(track, k)]
        groups.append(Group(variant, tuple(indices), tuple(measured), checkpoints[0]))
    return groups


def rivals_of(resamples: Resamples, track: str, groups: Sequence[Group]) -> Rivals:
    """Return the measured base, and of several measured noise rows the one with the highest S."""
    base = next((group for group in groups if group.first.kind == "base" and group.columns), None)
    noises = [group for group in groups if group.first.kind == "noise" and group.columns]
    noise = max(noises, key=lambda group: float(resamples.s_draws(track, group.columns)[0].mean()), default=None)
    return Rivals(base, noise)
