"""The contract of a transform."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..registry import Registry
from ..specs import Spec

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.load import ModelSpec
    from ..runtime import OnEvent, RunConfig
    from ..store.identity import CellSpec
    from ..suite import CorporaSpec, SourceSpec


@dataclass(frozen=True)
class BuildJob:
    """Make one checkpoint from its cell; with `wait`, after another process that is at it.

    Its text: `corpora` is its track's, `text` the sources that plain fine-tuning trains on.
    """

    config: RunConfig
    model: ModelSpec
    cell: CellSpec
    corpora: CorporaSpec | None = None
    folder: Path | None = None
    wait: bool = False
    text: tuple[SourceSpec, ...] = ()


transforms: Registry[type[Transform]] = Registry(
    "transform", "unlearn_bench.harness.transforms", "unlearn_bench.transforms"
)
register = transforms.register


@dataclass(frozen=True)
class TransformResult:
    """What a transform made: a delta, or for an import (digest, folder); a log; and a summary for people.

    `decoding` says what an engine does with the delta's tensors, where they are no changed weights (see `store.delta`).
    `before`: seconds that an interrupted job had spent on it. `attention`: the kernel that a training ran with.
    """

    delta: dict[str, Tensor] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    imported: tuple[str, str] | None = None
    decoding: dict[str, Any] | None = None
    before: float = 0.0
    attention: str | None = None


class Transform(ABC):
    """Anything that makes a checkpoint. Its result depends on nothing but the identity fields of the cell."""

    summary: ClassVar[str]

    @abstractmethod
    def make(self, job: BuildJob, report: OnEvent) -> TransformResult:
        """Make the checkpoint; leave the cached base model as it was."""


class Stress(Transform):
    """A transform of one finished checkpoint, its parent: what remains of the forgetting after it?

    Its cell's settings hold `version`, `settings` and `parent`, the sha256 of the parent's delta; with text also
    `training` and `data`, the digests of the text by topic.

    Class attributes:
        Settings: the pydantic model of its settings, all of them identity.
        version: raised whenever a change alters what it makes from the same parent.
        needs_text: whether it trains on the track's `relearn` text; its settings then have a mapping `training`.
    """

    Settings: ClassVar[type[Spec]]
    version: ClassVar[int]
    needs_text: ClassVar[bool] = False
