"""A checkpoint made elsewhere: a model is kept as a pointer to its folder, an adapter is merged into the base."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError
from ..models.load import MODEL_FILES
from ..runtime import OnEvent
from ..store.entries import Store
from ..store.files import folder_digest
from ._parent import changed
from .base import BuildJob, Transform, TransformResult, register


@register("import")
class Import(Transform):
    """Point to a folder in Hugging Face layout, with the digest of what lies there, or merge an adapter."""

    summary = "a checkpoint that someone else made"

    def make(self, job: BuildJob, report: OnEvent) -> TransformResult:
        """Check that the folder still is what the plan saw; point to it, or return what an adapter changes."""
        folder = job.folder
        if folder is None:
            raise UserError(f"{job.cell.label} has no folder; pass --checkpoint NAME=FOLDER again.")
        if not job.cell.elsewhere:
            return _merged(job, folder)
        digest = _digest(job, folder, MODEL_FILES, "digest")
        return TransformResult(imported=(digest, str(folder.resolve())))


def _digest(job: BuildJob, folder: Path, files: tuple[str, ...], key: str) -> str:
    """Return the digest of a folder; raise a `UserError` where it is not the planned one."""
    digest = folder_digest(folder, files, Store.open(job.config.store).digests)
    if digest != job.cell.settings[key]:
        raise UserError(f"{folder} changed while the run was planned; run again.")
    return digest


def _merged(job: BuildJob, folder: Path) -> TransformResult:
    """Return the tensors in which the base with an adapter merged into it differs from the base."""
    from ..models.adapter import ADAPTER_FILES, merged
    from ..models.cache import base_model

    _digest(job, folder, ADAPTER_FILES, "adapter")
    model, _ = base_model(job.model, job.config.device, "mixed")
    delta = changed(merged(f"Checkpoint {job.cell.label}: {folder}", folder, job.model), dict(model.named_parameters()))
    return TransformResult(delta, summary={"tensors": len(delta)})
