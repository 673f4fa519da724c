"""Jobs: what a worker does, as plain data; everything it makes goes to the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..models.load import ModelSpec
from ..planning.plan import PlannedTask
from ..runtime import RunConfig
from ..store.identity import CellSpec
from ..transforms.base import BuildJob


@dataclass(frozen=True)
class EvalJob:
    """Run tasks on one finished checkpoint (an import in its `folder`) and score the answers; `wait` as above."""

    config: RunConfig
    model: ModelSpec
    cell: CellSpec
    tasks: tuple[PlannedTask, ...]
    engine: str
    folder: Path | None = None
    wait: bool = False


Job = BuildJob | EvalJob
