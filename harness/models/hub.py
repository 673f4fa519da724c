"""The hub: a model's commit, its files, and what to do where it does not give them."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from ..errors import UserError, hub_refusal, settle_offline

logger = logging.getLogger(__name__)

IGNORED = ("*.bin", "consolidated*.safetensors")
"""Weights that are never taken from the hub: pickles, and second copies in another layout."""


def pin(hub: str, revision: str | None) -> tuple[str, bool]:
    """Return the commit of a branch, tag or commit (None: main), and whether the hub said so.

    Where the hub cannot be reached, the local cache says: by its refs, or because it holds that commit.

    Raises:
        UserError: where neither knows it, with what to do.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    settle_offline()
    try:
        commit = str(HfApi().model_info(hub, revision=revision, timeout=20).sha)
        logger.debug("%s at %s is commit %s", hub, revision or "main", commit)
        return commit, True
    except HFValidationError as error:
        raise UserError(explain(hub, revision, error)) from error
    except Exception as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
            raise UserError(explain(hub, revision, error)) from error
        cached = try_to_load_from_cache(hub, "config.json", revision=revision)
        if not isinstance(cached, str):
            raise UserError(explain(hub, revision, error)) from error
        return Path(cached).parent.name, False


def config_file(hub: str, commit: str) -> Path:
    """Return the local copy of a model's config.json; raise a `UserError` where the hub does not give it."""
    from huggingface_hub import hf_hub_download

    settle_offline()
    try:
        return Path(hf_hub_download(hub, "config.json", revision=commit))
    except Exception as error:
        raise UserError(explain(hub, commit, error)) from error


def snapshot(hub: str, commit: str, files: tuple[str, ...], weights: bool = True) -> Path:
    """Return the folder of the local cache that holds the named files of a commit; download what is missing.

    Without `weights` those are left where they are.

    Raises:
        UserError: where the hub does not give them, or no weights among them, with what to do.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    settle_offline()
    started = time.monotonic()
    ignored = [*IGNORED, *(() if weights else ("*.safetensors",))]
    try:
        folder = Path(snapshot_download(hub, revision=commit, allow_patterns=list(files), ignore_patterns=ignored))
    except Exception as error:
        raise UserError(explain(hub, commit, error)) from error
    logger.info("%s at %s: files of the hub in %.1f s", hub, commit, time.monotonic() - started)
    if weights and not any(folder.glob("model*.safetensors*")):
        raise UserError(
            f"Model {hub}: the local cache holds no weights (*.safetensors). Prefetch them with `hf download {hub}"
            f" --revision {commit}`; where the hub has pickles only, convert them and pass a folder."
        )
    return folder


def explain(hub: str, revision: str | None, error: Exception) -> str:
    """Say why the hub does not give a model, by the class of the error, and what to do."""
    from huggingface_hub import errors

    download = f"`hf download {hub}{f' --revision {revision}' if revision else ''}`"
    match error:
        case errors.RemoteEntryNotFoundError():
            page = f"https://huggingface.co/{hub}"
            return f"Model {hub} has no config.json on {page}: it is not in Hugging Face layout and cannot be run."
        case errors.IncompleteSnapshotError():
            return f"The local cache holds only a part of {hub}, and the hub cannot be reached: prefetch {download}."
    refusal = hub_refusal("Model", hub, revision, error)
    if refusal is not None:
        return refusal
    return (
        f"The hub cannot be reached for {hub} ({type(error).__name__}), and the local cache does not hold it:"
        f" prefetch it with {download} where there is network, or pass a folder with --models FOLDER."
    )
