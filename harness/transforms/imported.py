"""A checkpoint that was made elsewhere: kept as a pointer to its folder with the digest of what lies there."""

from __future__ import annotations

from ..errors import UserError
from ..models.load import MODEL_FILES
from ..runtime import OnEvent
from ..store.entries import Store
from ..store.files import folder_digest
from .base import BuildJob, Transform, TransformResult, register


@register("import")
class Import(Transform):
    """Point to a folder in Hugging Face layout."""

    summary = "a checkpoint that someone else made"

    def make(self, job: BuildJob, report: OnEvent) -> TransformResult:
        """Check that the folder still is what the plan saw and point to it."""
        folder = job.folder
        if folder is None:
            raise UserError(f"{job.cell.label} has no folder; pass --checkpoint NAME=FOLDER again.")
        store = Store.open(job.config.store)
        digest = folder_digest(folder, MODEL_FILES, store.digests)
        if digest != job.cell.settings["digest"]:
            raise UserError(f"{folder} changed while the run was planned; run again.")
        return TransformResult(imported=(digest, str(folder.resolve())))
