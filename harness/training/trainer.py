"""The loop that trains a method: batches, optimiser, precision, log, interruption and resumption."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from ...methods.base import Batch, Method
from ..errors import TrainingError, UserError
from ..models.layers import embed_in_main_memory
from ..rng import generator
from ..runtime import CUT
from ..suite import TrainingSpec
from .batches import Batches, Corpora
from .context import ModelContext
from .parameters import LoRAParameters, TrainableParameters

logger = logging.getLogger(__name__)


@contextmanager
def matrix_products(precision: str) -> Iterator[None]:
    """Let a GPU multiply float32 matrices in TF32 where the precision says so, and only there."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


class Trainer:
    """Trains one cell: a model, a method, its corpora and a seed.

    Everything a method draws comes from `context.rng`; torch's global generator is seeded anew for the set-up and for
    each step, so that nothing depends on what ran before. Dropout is off. On a GPU an embedding that does not train
    stays in main memory, and a step that does not fit is done again with checkpointing, which changes no result.

    Args:
        model: what to train, changed in place until `restore`; the whole, or its first layers.
        tokenizer: the model's.
        method: the objective, with its settings.
        corpora: forget, retain and probe text.
        training: what the loop does.
        seed: the cell's training seed.
        device: where it runs.
        depth: decoder layers of the whole model, where `model` is a part of it.
        checkpointing: see `ForwardPasses`.
        replica: start a hair from the model's weights, and go on as without; see `TrainableParameters.perturb`.
        start: what says which weights the model has, where they are not its own.
        stages: by name the tensors in which what earlier stages made differs from this start.

    Attributes:
        steps: optimiser steps: `training.steps`, or `training.epochs` over the texts of all forget topics; the most
            that there can be, where the method has a rule to stop by.
        step: steps done.
        cut: for the summary, which answers the training cuts off; empty where none.
        log: first `{"step": -1, "setup": …, "shared_layers": …}`, then a row a step: step, topic, losses, total,
            grad_norm, learning_rate where it is not constant, what the method's `after_step` returned, and `stopped`
            where its rule ended training with this step, with the reason.

    Raises:
        UserError: text, parameters or layers that do not exist.
        TrainingError: see there.
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
        start: Hashable = None,
        stages: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> None:
        self.method, self.training, self.seed = method, training, seed
        place = torch.device(device)
        model.to(place).eval()  # pyright: ignore[reportArgumentType]
        batches = Batches(corpora, tokenizer, training, seed, place, method.auxiliary)
        self.cut = {CUT: batches.cut} if batches.cut else {}
        self.context = ModelContext(model, batches, seed, place, depth)
        self.context.passes.checkpointing = checkpointing
        self.context.arithmetic = training.precision, training.keep_prefix, start
        self.steps, self.step = batches.steps, 0
        self._restored = False
        self._moved: list[RemovableHandle] = []
        lora, common = method.lora(), (model, training.precision, training.optimizer)
        self._tensors = TrainableParameters(*common) if lora is None else LoRAParameters(*common, lora)
        try:
            self._seed_torch(-1)
            self._tensors.open(method.trained(self.context))
            if replica:
                self._tensors.perturb(seed)
            self._moved = embed_in_main_memory(model, place, self._tensors.parameters.values())
            self.context.keep_originals(self._tensors.originals, training.keep_prefix)
            self.context.keep_stages(stages or {})
            with torch.no_grad():
                method.context = self.context
                method.setup(self.context)
            self._optimizer = _optimizer(list(self._tensors.masters.values()), training)
            self._schedule = _schedule(self._optimizer, training, self.steps)
        except BaseException:
            self.restore()
            raise
        self.log: list[dict[str, Any]] = [
            {"step": -1, "setup": method.log_setup(), "shared_layers": self.context.shared}
        ]

    def run(self, on_step: Callable[[dict[str, Any]], None] | None = None, until: int | None = None) -> None:
        """Train to the end, or until `until` steps are done; `on_step` gets each row of the log.

        Raises:
            TrainingError: a loss or gradient that is not finite, or an end that equals the start.
        """
        if self._restored:
            raise RuntimeError("This trainer gave its model back; make a new one.")
        while not self.done and (until is None or self.step < until):
            row = self._train_step()
            self.log.append(row)
            self.step += 1
            logger.debug("%s, step %d of %d: %s", self._name, self.step, self.steps, row)
            if on_step is not None:
                on_step(row)
        if self.done and not self.delta():
            raise TrainingError(
                f"{self._name} returned the base unchanged after {self.step} steps: none of"
                f" {len(self._tensors.parameters)} trained tensors differs in the model's dtype. Raise the learning"
                " rate or the steps."
            )

    @property
    def done(self) -> bool:
        """Whether nothing remains to be trained: all steps are done, or the method's rule ended it."""
        return self.step >= self.steps or self.log[-1].get("stopped") is not None

    def delta(self) -> dict[str, Tensor]:
        """Return the tensors that changed: new values as `finish` leaves them, in the dtype of the model as loaded."""
        if type(self.method).finish is Method.finish:
            return self._tensors.delta()
        return self._tensors.finished(self.method.finish)

    def restore(self) -> None:
        """Give the model its original tensors back, bit-equal, gradients off; this trainer is then done."""
        for handle in self._moved:
            handle.remove()
        self._tensors.restore()
        self._restored = True

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, loadable with `torch.load(weights_only=True)`."""
        return {
            "step": self.step,
            "tensors": {name: master.detach().to("cpu", copy=True) for name, master in self._tensors.masters.items()},
            "optimizer": self._optimizer.state_dict(),
            **({} if self._schedule is None else {"schedule": self._schedule.state_dict()}),
            "method": self.method.state_dict(),
            "references": dict(self.context.references),
            "rng": json.dumps(self.context.rng.bit_generator.state),
            "log": json.dumps(self.log),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken: the result equals that of an unbroken run, bit for bit."""
        if set(state["tensors"]) != set(self._tensors.parameters):
            raise UserError(
                f"The saved state belongs to another run: it trains {sorted(state['tensors'])!s:.200}. Remove the"
                " *.piece files in the cell's folder and run again."
            )
        self._tensors.load(state["tensors"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._schedule is not None:
            self._schedule.load_state_dict(state["schedule"])
        self.method.load_state_dict(state["method"])
        self.context.references = dict(state.get("references", {}))
        self.context.rng.bit_generator.state = json.loads(state["rng"])
        self.log = json.loads(state["log"])
        self.step = state["step"]

    @property
    def _name(self) -> str:
        return f"Method {type(self.method).__name__}"

    def _train_step(self) -> dict[str, Any]:
        count = self.training.accumulation
        batches = [self.context.batch(self.step * count + index) for index in range(count)]
        losses, row = self._gradients(batches)
        row["grad_norm"] = self._finite("grad_norm", self._clip())
        self._optimizer.step()
        if self._schedule is not None:
            row["learning_rate"] = self._schedule.get_last_lr()[0]
            self._schedule.step()
        self._tensors.push_values()
        with torch.no_grad():
            row |= self.method.after_step(batches[-1], losses)
            reason = self.method.should_stop(row)
        return row if reason is None else {**row, "stopped": reason}

    def _gradients(self, batches: list[Batch]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Hand the gradient of a step to the optimiser; where memory ends, once more with checkpointing.

        Returns the losses of the last batch and the row of the log.
        """
        passes, drawn = self.context.passes, self.context.rng.bit_generator.state
        try:
            return self._backward(batches)
        except torch.OutOfMemoryError as error:
            if passes.checkpointing:
                raise TrainingError(
                    f"{self._name} does not fit the memory of {self.context.device}, even with checkpointing. Use a"
                    " larger device, or lower training.max_length or training.batch_size (training.accumulation gives"
                    " back the size of a step)."
                ) from error
        passes.checkpointing = True
        torch.cuda.empty_cache()
        self.context.rng.bit_generator.state = drawn
        return self._gradients(batches)

    @torch.enable_grad()
    def _backward(self, batches: list[Batch]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        self._seed_torch(self.step)
        self._optimizer.zero_grad(set_to_none=True)
        sums: dict[str, dict[str, Tensor]] = {}
        values: dict[str, list[float]] = {}
        losses: dict[str, Tensor] = {}
        for batch, weights in zip(batches, self._weights(batches), strict=True):
            losses = self.method.losses(batch)
            weighted = self._weighted(losses, weights)
            objectives = self.method.objectives(weighted)
            for name, value in {**weighted, **objectives}.items():
                values.setdefault(name, []).append(self._finite(name, value))
            self._differentiate({name: value / len(batches) for name, value in objectives.items()}, sums)
            losses = {name: loss.detach() for name, loss in losses.items()}
        with torch.no_grad():
            gradient = dict(self.method.combine_gradients(sums))
        sums.clear()
        self._tensors.take(gradient)
        row: dict[str, Any] = {"step": self.step, "topic": ", ".join(dict.fromkeys(batch.topic for batch in batches))}
        return losses, row | {name: sum(numbers) / len(numbers) for name, numbers in values.items()}

    def _weights(self, batches: list[Batch]) -> list[dict[str, float]]:
        """Return by batch what each loss is multiplied with before the mean over batches; {}: all count alike.

        Of the n_i units over which a loss of batch i is a mean, that is n_i over the mean of all batches' n.
        """
        if self.training.accumulation_mean == "batches" or len(batches) == 1:
            return [{} for _ in batches]
        units = [{name: float(count) for name, count in self.method.units(batch).items()} for batch in batches]
        totals = {name: sum(own[name] for own in units) for name in units[0]}
        return [{name: own[name] * len(batches) / max(totals[name], 1) for name in own} for own in units]

    def _weighted(self, losses: dict[str, Tensor], weights: dict[str, float]) -> dict[str, Tensor]:
        unknown = [name for name in losses if weights and name not in weights]
        if unknown:
            raise UserError(
                f"{self._name}: its `units` say not over what the loss {unknown[0]!r} is a mean; add it there, or train"
                " with `accumulation_mean: batches`."
            )
        return {name: loss * weights[name] for name, loss in losses.items()} if weights else losses

    def _differentiate(self, objectives: dict[str, Tensor], sums: dict[str, dict[str, Tensor]]) -> None:
        """Add the gradient of each objective to the sums; those of several batches are in the dtype of the updates."""
        for left, (name, objective) in zip(reversed(range(len(objectives))), objectives.items(), strict=True):
            if not objective.requires_grad:
                raise TrainingError(
                    f"{self._name}: the loss depends on no trained parameter, the result would be the base unchanged."
                    " Check which parameters and layers its settings name."
                )
            gradients = self._tensors.gradients(objective, keep_graph=left > 0)
            totals = sums.setdefault(name, {})
            for key, master in self._tensors.masters.items():
                gradient = gradients.pop(key)
                if self.training.accumulation > 1:
                    gradient = gradient.to(master.dtype)
                totals[key] = totals[key] + gradient if key in totals else gradient

    def _clip(self) -> Tensor:
        """Clip the gradients where the spec says so; return their norm before."""
        largest, masters = self.training.gradient_clip, list(self._tensors.masters.values())
        if largest is None:
            return torch.nn.utils.get_total_norm([master.grad for master in masters if master.grad is not None])
        return torch.nn.utils.clip_grad_norm_(masters, largest)

    def _finite(self, what: str, value: Tensor) -> float:
        number = value.item()
        if not math.isfinite(number):
            raise TrainingError(
                f"{self._name}: {what} is {number} at step {self.step}. Lower the learning rate or the method's"
                " weights."
            )
        return number

    def _seed_torch(self, step: int) -> None:
        seed = int(generator(self.seed, "torch", step).integers(2**63))
        if self.context.device.type == "cpu":
            torch.default_generator.manual_seed(seed)  # without the other devices' queues, which take milliseconds
        else:
            torch.manual_seed(seed)


def _schedule(
    optimizer: torch.optim.Optimizer, training: TrainingSpec, steps: int
) -> torch.optim.lr_scheduler.LambdaLR | None:
    """Return what sets the learning rate of each step: transformers' schedules; None where it is constant.

    Of N steps, W of them warm-up, step s (from 0) has the learning rate times s / W in the warm-up, then times 1
    (constant), (N - s) / (N - W) (linear) or (1 + cos(pi (s - W) / (N - W))) / 2 (cosine).
    """
    warmup = training.warmup_steps(steps)
    if warmup >= steps:
        raise UserError(
            f"The warm-up takes all of the {steps} steps of the training; lower training.warmup, or raise"
            " training.epochs."
        )
    if training.schedule == "constant" and not warmup:
        return None
    if training.schedule == "constant":
        return get_constant_schedule_with_warmup(optimizer, warmup)
    falling = {"linear": get_linear_schedule_with_warmup, "cosine": get_cosine_schedule_with_warmup}
    return falling[training.schedule](optimizer, warmup, steps)


def _optimizer(parameters: list[torch.nn.Parameter], training: TrainingSpec) -> torch.optim.Optimizer:
    """Return the optimiser; on a GPU the fused one, which needs no copies of all tensors at once."""
    common: dict[str, Any] = {
        "lr": training.learning_rate,
        "weight_decay": training.weight_decay,
        "fused": parameters[0].device.type == "cuda" or None,
    }
    if training.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=0.0, **common)
    kind = torch.optim.AdamW if training.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, betas=(0.9, 0.999), eps=1e-8, **common)
