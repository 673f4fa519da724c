"""Round-to-nearest quantisation of a checkpoint, simulated: the rounded weights in the model's own dtype.

Symmetric, one scale an output channel, no calibration:

    s = max |W_row| / (2^(b-1) - 1),    W'_row = s clamp(round(W_row / s), -(2^(b-1) - 1), 2^(b-1) - 1)

of every linear weight of the decoder layers; embeddings, norms, biases and the head stay. Halves round to even. What
unlearning left close to its old value is rounded back to it (Zhang et al., arXiv 2410.16454).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..models.cache import base_model
from ..models.content import digests_of
from ..models.layers import decoder_layers
from ..runtime import Event, OnEvent
from ..specs import Spec, identity
from ._parent import changed, parent_delta
from .base import BuildJob, Stress, TransformResult, register


class QuantiseSettings(Spec):
    """Settings of quantisation."""

    bits: int = identity(8, ge=2, le=8, description="of a weight, its sign among them")


@register("quantise")
class Quantise(Stress):
    """Round a checkpoint's linear weights to few bits."""

    summary = "round-to-nearest quantisation of the linear weights, symmetric, per output channel"
    Settings = QuantiseSettings
    version = 1

    def make(self, job: BuildJob, report: OnEvent) -> TransformResult:
        """Return all tensors that differ from the base's, with the relative error of the rounding by tensor."""
        settings = QuantiseSettings.parse(job.cell.settings["settings"], job.cell.label)
        model, _ = base_model(job.model, job.config.device, "mixed", digests=digests_of(job.config))
        base = dict(model.named_parameters())
        delta = parent_delta(job, base)
        linear, log = dict(linear_weights(model)), []
        for done, (name, channel) in enumerate(linear.items(), start=1):
            weight = delta.get(name, base[name].detach()).to(job.config.device, torch.float32)
            rounded = round_to_nearest(weight, settings.bits, channel)
            log.append({"tensor": name, "error": float((rounded - weight).norm() / weight.norm().clamp_min(1e-30))})
            delta[name] = rounded.to(base[name].dtype).cpu()
            report(Event(job.cell.label, "quantise", done, len(linear)))
        return TransformResult(changed(delta, base), log, {"bits": settings.bits, "tensors": len(linear)})


def linear_weights(model: PreTrainedModel) -> Iterator[tuple[str, int]]:
    """Give the full names of the linear weights of the decoder layers, each with the axis of its output channels."""
    prefix, layers = decoder_layers(model)
    for name, module in layers.named_modules(prefix=prefix):
        if isinstance(module, nn.Linear | Conv1D):
            yield f"{name}.weight", int(isinstance(module, Conv1D))


def round_to_nearest(weight: Tensor, bits: int, channel: int = 0) -> Tensor:
    """Return a float32 matrix rounded to `bits` with one scale an index of axis `channel`; zero channels stay zero."""
    largest = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(dim=1 - channel, keepdim=True) / largest
    steps = torch.round(weight / torch.where(scale > 0, scale, 1.0))
    return steps.clamp(-largest, largest) * scale
