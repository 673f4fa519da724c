"""Training in stages: models that are trained first, each by an objective of its own, and used by what comes after."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...methods.base import Method
from ..errors import UserError
from ..models.patch import apply_delta, put_tensors
from ..suite import TrainingSpec
from .batches import Batches, Corpora
from .context import ModelContext
from .trainer import Trainer


@dataclass(frozen=True)
class _Part:
    """A stage, or at last the method itself under no name."""

    name: str | None
    method: Method
    training: TrainingSpec
    start: str | None
    steps: int


class StagedTrainer:
    """Trains a method's stages one after the other, then the method: to whoever runs it, one training.

    Every stage sees the text, the order and the seed of the method's. What it made is kept as the tensors that differ
    from the model as it was, rounded to the model's dtype as a checkpoint is, and goes through `state_dict`. Arguments
    are those of `Trainer`; a replica starts a hair apart in the method's own training only.

    Attributes:
        steps: optimiser steps of all stages and of the method, at most.
        method: the method itself.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        method: Method,
        corpora: Corpora,
        training: TrainingSpec,
        seed: int,
        device: str = "cpu",
        depth: int | None = None,
        checkpointing: bool = False,
        replica: bool = False,
        start: str | None = None,
    ) -> None:
        self.method = method
        self._model, self._text, self._start = model, (tokenizer, corpora), start
        self._options = seed, device, depth, checkpointing
        self._replica = replica
        self._parts = [*self._stages(method, training), self._part(None, method, training, method.start)]
        self.steps = sum(part.steps for part in self._parts)
        self._made: dict[str, dict[str, Tensor]] = {}
        self._logs: dict[str, list[dict[str, Any]]] = {}
        self._open(0)

    @property
    def step(self) -> int:
        """Steps done, those of finished stages counted in full."""
        return self._before + self._trainer.step

    @property
    def done(self) -> bool:
        """Whether the method's own training is over."""
        return self._last and self._trainer.done

    @property
    def context(self) -> ModelContext:
        """The context of what is being trained."""
        return self._trainer.context

    @property
    def cut(self) -> dict[str, Any]:
        """Which answers the training cuts off; see `Trainer.cut`."""
        return self._trainer.cut

    @property
    def log(self) -> list[dict[str, Any]]:
        """The log of the method's own training; its first row has those of the stages, by name."""
        first, *rows = self._trainer.log
        return [{**first, "stages": self._logs}, *rows]

    def run(self, on_step: Callable[[dict[str, Any]], None] | None = None, until: int | None = None) -> None:
        """Train to the end, or until so many steps are done; see `Trainer.run`."""
        while True:
            self._trainer.run(on_step, None if until is None else until - self._before)
            if self._last or not self._trainer.done or (until is not None and self.step >= until):
                return
            self._next()

    def delta(self) -> dict[str, Tensor]:
        """Return the tensors that differ from the model as it was; see `Trainer.delta`."""
        own = self._made.get(self._parts[self._index].start or "", {}) | self._trainer.delta()
        return {
            name: value
            for name, value in own.items()
            if name not in self._originals or not torch.equal(value, self._originals[name])
        }

    def restore(self) -> None:
        """Give the model its original tensors back."""
        self._trainer.restore()
        put_tensors(self._model.state_dict(), self._originals)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, results of finished stages included; see `Trainer.state_dict`."""
        stages = {"index": self._index, "made": self._made, "logs": json.dumps(self._logs)}
        return {"stages": stages, "current": self._trainer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.restore()
        self._made = dict(state["stages"]["made"])
        self._logs = json.loads(state["stages"]["logs"])
        self._open(state["stages"]["index"])
        self._trainer.load_state_dict(state["current"])

    @property
    def _last(self) -> bool:
        return self._index == len(self._parts) - 1

    def _stages(self, method: Method, training: TrainingSpec) -> list[_Part]:
        parts: list[_Part] = []
        for name, stage in method.stages().items():
            own = TrainingSpec.parse({**training.identity(), **stage.training}, f"training of stage {name}")
            parts.append(self._part(name, stage.method, own, stage.start))
        known = {part.name: place for place, part in enumerate(parts)}
        for place, start in [*enumerate(part.start for part in parts), (len(parts), method.start)]:
            if start is not None and known.get(start, place) >= place:
                raise UserError(f"{type(method).__name__} starts from {start!r}, which is no earlier stage.")
        return parts

    def _part(self, name: str | None, method: Method, training: TrainingSpec, start: str | None) -> _Part:
        tokenizer, corpora = self._text
        steps = Batches(corpora, tokenizer, training, 0, torch.device("cpu")).steps
        return _Part(name, method, training, start, steps)

    def _open(self, index: int) -> None:
        """Begin a part, on the model that it starts from."""
        part, self._index = self._parts[index], index
        self._before = sum(part.steps for part in self._parts[:index])
        own = self._made.get(part.start or "", {})
        self._originals = apply_delta(self._model, type(self._model).__name__, own)
        replica = self._replica and self._last
        memory = (self._start, object()) if self._made else self._start
        stages = {name: {**self._originals, **tensors} for name, tensors in self._made.items()}
        try:
            self._trainer = Trainer(
                self._model,
                self._text[0],
                part.method,
                self._text[1],
                part.training,
                *self._options,
                replica,
                memory,
                stages,
            )
        except BaseException:
            put_tensors(self._model.state_dict(), self._originals)
            raise

    def _next(self) -> None:
        """End a stage: keep what it made, give the model its tensors back, and begin the next part."""
        name = self._parts[self._index].name or ""
        self._made[name], self._logs[name] = self.delta(), self._trainer.log
        self.restore()
        self._open(self._index + 1)


def make_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    method: Method,
    corpora: Corpora,
    training: TrainingSpec,
    seed: int,
    *options: Any,
    **named: Any,
) -> Trainer | StagedTrainer:
    """Return what trains a method: its trainer, or one of its stages and then itself; arguments as `Trainer`'s."""
    kind = StagedTrainer if method.stages() else Trainer
    return kind(model, tokenizer, method, corpora, training, seed, *options, **named)
