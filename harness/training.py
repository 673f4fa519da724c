"""The loop that trains a method: batches, optimiser, precision, log, interruption and resumption."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..methods.base import Method
from .activations import ModelContext
from .batches import Batches, Corpora, generator
from .errors import UserError
from .suite import TrainingSpec

__all__ = ["Corpora", "Trainer", "TrainingError"]


class TrainingError(UserError):
    """Training that went wrong by itself: a loss that is not finite, or a result equal to the base."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=1)


@contextmanager
def matrix_products(precision: str) -> Iterator[None]:
    """Let a GPU multiply float32 matrices in TF32 where the precision says so, and only there."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


class TrainedTensors:
    """The parameters that train, their values before, and the way back.

    But with precision `reference` every parameter is held in float32 until `restore`; the cast back is exact, because
    each 16-bit value is a float32 value.
    """

    def __init__(self, model: PreTrainedModel, precision: str, optimizer: str) -> None:
        if precision == "reference" and model.dtype == torch.float16 and optimizer != "sgd":
            raise UserError("Adam in float16 divides by zero (its 1e-8 rounds to 0): use `precision: float32`.")
        self.model = model
        self.loaded = {name: parameter.dtype for name, parameter in model.named_parameters()}
        for parameter in model.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None
            if precision != "reference":
                parameter.data = parameter.data.float()
        self.parameters: dict[str, torch.nn.Parameter] = {}
        self.originals: dict[str, Tensor] = {}

    def open(self, names: list[str]) -> None:
        """Keep the values of the named parameters and let gradients reach them, and them only."""
        known = dict(self.model.named_parameters())
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise UserError(f"{type(self.model).__name__} has no parameters called {unknown}; nothing can be trained.")
        self.parameters = {name: known[name] for name in dict.fromkeys(names)}
        self.originals = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)

    def delta(self) -> dict[str, Tensor]:
        """Return the tensors that changed, with their new values, in the dtype of the model as loaded, on the CPU."""
        found = {}
        for name, parameter in self.parameters.items():
            new = parameter.detach().to(self.loaded[name])
            if not torch.equal(new, self.originals[name].to(self.loaded[name])):
                found[name] = new.cpu().clone()
        return found

    def restore(self) -> None:
        """Give the model back its values and dtypes, bit by bit, without gradients."""
        for name, original in self.originals.items():
            self.parameters[name].data = original.clone()
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(False)
            parameter.grad = None
            parameter.data = parameter.data.to(self.loaded[name])


class Trainer:
    """Trains one cell: a model, a method, its corpora and a seed.

    Everything a method draws comes from `context.rng`; torch's global generator is seeded anew for the set-up and for
    each step, so that nothing depends on what ran before. Dropout is off.

    Attributes:
        steps: number of training steps: `training.steps`, or `training.epochs` over the texts of all forget topics.
        step: steps done.
        log: first `{"step": -1, "setup": …}`, then a row a step: step, topic, losses, total, grad_norm and what the
            method's `after_step` returned.

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
    ) -> None:
        self.method, self.training, self.seed = method, training, seed
        model.to(torch.device(device)).eval()  # pyright: ignore[reportArgumentType]
        batches = Batches(corpora, tokenizer, training, seed, model.device)
        self.context = ModelContext(model, batches, seed)
        self.steps, self.step = batches.steps, 0
        self._restored = False
        self._tensors = TrainedTensors(model, training.precision, training.optimizer)
        try:
            self._tensors.open(method.trained(self.context))
            self.context.keep_originals(self._tensors.originals)
            self._seed_torch(-1)
            with torch.no_grad():
                method.setup(self.context)
            self._optimizer = _optimizer(list(self._tensors.parameters.values()), training)
        except BaseException:
            self.restore()
            raise
        self.log: list[dict[str, Any]] = [{"step": -1, "setup": method.log_setup()}]

    def run(self, on_step: Callable[[dict[str, Any]], None] | None = None, until: int | None = None) -> None:
        """Train to the end, or until `until` steps are done; `on_step` gets each row of the log.

        Raises:
            TrainingError: a loss or gradient that is not finite, or an end that equals the start.
        """
        if self._restored:
            raise RuntimeError("This trainer gave its model back; make a new one.")
        while self.step < min(self.steps, self.steps if until is None else until):
            row = self._train_step()
            self.log.append(row)
            self.step += 1
            if on_step is not None:
                on_step(row)
        if self.step == self.steps and not self.delta():
            raise TrainingError(
                f"{self._name} returned the base unchanged after {self.steps} steps: none of"
                f" {len(self._tensors.parameters)} trained tensors differs in the model's dtype."
            )

    def delta(self) -> dict[str, Tensor]:
        """Return the trained tensors that changed: new values, in the dtype of the model as loaded."""
        return self._tensors.delta()

    def restore(self) -> None:
        """Give the model its original tensors back, bit-equal, gradients off; this trainer is then done."""
        self._tensors.restore()
        self._restored = True

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, loadable with `torch.load(weights_only=True)`."""
        return {
            "step": self.step,
            "tensors": {name: parameter.detach().clone() for name, parameter in self._tensors.parameters.items()},
            "optimizer": self._optimizer.state_dict(),
            "method": self.method.state_dict(),
            "rng": json.dumps(self.context.rng.bit_generator.state),
            "log": json.dumps(self.log),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken: the result equals that of an unbroken run, bit for bit."""
        if set(state["tensors"]) != set(self._tensors.parameters):
            raise UserError(f"The saved state belongs to another run: it trains {sorted(state['tensors'])}.")
        for name, parameter in self._tensors.parameters.items():
            parameter.data.copy_(state["tensors"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        self.method.load_state_dict(state["method"])
        self.context.rng.bit_generator.state = json.loads(state["rng"])
        self.log = json.loads(state["log"])
        self.step = state["step"]

    @property
    def _name(self) -> str:
        return f"Method {type(self.method).__name__}"

    @torch.enable_grad()
    def _train_step(self) -> dict[str, Any]:
        self._seed_torch(self.step)
        batch = self.context.batch(self.step)
        self._optimizer.zero_grad(set_to_none=True)
        losses = self.method.losses(batch)
        total = self.method.combine(losses)
        row: dict[str, Any] = {"step": self.step, "topic": batch.topic}
        row |= {name: self._finite(name, loss.item()) for name, loss in {**losses, "total": total}.items()}
        if not total.requires_grad:
            raise TrainingError(
                f"{self._name}: the loss depends on no trained parameter, the result would be the base unchanged."
            )
        total.backward()
        row["grad_norm"] = self._finite("grad_norm", self._clip())
        self._optimizer.step()
        with torch.no_grad():
            row |= self.method.after_step(batch, {name: loss.detach() for name, loss in losses.items()})
        return row

    def _clip(self) -> float:
        """Clip the gradients where the spec says so; return their norm before."""
        largest = self.training.gradient_clip
        parameters = list(self._tensors.parameters.values())
        return torch.nn.utils.clip_grad_norm_(parameters, math.inf if largest is None else largest).item()

    def _finite(self, what: str, value: float) -> float:
        if not math.isfinite(value):
            raise TrainingError(
                f"{self._name}: {what} is {value} at step {self.step}. Lower the learning rate or the method's weights."
            )
        return value

    def _seed_torch(self, step: int) -> None:
        torch.manual_seed(int(generator(self.seed, "torch", step).integers(2**63)))


def _optimizer(parameters: list[torch.nn.Parameter], training: TrainingSpec) -> torch.optim.Optimizer:
    rate, decay = training.learning_rate, training.weight_decay
    if training.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, weight_decay=decay, momentum=0.0)
    kind = torch.optim.AdamW if training.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, lr=rate, weight_decay=decay, betas=(0.9, 0.999), eps=1e-8)
