"""Noise: random weight noise matched in norm, tensor by tensor, to what one checkpoint changed, its parent.

A tensor's noise has the norm of the parent's change of that tensor, and there is none in a tensor that the parent left
alone. So the noise is as large as that change, and sits where it sits: on the base, or on the original that the parent
started from. Of a checkpoint that was made elsewhere the change is that of its parameters of the base's names and
shapes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import UserError
from ..models.cache import base_model
from ..models.content import digests_of
from ..rng import weight_noise
from ..runtime import Event, OnEvent
from ..store.delta import load_delta
from ..store.entries import Store
from ._parent import changed, imported_tensors, parent_delta
from .base import BuildJob, Transform, TransformResult, register

STEPS = 12


@register("noise")
class Noise(Transform):
    """Add Gaussian noise to what a checkpoint started from."""

    summary = "random weight noise matched in norm, tensor by tensor, to a checkpoint's delta"

    def make(self, job: BuildJob, report: OnEvent) -> TransformResult:
        """Draw the noise from (seed, tensor name) alone and return the changed tensors; none where none is to match."""
        model, _ = base_model(job.model, job.config.device, "mixed", digests=digests_of(job.config))
        base = {name: parameter.detach() for name, parameter in model.named_parameters()}
        started = parent_delta(job, base) if job.cell.start else {}
        start = {**base, **started}
        norms = {name: _norm(tensor, start[name]) for name, tensor in _moved(job, base, started).items()}
        delta, log = dict(started), []
        for done, (name, norm) in enumerate(norms.items(), start=1):
            if not math.isfinite(norm):
                raise UserError(f"The change of {name} has no finite norm that noise could have; mend the checkpoint.")
            noise = torch.from_numpy(weight_noise(job.cell.seed or 0, name, tuple(start[name].shape)))
            noise *= norm / float(noise.norm())
            delta[name] = with_noise(start[name].cpu(), noise, norm)
            log.append({"tensor": name, "norm": norm})
            report(Event(job.cell.label, "noise", done, len(norms)))
        total = sum(norm**2 for norm in norms.values()) ** 0.5
        return TransformResult(delta, log, {"norm": total, "matched": len(job.cell.parents)})


def with_noise(base: Tensor, noise: Tensor, norm: float) -> Tensor:
    """Return a tensor with noise of this norm, in its own dtype.

    Of 16 bits, rounding would take noise away or add to it: it is scaled until what is left has the norm, within a
    hundredth where `STEPS` steps reach that.
    """
    exact, scale, changed = base.float(), 1.0, base
    for _ in range(STEPS):
        changed = (exact + noise * scale).to(base.dtype)
        kept = _norm(changed, base)
        if base.dtype == torch.float32 or abs(kept - norm) <= norm / 100:
            break
        scale *= min(norm / kept, 4.0) if kept else 4.0
    return changed


def _norm(tensor: Tensor, base: Tensor) -> float:
    change = tensor.double() - base.cpu().double()
    return float(change.square().sum()) ** 0.5


def _moved(job: BuildJob, base: Mapping[str, Tensor], started: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the parent's tensors that are not those which it started from, by sorted names, on the CPU.

    `started` are those of its start that differ from the base's.
    """
    own = _parent_tensors(job, base)
    whole = {name: own[name] if name in own else base[name].cpu() for name in sorted(own.keys() | started.keys())}
    return {name: tensor for name, tensor in whole.items() if name not in started or _norm(tensor, started[name])}


def _parent_tensors(job: BuildJob, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that the parent changed, on the CPU."""
    parent = job.cell.parents[0]
    entry = Store.open(job.config.store).entry("cells", parent)
    manifest = entry.manifest()
    if manifest is None:
        raise UserError(f"Noise is matched to cell {parent}, which is not finished; run the same command again.")
    if "pointer" not in manifest:
        return load_delta(entry)
    with imported_tensors(job, job.folder or Path(manifest["pointer"]), manifest["delta"]) as own:
        return changed({name: own[name] for name in own if name in base and own[name].shape == base[name].shape}, base)
