"""The noise null: random weight noise matched in norm, tensor by tensor, to what the methods changed.

The squared norm of a tensor's noise is the mean, over the trained checkpoints it is matched to, of the squared norm of
their change of that tensor (zero where a method does not touch it). So the noise as a whole is as large as a typical
method's change, and sits where the methods' changes sit.
"""

from __future__ import annotations

import torch

from ..errors import UserError
from ..models.cache import base_model
from ..models.content import digests_of
from ..rng import weight_noise
from ..runtime import Event, OnEvent
from ..store.delta import load_delta
from ..store.entries import Store
from .base import BuildJob, Transform, TransformResult, register


@register("noise")
class Noise(Transform):
    """Add Gaussian noise to the base."""

    summary = "random weight noise matched in norm, tensor by tensor, to the methods' deltas"

    def make(self, job: BuildJob, report: OnEvent) -> TransformResult:
        """Draw the noise from (seed, tensor name) alone and return the changed tensors."""
        model, _ = base_model(job.model, job.config.device, "mixed", digests=digests_of(job.config))
        base = dict(model.named_parameters())
        squares = self._mean_squares(job, base)
        delta, log = {}, []
        for done, (name, square) in enumerate(sorted(squares.items()), start=1):
            noise = torch.from_numpy(weight_noise(job.cell.seed or 0, name, tuple(base[name].shape)))
            noise *= square**0.5 / float(noise.norm())
            delta[name] = (base[name].detach().cpu().float() + noise).to(base[name].dtype)
            log.append({"tensor": name, "norm": square**0.5})
            report(Event(job.cell.label, "noise", done, len(squares)))
        return TransformResult(delta, log, {"norm": sum(squares.values()) ** 0.5, "matched": len(job.cell.parents)})

    def _mean_squares(self, job: BuildJob, base: dict[str, torch.nn.Parameter]) -> dict[str, float]:
        store = Store.open(job.config.store)
        squares: dict[str, float] = {}
        for parent in job.cell.parents:
            entry = store.entry("cells", parent)
            if entry.manifest() is None:
                raise UserError(
                    f"Noise is matched to cell {parent}, which is not finished; run the same command again."
                )
            for name, tensor in load_delta(entry).items():
                change = tensor.double() - base[name].detach().cpu().double()
                squares[name] = squares.get(name, 0.0) + float(change.square().sum()) / len(job.cell.parents)
        return squares
