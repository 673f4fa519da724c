"""The model cache: a base model to train on and engines, kept between jobs. A GPU trains or evaluates."""

from __future__ import annotations

import gc
import logging
import math
import time
from collections.abc import Iterable, Mapping
from multiprocessing import util
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import UserError
from ..store.files import FileDigests
from .content import check_model, model_stamps
from .load import ModelSpec, load_model, load_tokenizer

logger = logging.getLogger(__name__)

KEPT = 2
"""Engines that a worker keeps, so that a checkpoint's own and its base's take turns; one where it stands alone."""


class LoadedEngine(Protocol):
    """What the cache knows of an engine; see `engines.base.Engine`."""

    alone: ClassVar[bool]
    closed: bool

    def __init__(self, model: ModelSpec, *, device: str, batch_size: int, options: Mapping[str, Any]) -> None: ...

    def close(self) -> None:
        """Give back memory and processes."""
        ...


EngineT = TypeVar("EngineT", bound=LoadedEngine)
_engines: dict[tuple[type, str], Any] = {}
"""Engines by class and what they hold: a model's digest, and the stamps of the files that its weights may live in."""
_base: dict[str, tuple[int | None, PreTrainedModel, PreTrainedTokenizerBase]] = {}
"""The base model for training, with the number of its first layers that were loaded; None: all."""


def base_model(
    model: ModelSpec, device: str, precision: str, layers: int | None = None, digests: FileDigests | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the base model for training, at least its first `layers`; who changes it gives its tensors back.

    Raises:
        UserError: it cannot be loaded, or its files are not those that its digest is of; `digests` remembers them.
    """
    if device != "cpu":
        _close(_engines)
    dtype = None if precision in ("mixed", "reference") else torch.float32
    key = repr((model, model_stamps(model), device, dtype))
    entry = _base.get(key)
    if entry is None or (entry[0] or math.inf) < (layers or math.inf):
        _base.clear()
        check_model(model, digests)
        entry = (layers, load_model(model, device, dtype, layers), load_tokenizer(model))
        check_model(model, digests)
        _base[key] = entry
    return entry[1], entry[2]


def engine(
    kind: type[EngineT],
    model: ModelSpec,
    device: str,
    batch_size: int,
    options: Mapping[str, Any],
    digests: FileDigests | None = None,
) -> EngineT:
    """Return an engine of a class that holds the model; whoever applies a delta restores the base.

    Raises:
        UserError: it cannot be loaded, or its files are not those that its digest is of; `digests` remembers them.
    """
    key = kind, repr((model, model_stamps(model), device, batch_size, sorted(options.items())))
    _close(name for name, engine in _engines.items() if engine.closed)
    if key not in _engines:
        alone = kind.alone or any(engine.alone for engine in _engines.values())
        _close(list(_engines)[: None if alone else max(0, len(_engines) - KEPT + 1)])
        if device != "cpu":
            _base.clear()
            gc.collect()
            torch.cuda.empty_cache()
        started = time.monotonic()
        check_model(model, digests)
        _engines[key] = kind(model, device=device, batch_size=batch_size, options=options)
        try:
            check_model(model, digests)
        except UserError:
            _close([key])
            raise
        logger.info("%s: engine %s starts in %.1f s", model.name, kind.__name__, time.monotonic() - started)
    _engines[key] = _engines.pop(key)
    return _engines[key]


def _close(names: Iterable[tuple[type, str]]) -> None:
    for name in list(names):
        logger.debug("engine closes: %s", name[1])
        _engines.pop(name).close()


util.Finalize(None, lambda: _close(_engines), exitpriority=100)
