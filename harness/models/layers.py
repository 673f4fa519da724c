"""The decoder layers of a model: where they are, which one a parameter is of, a model of the first few."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def decoder_layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """Return the full name of the list of decoder layers (`model.layers`) and the list.

    Raises:
        UserError: where the model has no list of as many modules as its configuration has layers.
    """
    count = model.config.get_text_config(decoder=True).num_hidden_layers
    own = getattr(model.get_decoder(), "layers", None)
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    for name, module in lists:
        if module is own:
            return name, module
    for name, module in lists:
        if len(module) == count:
            return name, module
    raise UserError(
        f"{type(model).__name__} has no list of {count} decoder layers; methods cannot find its activations: use a"
        " decoder-only model of a usual family."
    )


def layer_of(name: str, prefix: str) -> int:
    """Return the decoder layer of a parameter by its full name; one outside the layers counts as the first."""
    head, _, rest = name.partition(f"{prefix}.")
    return int(rest.split(".")[0]) if rest and not head else 0


def embed_in_main_memory(
    model: PreTrainedModel, device: torch.device, trained: Iterable[Tensor]
) -> list[RemovableHandle]:
    """Keep the input embedding off a device that has memory of its own; only rows cross over.

    Not so where it trains or is the head's matrix too. That of an 8B model takes a GiB. Removing the handles undoes it
    but for the place.
    """
    table: Any = model.get_input_embeddings()
    needed = [*trained, getattr(model.get_output_embeddings(), "weight", None)]
    if device.type == "cpu" or any(tensor is table.weight for tensor in needed):
        return []
    table.to("cpu")
    return [
        table.register_forward_pre_hook(lambda _module, inputs: tuple(ids.to("cpu") for ids in inputs)),
        table.register_forward_hook(lambda _module, _inputs, rows: rows.to(device)),
    ]


@contextmanager
def first_layers(modules: nn.ModuleList, depth: int) -> Iterator[None]:
    """Let a model be its first `depth` decoder layers under its own norm and head while the block runs.

    The layers after them hand on the output of the last that runs, in its own form, and keep nothing in a cache.
    """
    outputs: list[Any] = [None]

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        outputs[0] = output

    skipped = list(modules)[depth:]
    handle = modules[depth - 1].register_forward_hook(keep)
    for module in skipped:
        module.forward = lambda *_, **__: outputs[0]
    try:
        yield
    finally:
        handle.remove()
        for module in skipped:
            del module.forward
