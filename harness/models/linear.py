"""Linear layers of a model that answers: oneDNN's kernel where it is faster than the one that torch takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

ENOUGH = 1 << 20
"""Multiplications from which a product is worth the call."""


class OneDnnLinear(nn.Linear):
    """A linear layer in float32 on a CPU that takes oneDNN's product outside of training.

    Torch takes MKL's, which leaves AVX-512 unused on AMD's processors and is half as fast there. What it computes is
    the same up to last bits; weights are read where they lie, so changing them in place needs nothing.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return `input @ weight.T + bias`: [..., in] to [..., out]."""
        small = input.numel() * self.out_features < ENOUGH
        if small or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        product: Any = torch.ops.mkldnn._linear_pointwise
        return product(input, self.weight, self.bias, "none", [], "")


def use_onednn(model: nn.Module) -> None:
    """Let the linear layers of a float32 model on a CPU with AVX-512 take oneDNN's product; others stay."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return
    for module in model.modules():
        if type(module) is nn.Linear and (module.weight.device.type, module.weight.dtype) == ("cpu", torch.float32):
            module.__class__ = OneDnnLinear
