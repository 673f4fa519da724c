"""What a worker keeps in memory between jobs: one base model to train on, one engine a model, one judge."""

from __future__ import annotations

from functools import lru_cache

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..tasks.base import Scorer, load_scorer
from .engines.base import Engine, engines
from .models import ModelSpec, load_model, load_tokenizer


@lru_cache(maxsize=1)
def base_model(model: ModelSpec, device: str, precision: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the base model for training; whoever changes it gives the original tensors back."""
    dtype = torch.float32 if precision == "float32" else None
    return load_model(model, device, dtype), load_tokenizer(model)


@lru_cache(maxsize=2)
def engine(kind: str, model: ModelSpec, device: str, batch_size: int) -> Engine:
    """Return an engine that holds the model; whoever applies a delta restores the base."""
    return engines.get(kind)(model, device=device, batch_size=batch_size)


@lru_cache(maxsize=1)
def judge(kind: str, folder: str, device: str) -> Scorer:
    """Return a loaded judge."""
    return load_scorer(kind, folder, device)
