"""Whether a folder's weights fit its config.json, by headers alone: what planning can know before it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError, first_line
from ..store.files import read_json
from .load import needs_code
from .misfit import check_loaded, loading_info
from .weights import check_layout, stored_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_weights(what: str, folder: Path, auto: str = "AutoModelForCausalLM") -> None:
    """Raise a `UserError` where transformers would leave weights random or ignore some: see `misfit`.

    What a `quantization_config` speaks of is held against the model only when it is loaded.

    Args:
        what: the folder, for the message.
        folder: in Hugging Face layout.
        auto: the class of transformers that the folder will be loaded by.
    """
    check_layout(what, folder)
    facts = read_json(folder / "config.json")
    if facts.get("transformers_weights"):
        raise UserError(
            f"{what}: its config.json names other weights (transformers_weights: {facts['transformers_weights']});"
            " remove that line, and call the file model.safetensors."
        )
    stored = stored_tensors(what, folder)
    if facts.get("quantization_config"):
        return
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


def _on_meta(folder: Path, auto: str) -> PreTrainedModel:
    """Return the model of a folder's config.json without weights."""
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        model = getattr(transformers, auto).from_config(config, trust_remote_code=False)
    model.tie_weights()
    return model
