"""A model on torch's meta device: exact shapes and ties, no weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from ..errors import UserError, first_line
from .load import attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def meta_model(facts: Mapping[str, Any]) -> PreTrainedModel:
    """Return the model of these facts (fields of a config.json) on the meta device: shapes without weights.

    Raises:
        UserError: facts that transformers cannot build a causal language model from.
    """
    return _meta_model(json.dumps(dict(facts), sort_keys=True))


@lru_cache(maxsize=8)
def _meta_model(facts: str) -> PreTrainedModel:
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.for_model(**json.loads(facts))
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                config, attn_implementation=attention(config), trust_remote_code=False
            )
        model.tie_weights()
        return model
    except Exception as error:
        raise UserError(
            f"The architecture facts {facts:.80} describe no causal language model: {first_line(error)} Check the"
            " model's config.json."
        ) from error


def tied_names(model: PreTrainedModel) -> dict[str, list[str]]:
    """Return all names that a tensor of the model goes by, under each of them."""
    tensors = model.state_dict(keep_vars=True)
    names: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        names.setdefault(id(tensor), []).append(name)
    return {name: names[id(tensor)] for name, tensor in tensors.items()}
