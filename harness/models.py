"""Models: any causal language model by local folder or hub id, loaded with nothing left to library defaults."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UserError
from .specs import Spec, identity, recorded, runtime

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class ModelSpec(Spec):
    """A base model. `digest` identifies the weights and tokenizer: of the local files, or the hub's pinned commit."""

    name: str = recorded(description="the name on boards")
    path: str | None = runtime(None, description="local folder in Hugging Face layout")
    hub: str | None = recorded(None, description="hub id")
    revision: str | None = recorded(None, description="hub revision (commit) that is loaded")
    dtype: str = identity("float32", pattern="^(float32|bfloat16|float16)$", description="dtype of evaluation")
    digest: str = identity("", description="digest of the local files, or hub id @ commit")

    __hash__ = Spec.__hash__

    @property
    def source(self) -> str:
        """What transformers is asked for: the folder, else the hub id."""
        return self.path or self.hub or ""

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch's own."""
        import torch

        return getattr(torch, self.dtype)


ATTENTION = "sdpa"


def load_model(spec: ModelSpec, device: str = "cpu", dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Load the model in evaluation mode; executes no code from a hub.

    Raises:
        UserError: where it cannot be read, with the cause and what to do.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    options: dict[str, Any] = {"revision": spec.revision} if spec.path is None and spec.revision else {}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            spec.source,
            dtype=dtype or spec.torch_dtype,
            attn_implementation=ATTENTION,
            trust_remote_code=False,
            **options,
        )
    except Exception as error:
        raise UserError(unreadable(spec, error)) from error
    return model.to(device).eval()  # pyright: ignore[reportArgumentType]


def load_tokenizer(spec: ModelSpec) -> PreTrainedTokenizerBase:
    """Load the model's tokenizer; a missing pad token becomes the end token.

    Raises:
        UserError: where it cannot be read, with the cause and what to do.
    """
    from transformers import AutoTokenizer

    options: dict[str, Any] = {"revision": spec.revision} if spec.path is None and spec.revision else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(spec.source, trust_remote_code=False, **options)
    except Exception as error:
        raise UserError(unreadable(spec, error)) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def unreadable(spec: ModelSpec, error: Exception) -> str:
    """Say why a model cannot be loaded and what to do."""
    cause = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".") + "."
    if spec.path is not None:
        if not Path(spec.path).is_dir():
            return f"Model folder {spec.path} does not exist. Pass one in Hugging Face layout."
        return f"Model folder {spec.path} cannot be loaded: {cause}"
    return (
        f"Model {spec.hub} cannot be loaded from the hub: {cause} Check the network, accept the model's licence on its"
        " page and log in with `hf auth login`, or pass a local folder with --models FOLDER."
    )


MODEL_FILES = ("config.json", "*.safetensors", "*.bin", "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json")
"""The files of a model's folder that its digest covers."""
