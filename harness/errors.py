"""What goes wrong, and what a user can mend."""

from __future__ import annotations

import difflib
import logging
import os
import re
import sys
from collections.abc import Iterable
from functools import cache

HUB_SECONDS = 5.0
"""How long the hub has to answer."""
SECRET = re.compile(r"TOKEN(?!IZ)|SECRET|PASSW|CREDENTIAL|KEY", re.IGNORECASE)
"""What the names of environment variables have in them whose values are nobody else's business."""


class UserError(Exception):
    """A wrong input or environment. Shown without a traceback; the command line exits with `status`."""

    def __init__(self, message: str, *, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


class DataError(UserError):
    """Data that are there and cannot be read as they stand: a file, a row or a cell. Nothing takes their place."""


class CellError(ValueError):
    """What is wrong with a cell, said after the name of its column: `is null; write its text, or leave the row out`."""


def redacted(text: str) -> str:
    """Return a text with the values of secret environment variables, and hub tokens, replaced by what they are."""
    for name, value in os.environ.items():
        if len(value) >= 8 and SECRET.search(name):
            text = text.replace(value, f"[{name}]")
    return re.sub(r"\bhf_[A-Za-z0-9]{20,}", "[hub token]", text)


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error as a sentence with one full stop, its type where it says nothing."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".: ") + "."


def suggest(wrong: str, known: Iterable[str]) -> str:
    """Return ` Did you mean X?` for the nearest known names, else the list of all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(wrong, names, n=3, cutoff=0.5)
    if near:
        return f" Did you mean {' or '.join(repr(name) for name in near)}?"
    return f" Known: {', '.join(names) or 'none'}."


def hub_refusal(what: str, hub: str, revision: str | None, error: BaseException) -> str | None:
    """Say why the hub refuses a `Model`, `Scorer` or `Data set`, by the class of the error, and what to do.

    None where it is no refusal of the hub's: it cannot be reached, or its answer could not be read.
    """
    from huggingface_hub import errors

    page = f"https://huggingface.co/{'datasets/' if what == 'Data set' else ''}{hub}"
    match error if isinstance(error, errors.HfHubHTTPError | errors.HFValidationError) else error.__cause__:
        case errors.GatedRepoError():
            return f"{what} {hub} is gated: accept its licence on {page}, then log in with `hf auth login`."
        case errors.RepositoryNotFoundError():
            kind = what.lower()
            return f"The hub has no {kind} {hub}, or it is private: check the name, or log in with `hf auth login`."
        case errors.RevisionNotFoundError():
            return f"{what} {hub} has no revision {revision!r}; {page}/tree/main lists its branches and tags."
        case errors.HFValidationError():
            return f"{hub!r} is no hub id; write owner/name or owner/name@revision, or pass a folder."
        case errors.HfHubHTTPError(response=response) if response.status_code < 500:
            return f"The hub refuses {hub} (HTTP {response.status_code}): see {page}, or log in: `hf auth login`."
    return None


@cache
def settle_offline() -> str:
    """Return why the hub cannot be used, empty where it answers anything; asked once a process.

    Where it does not, the libraries use local files alone from here on, in processes that are started later too: they
    would try each file again and again otherwise.
    """
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "switched off by HF_HUB_OFFLINE"
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception as error:
        cause = first_line(error)
        logging.getLogger(__name__).warning(
            "%s cannot be reached: %s Only local folders and its cache are used.", constants.ENDPOINT, cause
        )
        os.environ["HF_HUB_OFFLINE"] = "1"
        constants.HF_HUB_OFFLINE = True
        if datasets := sys.modules.get("datasets"):
            datasets.config.HF_HUB_OFFLINE = True
        return f"not reachable ({type(error).__name__})"
    return ""


class LayerNotLoaded(Exception):
    """A method reads a layer that was left out when the model was loaded."""


class JobError(Exception):
    """What went wrong with a job, told by its worker: the cause in words; notes hold its traceback and its log."""


class WorkerLost(JobError):
    """The process of a job ended before the job did.

    Attributes:
        passing: whether the cause can pass, as where memory was short beside other work: the runner tries such a job
            once more, when nothing else runs.
    """

    def __init__(self, cause: str, *, passing: bool = False) -> None:
        super().__init__(cause)
        self.passing = passing


class EntryLocked(Exception):
    """Another process is making what was asked for."""


class TrainingError(UserError):
    """Training that went wrong by itself: a loss that is not finite, or a result equal to the base."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=1)
