"""Whether files still are what a plan saw: looked at before they are loaded, and before what came of them is kept.

Weights that are loaded may go on living in their files (memory maps them), so a file that is written into while a run
goes on changes what is measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..errors import UserError
from ..runtime import RunConfig
from ..store.entries import Store
from ..store.files import FileDigests, Stamp, folder_digest, folder_files, stamp_of
from .load import MODEL_FILES, ModelSpec


def check_model(model: ModelSpec, digests: FileDigests | None) -> None:
    """Raise a `UserError` where the files of a model's folder have another digest than the model, if it has one.

    The hub's files are those of a commit, which is the digest.
    """
    if model.path is not None and model.digest:
        check_content(Path(model.path), MODEL_FILES, model.digest, digests)


def digests_of(config: RunConfig) -> FileDigests:
    """Return the digests that a run's store remembers, as far as the run believes them."""
    return Store.open(config.store, verify_inputs=config.verify_inputs).digests


def check_content(folder: Path, patterns: Iterable[str], digest: str, digests: FileDigests | None) -> None:
    """Raise a `UserError` where the files of a folder that match the patterns have another digest."""
    if folder_digest(folder, patterns, digests) != digest:
        raise UserError(
            f"{folder} changed after the run was planned: its files are no longer those that a result would stand for."
            " Leave them as they are while a run uses them, and run again."
        )


def model_stamps(model: ModelSpec) -> tuple[tuple[str, Stamp], ...]:
    """Return name and stamp of each file of a model's folder; none for one of the hub."""
    return () if model.path is None else stamps(Path(model.path), MODEL_FILES)


def stamps(folder: Path, patterns: Iterable[str]) -> tuple[tuple[str, Stamp], ...]:
    """Return name and stamp of the files of a folder that match the patterns."""
    return tuple((file.name, stamp_of(file)) for file in folder_files(folder, patterns))
