"""What a method trains: parameters by name, or low-rank changes of them; the values before, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ...methods.base import LoRA
from ..errors import UserError, first_line
from ..models.patch import put_tensors
from ..rng import replica_noise

Finish = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Mapping[str, Tensor]]
"""`Method.finish`."""
HAIR = 1e-6
"""By how much of itself a replica's weight differs at the start, as a standard deviation."""


class TrainableParameters:
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
            raise UserError(
                f"{type(self.model).__name__} has no parameters called {unknown}; nothing can be trained; check the"
                " method's `parameters`."
            )
        self.parameters = {name: known[name] for name in dict.fromkeys(names)}
        self.originals = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        for name, parameter in self.parameters.items():
            parameter.requires_grad_(True)
            copied = self._mixed and parameter.dtype != torch.float32
            self.masters[name] = torch.nn.Parameter(parameter.detach().float()) if copied else parameter

    def perturb(self, seed: int) -> None:
        """Multiply what the optimiser moves by 1 + 1e-6 z, z standard normal by (seed, name); the frozen model stays.

        Where the dtype is coarser than that, the product is rounded up or down at random, and right on average.
        """
        for name, master in self.masters.items():
            normal, uniform = (torch.from_numpy(part) for part in replica_noise(seed, name, tuple(master.shape)))
            exact = master.detach().cpu().double() * (1 + HAIR * normal.double())
            put_tensors({name: master}, {name: round_at_random(exact, uniform, master.dtype)})
        self.push_values()

    def gradients(self, objective: Tensor, keep_graph: bool) -> dict[str, Tensor]:
        """Return the gradient of a scalar by parameter name; zeros where it does not depend on a parameter."""
        gradients = torch.autograd.grad(
            objective,
            list(self.parameters.values()),
            retain_graph=keep_graph,
            allow_unused=True,
            materialize_grads=True,
        )
        return dict(zip(self.parameters, gradients, strict=True))

    def take(self, gradient: dict[str, Tensor]) -> None:
        """Hand a gradient to what the optimiser moves; empties the dictionary."""
        for name, master in self.masters.items():
            master.grad = gradient.pop(name).to(master.dtype)

    def push_values(self) -> None:
        """Round the masters' values to the model's dtype."""
        own = self.parameters
        put_tensors(own, {name: master for name, master in self.masters.items() if master is not own[name]})

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Take the masters' values of an earlier run."""
        put_tensors(self.masters, values)
        self.push_values()

    def delta(self) -> dict[str, Tensor]:
        """Return the tensors that changed, with their new values, in the dtype of the model as loaded, on the CPU."""
        delta = {}
        for name, parameter in self.parameters.items():
            new = parameter.detach().to(self.loaded[name])
            if not torch.equal(new, self.originals[name].to(self.loaded[name])):
                delta[name] = new.cpu().clone()
        return delta

    def finished(self, finish: Finish) -> dict[str, Tensor]:
        """Return the tensors that `finish` changes, given what training changed of which values; see `delta`.

        The change is that of what the optimiser moves, before it is rounded to the model's dtype.
        """
        before = {name: value.detach().float().cpu() for name, value in self._before().items()}
        delta = {}
        for name, change in finish(self._changes(before), before).items():
            new = (before[name] + change).to(self.loaded[name])
            if not torch.equal(new, before[name].to(self.loaded[name])):
                delta[name] = new
        return delta

    def _before(self) -> Mapping[str, Tensor]:
        """Return the values before of what a checkpoint may change, by the base's names."""
        return self.originals

    def _changes(self, before: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return by how much they changed, float32, on the CPU."""
        return {name: self.masters[name].detach().float().cpu() - value for name, value in before.items()}

    def restore(self) -> None:
        """Give the model back its values and dtypes, bit by bit, without gradients."""
        put_tensors(self.parameters, self.originals)
        self.masters = {}
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(False)
            parameter.grad = None
            parameter.data = parameter.data.to(self.loaded[name])


def round_at_random(exact: Tensor, uniform: Tensor, dtype: torch.dtype) -> Tensor:
    """Return float64 values in a dtype: each to one of its two neighbours there, to the nearer one more often.

    `uniform`: a number in [0, 1) each. The mean over these is the exact value.
    """
    near = exact.to(dtype)
    rest = exact - near.double()
    beyond = torch.nextafter(near, torch.where(rest > 0, torch.inf, -torch.inf).to(dtype))
    share = rest / (beyond.double() - near.double())
    return torch.where(uniform < share, beyond, near)


class LoRAParameters(TrainableParameters):
    """Low-rank changes (peft's LoRA, without dropout) of the named matrices, merged into them for the checkpoint.

    The base's own tensors are never written. Since B starts at zero, the values before are the frozen model here too.
    The factors are float32, unless all is in the model's own dtype (`precision: reference`).
    """

    NAME = "unlearning"

    def __init__(self, model: PreTrainedModel, precision: str, optimizer: str, lora: LoRA) -> None:
        super().__init__(model, precision, optimizer)
        self._lora, self._own = lora, precision == "reference"
        self._targets: list[str] = []
        self._tuner: Any = None

    def open(self, names: list[str]) -> None:
        """Put the factors into the model and let gradients reach them, and them only.

        Raises:
            UserError: a parameter that is not the matrix of a linear map.
        """
        from peft import LoraConfig, LoraModel

        self._targets = list(dict.fromkeys(names))
        modules = [name.removesuffix(".weight") for name in self._targets]
        config = LoraConfig(r=self._lora.rank, lora_alpha=self._lora.alpha, lora_dropout=0.0, target_modules=modules)  # pyright: ignore[reportArgumentType]
        dtype = self.model.dtype if self._own else torch.float32
        try:
            self._tuner = LoraModel(self.model, config, self.NAME)
        except ValueError as error:
            raise UserError(
                f"LoRA cannot train {', '.join(modules):.200}: {first_line(error)} Name linear layers in the method's"
                " `parameters`, or train without LoRA."
            ) from error
        factors = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        for name in factors:
            parameter = self.model.get_parameter(name)
            parameter.data = parameter.data.to(dtype)
        super().open(factors)

    def delta(self) -> dict[str, Tensor]:
        """Return the matrices that changed, merged, in the dtype of the model as loaded, on the CPU."""
        delta = {}
        for name in self._targets:
            base = self._layer(name).base_layer.weight.detach()
            new = (base.float() + self._change(name)).to(self.loaded[name])
            if not torch.equal(new, base.to(self.loaded[name])):
                delta[name] = new.cpu()
        return delta

    def _before(self) -> Mapping[str, Tensor]:
        return {name: self._layer(name).base_layer.weight for name in self._targets}

    def _changes(self, before: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: self._change(name).cpu() for name in before}

    def _layer(self, name: str) -> Any:
        return self.model.get_submodule(name.removesuffix(".weight"))

    def _change(self, name: str) -> Tensor:
        return self._layer(name).get_delta_weight(self.NAME).detach().float()

    def restore(self) -> None:
        """Take the factors out of the model."""
        if self._tuner is not None:
            self._tuner.unload()
            vars(self.model).pop("peft_config", None)  # left behind by some versions
            self._tuner = None
        super().restore()
