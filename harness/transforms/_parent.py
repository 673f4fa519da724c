"""The finished checkpoint that a cell starts from, as the tensors in which it differs from the base."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..models.content import check_model, digests_of
from ..models.load import load_model
from ..models.patch import apply_delta, put_tensors
from ..store.delta import load_delta
from ..store.entries import Store
from ..store.identity import BASE
from .base import BuildJob


@contextmanager
def start(job: BuildJob, model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Let a loaded base have the weights of the cell's parent for a while; give those that differ from the base's.

    Without a parent, or where that is the base itself, nothing differs.

    Raises:
        UserError: as `parent_delta`.
    """
    delta = parent_delta(job, dict(model.named_parameters())) if "parent" in job.cell.settings else {}
    originals = apply_delta(model, job.model.name, delta)
    try:
        yield delta
    finally:
        put_tensors(model.state_dict(), originals)


def parent_delta(job: BuildJob, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors in which the parent of a cell differs from the base, on the CPU; {} for the base.

    The parent is the last of `parents`: a replica names the checkpoint beside which it stands first.

    Raises:
        UserError: the parent is not the one that the cell's identity speaks of, or has other tensors than the base.
    """
    wanted = job.cell.settings["parent"]
    if wanted == BASE:
        return {}
    entry = Store.open(job.config.store).entry("cells", job.cell.parents[-1])
    manifest = entry.manifest() or {}
    if manifest.get("delta") != wanted:
        raise UserError(f"The checkpoint that {job.cell.label} is made from changed while it was planned; run again.")
    if "pointer" not in manifest:
        return load_delta(entry)
    with imported_tensors(job, Path(manifest["pointer"]), wanted) as own:
        return _delta(job, own, base)


def _delta(job: BuildJob, own: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    other = sorted(name for name in own.keys() | base.keys() if _shape(own, name) != _shape(base, name))
    if other:
        raise UserError(
            f"The checkpoint of {job.cell.label} and its base differ in the shape of {other[0]}; pass the model it was"
            " made from with --models."
        )
    return changed(own, base)


@contextmanager
def imported_tensors(job: BuildJob, folder: Path, digest: str) -> Iterator[dict[str, Tensor]]:
    """Give the parameters of a checkpoint that was made elsewhere, in the base's dtype, on the CPU.

    Raises:
        UserError: the folder has not this digest, before or after they were used, or holds no model.
    """
    own_model = job.model.model_copy(update={"path": str(folder), "hub": None, "digest": digest})
    check_model(own_model, digests_of(job.config))
    yield {name: parameter.detach() for name, parameter in load_model(own_model).named_parameters()}
    check_model(own_model, digests_of(job.config))


def changed(tensors: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return those of some tensors that differ from the base's of their name, in its dtype, on the CPU."""
    delta = {}
    for name, tensor in tensors.items():
        own = base[name].detach()
        cast = tensor.to(own.device, own.dtype)
        if not torch.equal(cast, own):
            delta[name] = cast.cpu()
    return delta


def _shape(tensors: Mapping[str, Tensor], name: str) -> torch.Size | None:
    return tensors[name].shape if name in tensors else None
