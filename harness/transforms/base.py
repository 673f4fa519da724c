"""The contract of a transform."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from ..registry import Registry

if TYPE_CHECKING:
    from ..jobs import MakeJob, Report

transforms: Registry[type[Transform]] = Registry(
    "transform", "unlearn_bench.harness.transforms", "unlearn_bench.transforms"
)
register = transforms.register


@dataclass(frozen=True)
class Made:
    """What a transform made: a delta, or for an import (digest, folder); a log; and a summary for people."""

    delta: dict[str, Tensor] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    imported: tuple[str, str] | None = None


class Transform(ABC):
    """Anything that makes a checkpoint. Its result depends on nothing but the identity fields of the cell."""

    summary: ClassVar[str]

    @abstractmethod
    def make(self, job: MakeJob, report: Report) -> Made:
        """Make the checkpoint; leave the resident base model as it was."""
