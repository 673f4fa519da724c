"""What stands beside a checkpoint, for its own row's verdict: noise of its norm, and its training once more (replica).

Noise answers what a change of that size does by itself, so every checkpoint with other weights has its own; what works
at decoding time has none. A replica, on request, answers what the last bits of the weights do to a training. Both are
asked what S is made of and are put through no stress.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..store.identity import CellSpec
from .plan import PlannedCell


def attached_cells(cell: PlannedCell, dtype: str, seed: int, *, noise: bool, replicate: bool) -> Iterator[PlannedCell]:
    """Give the cells that stand beside a planned one.

    `dtype` is the model's; `seed` the run's first, of an import's noise and of replicas.
    """
    spec = cell.spec
    if noise and spec.transform in ("train", "import") and spec.changes == "weights":
        yield PlannedCell(model=cell.model, spec=_noise(spec, dtype, seed), folder=cell.folder)
    if replicate and spec.transform == "train" and spec.seed == seed:
        yield PlannedCell(model=cell.model, spec=_replica(spec))


def _noise(spec: CellSpec, dtype: str, seed: int) -> CellSpec:
    return CellSpec(
        model=spec.model,
        transform="noise",
        track=spec.track,
        seed=seed if spec.seed is None else spec.seed,
        parents=(spec.id,),
        settings={"version": 1 if dtype == "float32" else 2},
        method="noise",
        variant=f"noise({spec.variant})",
    )


def _replica(spec: CellSpec) -> CellSpec:
    changed = {
        "parents": (spec.id,),
        "settings": {**spec.settings, "replica": 1},
        "variant": f"replica({spec.variant})",
    }
    return spec.model_copy(update=changed)
