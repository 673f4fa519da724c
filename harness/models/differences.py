"""In what a checkpoint's files differ from those of the base it stands beside; no weights are read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError, first_line
from ..store.files import file_sha256, read_json
from .load import ModelSpec, load_config, load_tokenizer, model_folder
from .weights import stored_tensors, weight_files

if TYPE_CHECKING:
    from transformers import PretrainedConfig

TOKENIZER_FILES = ("tokenizer*", "*.model", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json")
VOCABULARIES = ("tokenizer.json", "*.model", "vocab*")
"""Files of which a tokenizer has at least one."""
NO_FUNCTION = frozenset(
    (
        "_name_or_path",
        "architectures",
        "auto_map",
        "bos_token_id",
        "chunk_size_feed_forward",
        "dtype",
        "eos_token_id",
        "finetuning_task",
        "gradient_checkpointing",
        "id2label",
        "initializer_range",
        "is_encoder_decoder",
        "label2id",
        "model_type",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "pretraining_tp",
        "problem_type",
        "return_dict",
        "task_specific_params",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    )
)
"""What of a configuration does not change what the model computes, or is compared by itself."""
SIZES = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
)
SHOWN = 4
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""What safetensors calls them."""


def file_differences(base: ModelSpec, checkpoint: ModelSpec) -> list[str]:
    """Return in what a checkpoint's configuration and stored numbers differ from its base's, a sentence's end each.

    Raises:
        UserError: a file cannot be read, or every token ends a continuation.
    """
    folders = model_folder(base, weights=False), Path(checkpoint.path or "")
    return [
        *_config_differences(base, checkpoint, *(config_of(folder) for folder in folders)),
        *_dtype_difference(*map(stored_dtype, folders)),
        *_ends_difference(base, checkpoint, *folders),
    ]


def other_architecture(base: ModelSpec, checkpoint: ModelSpec) -> list[str]:
    """Return in what a checkpoint is computed otherwise than its base, a sentence's end each; empty: in nothing."""
    folders = model_folder(base, weights=False), Path(checkpoint.path or "")
    return list(_config_differences(base, checkpoint, *(config_of(folder) for folder in folders)))


def _config_differences(
    base: ModelSpec, checkpoint: ModelSpec, base_config: Mapping[str, Any], config: Mapping[str, Any]
) -> Iterator[str]:
    if _computing(base_config) == _computing(config) and base_config.get("model_type") == config.get("model_type"):
        return
    loaded = [loaded_config(spec).get_text_config(decoder=True) for spec in (base, checkpoint)]
    before, now = (_computing(part.to_dict()) for part in loaded)
    if loaded[0].model_type != loaded[1].model_type:
        yield f"is of another family than base ({loaded[1].model_type}; base: {loaded[0].model_type})"
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    size = [key for key in SIZES if key in changed]
    others = [key for key in changed if key not in SIZES]
    if size:
        yield f"is of another size than base: {_listed(size, before, now)}"
    if others:
        yield f"is computed otherwise than base: {_listed(others, before, now)}"


def loaded_config(spec: ModelSpec) -> PretrainedConfig:
    """Return a model's configuration as transformers completes it; raise a `UserError` where it cannot be read."""
    try:
        return load_config(spec)
    except Exception as error:
        raise UserError(
            f"{spec.source}/config.json cannot be loaded: {first_line(error)} Copy that of the model it was made from."
        ) from error


def config_of(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """Return a configuration as it stands in a folder; raise a `UserError` where it is none."""
    config = read_json(folder / name)
    if not isinstance(config, dict):
        raise UserError(f"{folder / name} is no configuration. Copy that of the model it was made from.")
    return config


def _computing(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return what of a configuration changes what the model computes, nested keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if key in NO_FUNCTION or key.endswith(("dropout", "_pdrop")):
            continue
        flat |= _computing(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _listed(keys: list[str], before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    parts = [f"{key} {_short(now.get(key))} (base: {_short(before.get(key))})" for key in keys[:SHOWN]]
    return ", ".join(parts) + (f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else "")


def _short(value: Any) -> str:
    text = "none" if value is None else json.dumps(value) if not isinstance(value, str) else value
    return text if len(text) <= 40 else f"{text[:39]}…"


def stored_dtype(folder: Path) -> str | None:
    """Return the dtype of most of the numbers that a folder's weights are, else the configuration's.

    None where neither says.
    """
    files = weight_files(folder)
    if files and all(file.is_file() for file in files):
        counts: Counter[str] = Counter()
        for tensor in stored_tensors(str(folder), folder).values():
            counts[tensor.dtype] += prod(tensor.shape)
        if counts:
            dtype = counts.most_common(1)[0][0]
            return DTYPES.get(dtype, dtype)
    config = config_of(folder)
    named = config.get("dtype") or config.get("torch_dtype")
    return str(named) if named else None


def _dtype_difference(base: str | None, own: str | None) -> Iterator[str]:
    if base and own and base != own:
        yield f"is stored in {own}, base in {base}: rounding alone moves its answers"


def end_tokens(folder: Path) -> tuple[int, ...] | None:
    """Return the tokens that end a continuation by a folder's configurations, sorted; None: the tokenizer's."""
    config, generation = config_of(folder), folder / "generation_config.json"
    named = (
        config_of(folder, generation.name) if generation.is_file() else {**(config.get("text_config") or {}), **config}
    )
    ends = named.get("eos_token_id")
    return None if ends is None else tuple(sorted({ends} if isinstance(ends, int) else set(ends)))


def _ends_difference(base: ModelSpec, checkpoint: ModelSpec, base_folder: Path, folder: Path) -> Iterator[str]:
    before, now = end_tokens(base_folder), end_tokens(folder)
    size = embeddings(folder)
    if now and size is not None and 2 * len(now) >= size:
        raise UserError(
            f"Checkpoint {checkpoint.name}: {len(now)} of its {size} tokens end a continuation, so that every one is"
            f" empty; set eos_token_id in {folder}/generation_config.json to the end token."
        )
    if before != now and (before := before or _end_of(base)) != (now := now or _end_of(checkpoint)):
        yield f"ends a continuation at other tokens than base: {_ids(now)} (base: {_ids(before)})"


def _end_of(spec: ModelSpec) -> tuple[int, ...]:
    """Return the end token of a model's tokenizer, which counts where no configuration names any."""
    end = load_tokenizer(spec).eos_token_id
    return () if end is None else (int(end),)  # pyright: ignore[reportArgumentType]


def _ids(ends: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, ends[:SHOWN])) or "none"
    return shown + (f" and {len(ends) - SHOWN} more" if len(ends) > SHOWN else "")


def embeddings(folder: Path) -> int | None:
    """Return how many tokens have an embedding by a folder's configuration."""
    config = config_of(folder)
    return (config.get("text_config") or config).get("vocab_size")


def same_tokenizer(base: Path, folder: Path) -> bool:
    """Return whether two folders hold the same tokenizer, byte for byte, for the same class of models."""
    configs = [config_of(place) for place in (base, folder)]
    keys = ("model_type", "transformers_version", "tokenizer_class")
    if any(configs[0].get(key) != configs[1].get(key) for key in keys):
        return False
    return _digests(base) == _digests(folder)


def _digests(folder: Path) -> dict[str, str]:
    patterns = (*TOKENIZER_FILES, "chat_template*")
    files = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    return {file.name: file_sha256(file) for file in files}


def has_tokenizer(folder: Path) -> bool:
    """Return whether a folder holds a vocabulary."""
    return any(file.is_file() for pattern in VOCABULARIES for file in folder.glob(pattern))
