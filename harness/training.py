"""The loop that trains a method: batches, optimiser, precision, log, interruption and resumption."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..methods.base import Batch, Method
from .activations import ModelContext
from .batches import Batches, Corpora, generator
from .errors import UserError
from .passes import embed_in_main_memory
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
    """The parameters that train, the values that the optimiser moves, their values before, and the way back.

    What is cast to float32 (everything with `float32` and `tf32`, a float16 model with `mixed`) stays so until
    `restore`; the cast back is exact, because each 16-bit value is a float32 value.

    Attributes:
        parameters: those of the model, by name.
        masters: what the optimiser moves: with `mixed` a float32 copy of each parameter, else the parameter itself.
        originals: the values before, in the dtype that the model runs in.
    """

    def __init__(self, model: PreTrainedModel, precision: str, optimizer: str) -> None:
        half = model.dtype == torch.float16
        if precision == "reference" and half and optimizer != "sgd":
            raise UserError("Adam in float16 divides by zero (its 1e-8 rounds to 0): use `precision: float32`.")
        cast = precision in ("float32", "tf32") or (precision == "mixed" and half)
        self.model, self._mixed = model, precision == "mixed"
        self.loaded = {name: parameter.dtype for name, parameter in model.named_parameters()}
        for parameter in model.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None
            if cast:
                parameter.data = parameter.data.float()
        self.parameters: dict[str, torch.nn.Parameter] = {}
        self.masters: dict[str, torch.nn.Parameter] = {}
        self.originals: dict[str, Tensor] = {}

    def open(self, names: list[str]) -> None:
        """Keep the values of the named parameters and let gradients reach them, and them only."""
        known = dict(self.model.named_parameters())
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise UserError(f"{type(self.model).__name__} has no parameters called {unknown}; nothing can be trained.")
        self.parameters = {name: known[name] for name in dict.fromkeys(names)}
        self.originals = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        for name, parameter in self.parameters.items():
            parameter.requires_grad_(True)
            copied = self._mixed and parameter.dtype != torch.float32
            self.masters[name] = torch.nn.Parameter(parameter.detach().float()) if copied else parameter

    def pull_gradients(self) -> None:
        """Hand the gradients to the masters."""
        for name, master in self.masters.items():
            parameter = self.parameters[name]
            if master is not parameter and parameter.grad is not None:
                master.grad, parameter.grad = parameter.grad.float(), None

    @torch.no_grad()
    def push_values(self) -> None:
        """Round the masters' values to the model's dtype."""
        for name, master in self.masters.items():
            if master is not self.parameters[name]:
                self.parameters[name].copy_(master)

    @torch.no_grad()
    def load(self, values: Mapping[str, Tensor]) -> None:
        """Take the masters' values of an earlier run."""
        for name, master in self.masters.items():
            master.copy_(values[name])
        self.push_values()

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
        self.masters = {}
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(False)
            parameter.grad = None
            parameter.data = parameter.data.to(self.loaded[name])


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
        checkpointing: see `Passes`.

    Attributes:
        steps: number of training steps: `training.steps`, or `training.epochs` over the texts of all forget topics.
        step: steps done.
        log: first `{"step": -1, "setup": …, "shared_layers": …}`, then a row a step: step, topic, losses, total,
            grad_norm and what the method's `after_step` returned.

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
    ) -> None:
        self.method, self.training, self.seed = method, training, seed
        place = torch.device(device)
        model.to(place).eval()  # pyright: ignore[reportArgumentType]
        batches = Batches(corpora, tokenizer, training, seed, place)
        self.context = ModelContext(model, batches, seed, place, depth)
        self.context.passes.checkpointing = checkpointing
        self.steps, self.step = batches.steps, 0
        self._restored = False
        self._moved: list[RemovableHandle] = []
        self._tensors = TrainedTensors(model, training.precision, training.optimizer)
        try:
            self._tensors.open(method.trained(self.context))
            self._moved = embed_in_main_memory(model, place, self._tensors.parameters.values())
            self.context.keep_originals(self._tensors.originals, training.keep_prefix)
            self._seed_torch(-1)
            with torch.no_grad():
                method.setup(self.context)
            self._optimizer = _optimizer(list(self._tensors.masters.values()), training)
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
        for handle in self._moved:
            handle.remove()
        self._tensors.restore()
        self._restored = True

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, loadable with `torch.load(weights_only=True)`."""
        return {
            "step": self.step,
            "tensors": {name: master.detach().clone() for name, master in self._tensors.masters.items()},
            "optimizer": self._optimizer.state_dict(),
            "method": self.method.state_dict(),
            "rng": json.dumps(self.context.rng.bit_generator.state),
            "log": json.dumps(self.log),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken: the result equals that of an unbroken run, bit for bit."""
        if set(state["tensors"]) != set(self._tensors.parameters):
            raise UserError(f"The saved state belongs to another run: it trains {sorted(state['tensors'])}.")
        self._tensors.load(state["tensors"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.method.load_state_dict(state["method"])
        self.context.rng.bit_generator.state = json.loads(state["rng"])
        self.log = json.loads(state["log"])
        self.step = state["step"]

    @property
    def _name(self) -> str:
        return f"Method {type(self.method).__name__}"

    def _train_step(self) -> dict[str, Any]:
        batch = self.context.batch(self.step)
        losses, row = self._gradients(batch)
        self._tensors.pull_gradients()
        row["grad_norm"] = self._finite("grad_norm", self._clip())
        self._optimizer.step()
        self._tensors.push_values()
        with torch.no_grad():
            row |= self.method.after_step(batch, losses)
        return row

    def _gradients(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the losses and the row of the log; where memory ends, once more with checkpointing."""
        passes, drawn = self.context.passes, self.context.rng.bit_generator.state
        try:
            return self._backward(batch)
        except torch.OutOfMemoryError as error:
            if passes.checkpointing:
                raise TrainingError(
                    f"{self._name} does not fit the memory of {self.context.device}, even with checkpointing. Use a"
                    " larger device, or lower training.max_length or training.batch_size (which is another training)."
                ) from error
        passes.checkpointing = True
        torch.cuda.empty_cache()
        self.context.rng.bit_generator.state = drawn
        return self._gradients(batch)

    @torch.enable_grad()
    def _backward(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Any]]:
        self._seed_torch(self.step)
        self._optimizer.zero_grad(set_to_none=True)
        losses = self.method.losses(batch)
        total = self.method.combine(losses)
        row: dict[str, Any] = {"step": self.step, "topic": batch.topic}
        row |= {name: self._finite(name, loss) for name, loss in {**losses, "total": total}.items()}
        if not total.requires_grad:
            raise TrainingError(
                f"{self._name}: the loss depends on no trained parameter, the result would be the base unchanged."
            )
        total.backward()
        return {name: loss.detach() for name, loss in losses.items()}, row

    def _clip(self) -> Tensor:
        """Clip the gradients where the spec says so; return their norm before."""
        largest = self.training.gradient_clip
        masters = list(self._tensors.masters.values())
        return torch.nn.utils.clip_grad_norm_(masters, math.inf if largest is None else largest)

    def _finite(self, what: str, value: Tensor) -> float:
        number = value.item()
        if not math.isfinite(number):
            raise TrainingError(
                f"{self._name}: {what} is {number} at step {self.step}. Lower the learning rate or the method's"
                " weights."
            )
        return number

    def _seed_torch(self, step: int) -> None:
        torch.manual_seed(int(generator(self.seed, "torch", step).integers(2**63)))


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
