"""All that is known of one model: its checkpoints, their scores as arrays, and the joint resamples of every task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..harness.errors import UserError
from ..harness.records import Record
from ..harness.specs import digest
from .bootstrap import bootstrap_means
from .inputs import BoardSpec, Checkpoint
from .metrics import Floats, forget_part, retain_part, s_unlearning
from .scores import Table, collect
from .significance import Tested, compare_items


class Evidence:
    """The checkpoints of one model in a fixed order, with the scores and resamples of each task, drawn once.

    The draws of a task depend on the bootstrap seed, the task's name and the union of its clusters only.

    Attributes:
        checkpoints: sorted, whatever order they came in.
        tables: task name to scores.
        means: task name to means [B + 1, K], row 0 from the data themselves.
    """

    def __init__(self, spec: BoardSpec, checkpoints: Sequence[Checkpoint]) -> None:
        self.spec = spec
        self.checkpoints = sorted(checkpoints, key=_order)
        self.tables: dict[str, Table] = {}
        self.means: dict[str, Floats] = {}
        self._strata: dict[tuple[str, str], Floats] = {}
        for name, info in sorted(spec.tasks.items()):
            try:
                table = collect([self.records(k, name) for k in range(len(self.checkpoints))], info.metric)
            except UserError as error:
                raise UserError(f"Task {name!r}: {error}") from None
            self.tables[name] = table
            self.means[name] = self._resample(table, name)

    def records(self, index: int, task: str) -> Sequence[Record]:
        """Return a checkpoint's records of a task; empty where it has none or did not finish."""
        checkpoint = self.checkpoints[index]
        return checkpoint.records.get(task, ()) if checkpoint.status == "ok" else ()

    def draws(self, task: str, columns: Sequence[int]) -> Floats:
        """Return the means of some checkpoints [B + 1, k]; those without any score of the task are left out."""
        return _present(self.means[task][:, list(columns)])

    def stratum_draws(self, task: str, stratum: str, columns: Sequence[int]) -> Floats:
        """Return the same within one stratum; its clusters are drawn for themselves, once for all checkpoints."""
        key = (task, stratum)
        if key not in self._strata:
            self._strata[key] = self._resample(self.tables[task].stratum(stratum), list(key))
        return _present(self._strata[key][:, list(columns)])

    def scored(self, task: str, columns: Sequence[int]) -> list[int]:
        """Return those of some checkpoints that have a score of the task."""
        return [k for k in columns if not np.isnan(self.means[task][0, k])]

    def s_draws(self, track: str, columns: Sequence[int]) -> Floats:
        """Return S-unlearning of some checkpoints, recomputed whole in each resample [B + 1, k]."""
        forget, retain = self._roles(track, columns)
        forget_chance, retain_chance = self._chances(track)
        return s_unlearning(forget, retain, forget_chance=forget_chance, retain_chance=retain_chance)

    def unclipped_draws(self, track: str, columns: Sequence[int]) -> tuple[Floats, Floats]:
        """Return Ubar and Rbar before clipping, each [B + 1, k]."""
        forget, retain = self._roles(track, columns)
        forget_chance, retain_chance = self._chances(track)
        return forget_part(forget, forget_chance, clip=False), retain_part(retain, retain_chance, clip=False)

    def compare(self, task: str, plus: Sequence[int], minus: Sequence[int]) -> Tested | None:
        """Test whether two sets of columns score a task alike, or None where no item has a score on both sides."""
        rng = self._generator([task, "signs"])
        return compare_items(self.tables[task], plus, minus, confidence=self.spec.confidence, rng=rng)

    def lacking(self, track: str, index: int) -> str | None:
        """Return the task of a track of which a finished checkpoint has no score at all, or None."""
        roles = self.spec.tracks[track]
        for task in (roles.forget_task, roles.retain_task):
            if np.isnan(self.means[task][0, index]):
                return task
        return None

    def _resample(self, table: Table, key: str | list[str]) -> Floats:
        return bootstrap_means(table, self.spec.resamples, self._generator(key))

    def _generator(self, key: str | list[str]) -> np.random.Generator:
        return np.random.default_rng([self.spec.seed, int(digest(key), 16)])

    def _roles(self, track: str, columns: Sequence[int]) -> tuple[Floats, Floats]:
        roles = self.spec.tracks[track]
        return self.means[roles.forget_task][:, list(columns)], self.means[roles.retain_task][:, list(columns)]

    def _chances(self, track: str) -> tuple[float, float]:
        roles = self.spec.tracks[track]
        return self.spec.tasks[roles.forget_task].chance, self.spec.tasks[roles.retain_task].chance


def _present(means: Floats) -> Floats:
    return means[:, ~np.isnan(means[0])]


def _order(checkpoint: Checkpoint) -> tuple:
    return (
        checkpoint.track or "",
        checkpoint.variant,
        -1 if checkpoint.seed is None else checkpoint.seed,
        checkpoint.cell,
    )
