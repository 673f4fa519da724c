"""The rows of a table before their numbers: which checkpoints belong together, and what each row is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ...harness.errors import UserError
from ...harness.records import MANY
from ..spec import Checkpoint, TaskInfo
from ..stats.arrays import mark_shares
from ..stats.intervals import SEEDS_FOR_METHOD
from .resampling import Resamples

RANKED = ("method", "import")


@dataclass(frozen=True)
class Group:
    """The checkpoints of a row: all that were planned, and the columns of those that are measured on the track.

    Attributes:
        noise: columns of the row's own noise: of each of its checkpoints, noise of the same norm.
        replicas: measured column to that of the same training from weights moved by a millionth.
        broken: share of its answers to the forget task that are none, where that costs it its S.
    """

    variant: str
    members: tuple[int, ...]
    columns: tuple[int, ...]
    first: Checkpoint
    noise: tuple[int, ...] = ()
    replicas: tuple[tuple[int, int], ...] = ()
    broken: float | None = None

    @property
    def ranked(self) -> bool:
        """Whether it has a rank: methods and imports with a measured checkpoint whose answers are answers."""
        return self.first.kind in RANKED and bool(self.columns) and self.broken is None

    @property
    def replicated(self) -> bool:
        """Whether it speaks of its method: it has as many seeds as that needs."""
        return self.first.kind == "method" and len(self.columns) >= SEEDS_FOR_METHOD


def groups_of(resamples: Resamples, track: str) -> list[Group]:
    """Return the rows of a track, by name.

    Raises:
        UserError: one name for rows of different kinds, or two cells for one seed.
    """
    members: dict[str, list[int]] = {}
    for index, checkpoint in enumerate(resamples.checkpoints):
        if checkpoint.track in (None, track) and checkpoint.stress is None and checkpoint.beside is None:
            members.setdefault(checkpoint.variant, []).append(index)
    beside = _beside(resamples, track)
    groups = [_group(resamples, track, name, indices, beside) for name, indices in sorted(members.items())]
    base = base_of(resamples, track, groups)
    usual = broken_share(resamples, track, base.columns) if base else 0.0
    return [replace(group, broken=_broken(resamples, track, group, usual)) for group in groups]


def base_of(resamples: Resamples, track: str, groups: Sequence[Group]) -> Group | None:
    """Return the measured row that others are compared with: base, or the track's original where it has one."""
    original = resamples.spec.tracks[track].compared == "original"
    return next((group for group in groups if group.columns and _is_compared(group.first, original)), None)


def untouched(groups: Sequence[Group]) -> Group | None:
    """Return the measured base, whatever others are compared with."""
    return next((group for group in groups if group.columns and _is_compared(group.first, False)), None)


def _is_compared(checkpoint: Checkpoint, original: bool) -> bool:
    return checkpoint.role == "original" if original else checkpoint.kind == "base"


def broken_share(resamples: Resamples, track: str, columns: Sequence[int]) -> float:
    """Return the share of some checkpoints' answers to the forget task that are none; marks add up, at most to 1."""
    task = resamples.spec.tracks[track].forget_task
    return none_of(resamples.spec.tasks[task], mark_shares([resamples.answers[task][k] for k in columns]))


def none_of(task: TaskInfo, shares: Mapping[str, float]) -> float:
    """Return the share of answers that are none from the share of each mark."""
    return min(1.0, sum(shares.get(name, 0.0) for name, mark in task.marks.items() if mark.broken))


def _broken(resamples: Resamples, track: str, group: Group, usual: float) -> float | None:
    if group.first.kind not in RANKED or not group.columns:
        return None
    share = broken_share(resamples, track, group.columns)
    return share if share - usual > MANY else None


def _beside(resamples: Resamples, track: str) -> dict[tuple[str, str], int]:
    """Return what stands beside checkpoints and is measured: (cell, what) to column."""
    return {
        (checkpoint.of, checkpoint.beside): k
        for k, checkpoint in enumerate(resamples.checkpoints)
        if checkpoint.of and checkpoint.beside and measured(resamples, track, k)
    }


def measured(resamples: Resamples, track: str, k: int) -> bool:
    """Tell whether a checkpoint is finished and has scores of both tasks that a track's S is made of."""
    return resamples.checkpoints[k].status == "ok" and not resamples.lacking(track, k)


def _group(
    resamples: Resamples, track: str, variant: str, indices: Sequence[int], beside: dict[tuple[str, str], int]
) -> Group:
    checkpoints = [resamples.checkpoints[index] for index in indices]
    if len({checkpoint.kind for checkpoint in checkpoints}) > 1:
        raise UserError(f"{variant!r} is the name of rows of different kinds; rename the imported checkpoint.")
    seeds = [checkpoint.seed for checkpoint in checkpoints]
    if len(set(seeds)) < len(seeds):
        cells = ", ".join(checkpoint.cell for checkpoint in checkpoints)
        raise UserError(f"Row {variant!r} ({checkpoints[0].model}, {track}) has two cells for one seed: {cells}.")
    columns = tuple(k for k in indices if measured(resamples, track, k))
    cells = {k: resamples.checkpoints[k].cell for k in columns}
    return Group(
        variant,
        tuple(indices),
        columns,
        checkpoints[0],
        tuple(beside[cell, "noise"] for cell in cells.values() if (cell, "noise") in beside),
        tuple((k, beside[cell, "replica"]) for k, cell in cells.items() if (cell, "replica") in beside),
    )
