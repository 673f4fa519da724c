"""A model on torch's meta device: exact shapes, no weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from ..errors import UserError, first_line


def meta_model(facts: Mapping[str, Any]) -> PreTrainedModel:
    """Return the model of these facts (fields of a config.json) on the meta device: shapes without weights.

    Raises:
        UserError: facts that transformers cannot build a causal language model from.
    """
    return _meta_model(json.dumps(dict(facts), sort_keys=True))


@lru_cache(maxsize=8)
def _meta_model(facts: str) -> PreTrainedModel:
    try:
        config = AutoConfig.for_model(**json.loads(facts))
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    except Exception as error:
        raise UserError(
            f"The architecture facts {facts:.80} describe no causal language model: {first_line(error)} Check the"
            " model's config.json."
        ) from error
