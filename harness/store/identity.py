"""Identity: from the intent of a checkpoint (cell id) over the fact (sha256 of its delta) to outcomes and records."""

from __future__ import annotations

from typing import Any, Literal

from ..specs import Spec, digest, identity, recorded

BASE = "base"
"""The delta sha256 of the untouched base model."""
CONSTANT, SHUFFLED, UNRELATED = NULLS = ("constant", "shuffled", "unrelated")
"""Null rows on request (see `nulls`)."""
UNMADE = {BASE: BASE, SHUFFLED: BASE, CONSTANT: CONSTANT}
"""Transforms of which nothing is made, to what stands for the sha256 of their delta."""


class CellSpec(Spec):
    """An intended checkpoint: a model and the transform that makes it. Fields a transform does not use are None.

    A derived cell is its parent after a stress; a training may start from another cell, its track's original. The id of
    what starts from a cell stands once that one is made: `status.settle` puts the sha256 of its delta into
    `settings["parent"]`, so that a parent that comes out otherwise has others.
    """

    schema_version: int = identity(1)
    model: str = identity(description="digest of the base model")
    transform: str = identity(
        description="base, constant, shuffled, or registered: train, finetune, noise, import, quantise, relearn"
    )
    parents: tuple[str, ...] = identity((), description="cells that it is made from or matched to")
    track: str | None = identity(None)
    seed: int | None = identity(None, description="training seed")
    settings: dict[str, Any] = identity({}, description="all that the transform's result depends on")
    method: str = recorded(description="method, or the transform's own name for nulls and imports")
    variant: str = recorded(description="name on boards; of a derived cell its parent's, then + and the stress")
    stress: str | None = recorded(None, description="what its parent was put through, by its name in the suite")

    @property
    def id(self) -> str:
        """The cell id: a digest of the identity fields."""
        return digest(self.identity())

    @property
    def origin(self) -> str:
        """The transform of the checkpoint itself, or of the one that was put under stress; a null's name."""
        if self.method in NULLS:
            return self.method
        if self.stress is None:
            return self.transform
        return self.method if self.method in (BASE, "noise", "import", "finetune") else "train"

    @property
    def elsewhere(self) -> bool:
        """Whether it is a whole model that stays in its own folder, and no change of the base."""
        return self.transform == "import" and "digest" in self.settings

    @property
    def changes(self) -> Literal["weights", "decoding"]:
        """`weights`, or `decoding` where the checkpoint is a method's rule for the base's logits."""
        return self.settings.get("changes", "weights")

    @property
    def beside(self) -> Literal["noise", "replica"] | None:
        """What it is to its one parent: noise of that one's norm, or its training once more; None: a row of its own.

        The row `noise` of older runs is matched to all of their methods and stands for itself.
        """
        if self.stress is not None:
            return None
        if "replica" in self.settings:
            return "replica"
        return "noise" if self.transform == "noise" and self.variant != "noise" else None

    @property
    def start(self) -> str | None:
        """The cell whose weights it is made from, always the last of its parents; None: those of the base.

        What stands beside a checkpoint starts from where that one started.
        """
        if self.beside is not None:
            return self.parents[1] if len(self.parents) > 1 else None
        derived = self.stress is not None or self.transform == "train"
        return self.parents[-1] if derived and self.parents else None

    @property
    def label(self) -> str:
        """A name for people: track/variant#seed."""
        name = f"{self.track}/{self.variant}" if self.track else self.variant
        return name if self.seed is None else f"{name}#{self.seed}"


class OutcomeSpec(Spec):
    """What raw answers depend on."""

    schema_version: int = identity(1)
    model: str = identity(description="digest of the base model")
    delta: str = identity(description="sha256 of the delta, `base`, or the digest of an imported folder")
    task: str = identity()
    version: int = identity()
    settings: dict[str, Any] = identity(description="those settings that the answers depend on")
    data: str = identity(description="digest of the task's rows")
    items: str = identity(description="digest of the item ids that were asked")
    engine: str = identity()
    dtype: str = identity()
    chat: bool = identity(False, description="prompts in the model's chat template")

    @property
    def id(self) -> str:
        """The outcome id."""
        return digest(self.identity())


class RecordSpec(Spec):
    """What scores depend on."""

    schema_version: int = identity(1)
    outcome: str = identity()
    version: int = identity(description="version of the task")
    settings: dict[str, Any] = identity(description="all settings of the task")
    scorer: dict[str, Any] | None = identity(None, description="kind, version and digest of the scorer")

    @property
    def id(self) -> str:
        """The record id."""
        return digest(self.identity())
