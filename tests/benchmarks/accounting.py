"""Bytes of tensors alive, on any device and also of tensors without values (torch's fake mode)."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from unlearn_bench.harness.models.load import cut
from unlearn_bench.harness.models.meta import meta_model
from unlearn_bench.harness.suite import TrainingSpec
from unlearn_bench.harness.training.batches import Corpora
from unlearn_bench.harness.training.forward import SharedPrefix
from unlearn_bench.harness.training.trace import trace_method
from unlearn_bench.harness.training.trainer import Trainer
from unlearn_bench.methods.base import methods
from unlearn_bench.methods.testing import WORDS, tiny_tokenizer


class Accounting(TorchDispatchMode):
    """Adds up the storages that operations make while it is active, until they are freed.

    Args:
        held: tensors that count from the start.
        elsewhere: tensors that do not count.

    Attributes:
        live: bytes now.
        peak: the most bytes so far.
    """

    def __init__(self, held: Iterable[Tensor], elsewhere: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, Any] = {id(tensor.untyped_storage()): tensor for tensor in elsewhere}
        for tensor in held:
            self._see(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count what it made."""
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        return made

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return

        def gone(_: Any) -> None:
            del self._known[key]
            self.live -= size

        self._known[key] = weakref.ref(storage, gone)
        self.live += size
        self.peak = max(self.peak, self.live)


def training_bytes(
    facts: Mapping[str, Any],
    name: str,
    training: TrainingSpec,
    settings: Mapping[str, Any] | None = None,
    *,
    checkpointing: bool = False,
    steps: int = 2,
) -> int:
    """Return the peak bytes of tensors on the device while our loop trains a model of these facts, tensor by tensor.

    The loop itself runs, on fake tensors of the real shapes; full-length text; the embedding, which a GPU run keeps in
    main memory, does not count. What values decide is replaced: finite losses, agreement of the shared layers.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    kind = methods.get(name)
    chosen = kind.Settings(**(settings or {}))
    config = AutoConfig.for_model(**facts)
    depth = config.num_hidden_layers
    work = trace_method(kind(chosen), meta_model(facts))
    if not work.head:
        cut(config, work.layers)
    text = [
        " ".join(WORDS[(7 * row + word) % len(WORDS)] for word in range(training.max_length))
        for row in range(4 * steps)
    ]
    with FakeTensorMode(allow_non_fake_inputs=True):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
        if not work.head:
            model.set_output_embeddings(torch.nn.Identity())
        embedding = model.get_input_embeddings().weight
        trains = any(name.endswith("embed_tokens.weight") for name in work.trained)
        held = [tensor for tensor in (*model.parameters(), *model.buffers()) if trains or tensor is not embedding]
        with (
            patch.object(model, "to", lambda *_: model),
            patch.object(SharedPrefix, "same", lambda *_: True),
            patch.object(Trainer, "_finite", lambda *_: 1.0),
            Accounting(held, [] if trains else [embedding]) as account,
        ):
            corpora = Corpora({"forget": text}, text)
            trainer = Trainer(
                model, tiny_tokenizer(), kind(chosen), corpora, training, 0, depth=depth, checkpointing=checkpointing
            )
            for _ in range(steps):
                trainer._train_step()
                trainer.step += 1
    return account.peak
