"""What stands beside a checkpoint, for its own row's verdict: noise of its norm, and its training once more (replica).

Noise answers what a change of that size does by itself, so every checkpoint with other weights has its own, added to
what it started from; what works at decoding time has none. A replica, on request, answers what the last bits of the
weights do to a training. Both are asked what S is made of and are put through no stress.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..store.identity import CellSpec
from .plan import PlannedCell


def attached_cells(
    cell: PlannedCell, start: str | None, dtype: str, seed: int, *, noise: bool, replicate: bool
) -> Iterator[PlannedCell]:
    """Give the cells that stand beside a planned one; none beside a reference.

    `start` is the cell that it starts from, None: the base; `dtype` the model's; `seed` the run's first, of an import's
    noise and of replicas.
    """
    spec = cell.spec
    if cell.role is not None:
        return
    parents = (spec.id,) if start is None else (spec.id, start)
    if noise and spec.transform in ("train", "import") and spec.changes == "weights":
        yield PlannedCell(model=cell.model, spec=_noise(spec, parents, dtype, seed), folder=cell.folder)
    if replicate and spec.transform == "train" and spec.seed == seed:
        yield PlannedCell(model=cell.model, spec=_replica(spec, parents))


def _noise(spec: CellSpec, parents: tuple[str, ...], dtype: str, seed: int) -> CellSpec:
    return CellSpec(
        model=spec.model,
        transform="noise",
        track=spec.track,
        seed=seed if spec.seed is None else spec.seed,
        parents=parents,
        settings={"version": 1 if dtype == "float32" else 2},
        method="noise",
        variant=f"noise({spec.variant})",
    )


def _replica(spec: CellSpec, parents: tuple[str, ...]) -> CellSpec:
    changed = {
        "parents": parents,
        "settings": {**spec.settings, "replica": 1},
        "variant": f"replica({spec.variant})",
    }
    return spec.model_copy(update=changed)
