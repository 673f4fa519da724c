"""Whether a folder's weights fit its config.json, by headers alone: what planning can know before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError, first_line
from .misfit import check_loaded, check_stored, loading_info
from .weights import StoredTensor, check_layout, check_one_model, config_facts, names_of, stored_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_weights(what: str, folder: Path, auto: str = "AutoModelForCausalLM") -> dict[str, StoredTensor]:
    """Return the tensors of a folder's files, where transformers would leave no weight random and ignore none.

    What a `quantization_config` speaks of is held against the model only when it is loaded.

    Args:
        what: the folder, for the message.
        folder: in Hugging Face layout.
        auto: the class of transformers that the folder will be loaded by.

    Raises:
        UserError: what does not fit, the cause and what to do; see `misfit`.
    """
    check_layout(what, folder)
    check_one_model(what, folder)
    facts = config_facts(what, folder)
    if facts.get("transformers_weights"):
        raise UserError(
            f"{what}: its config.json names other weights (transformers_weights: {facts['transformers_weights']});"
            " remove that line, and call the file model.safetensors."
        )
    from transformers.quantizers.auto import AutoHfQuantizer

    stored = stored_tensors(what, folder)
    if facts.get("quantization_config") and AutoHfQuantizer.supports_quant_method(facts["quantization_config"]):
        _check_scales(what, stored)
        return stored
    try:
        model = _on_meta(folder, auto)
        info = loading_info(type(model), model.config, {name: tensor.shape for name, tensor in stored.items()})
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise UserError(needs_code(what)) from error
        raise UserError(
            f"{what}: no model can be built by its config.json: {first_line(error)} Put the config.json of these"
            " weights there, or install a transformers that knows it."
        ) from error
    check_loaded(what, model, stored, info)
    check_stored(what, model, stored)
    return stored


def _check_scales(what: str, stored: Mapping[str, StoredTensor]) -> None:
    """Raise a `UserError` where a weight of 8 bits has lost its scale, which transformers would take to be 1."""
    scaled = {_module(name) for name in stored if "scale" in name.rpartition(".")[2]}
    lost = sorted(name for name, tensor in stored.items() if tensor.dtype[:2] == "F8" and _module(name) not in scaled)
    if lost:
        raise UserError(f"{what} holds {names_of(lost)} in 8 bits without a scale. Save the quantised model again.")


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _on_meta(folder: Path, auto: str) -> PreTrainedModel:
    """Return the model of a folder's config.json without weights."""
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        model = getattr(transformers, auto).from_config(config, trust_remote_code=False)
    model.tie_weights()
    return model


def needs_code(what: str) -> str:
    """Say that a model brings code of its own."""
    return (
        f"{what} needs Python code of its own, which is never executed here; use a model that transformers knows,"
        " or a newer transformers."
    )
