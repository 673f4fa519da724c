"""What a worker keeps in memory between jobs: a base model to train on, engines, judges. A GPU trains or measures."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping
from functools import lru_cache
from multiprocessing import util
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..tasks.base import Scorer, load_scorer
from .engines.base import Engine, engines
from .models import ModelSpec, load_model, load_tokenizer

KEPT = 2
"""Engines that a worker keeps, so that a checkpoint's own and its base's take turns; one where it stands alone."""

_engines: dict[str, Engine] = {}


def base_model(model: ModelSpec, device: str, precision: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the base model for training; whoever changes it gives the original tensors back."""
    if device != "cpu":
        _close(_engines)
    return _base_model(model, device, precision)


@lru_cache(maxsize=1)
def _base_model(model: ModelSpec, device: str, precision: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    dtype = None if precision == "reference" else torch.float32
    return load_model(model, device, dtype), load_tokenizer(model)


def engine(kind: str, model: ModelSpec, device: str, batch_size: int, options: Mapping[str, Any]) -> Engine:
    """Return an engine that holds the model; whoever applies a delta restores the base."""
    made = engines.get(kind)
    key = repr((kind, model, device, batch_size, sorted(options.items())))
    _close(name for name, held in _engines.items() if held.closed)
    if key not in _engines:
        alone = made.alone or any(held.alone for held in _engines.values())
        _close(list(_engines)[: None if alone else max(0, len(_engines) - KEPT + 1)])
        if device != "cpu":
            _base_model.cache_clear()
            gc.collect()
            torch.cuda.empty_cache()
        _engines[key] = made(model, device=device, batch_size=batch_size, options=options)
    _engines[key] = _engines.pop(key)
    return _engines[key]


def _close(names: Iterable[str]) -> None:
    for name in list(names):
        _engines.pop(name).close()


util.Finalize(None, lambda: _close(_engines), exitpriority=100)


@lru_cache(maxsize=2)
def judge(kind: str, folder: str, device: str) -> Scorer:
    """Return a loaded judge."""
    return load_scorer(kind, folder, device)
