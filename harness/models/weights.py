"""Weight files: what a folder in Hugging Face layout holds, read from headers and indexes; nothing is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from ..errors import UserError, first_line
from ..store.files import read_json

AGAIN = "Copy or download it again."
ADAPTER = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
LFS_POINTER = 1024
"""Bytes that a pointer of Git LFS never has."""
SINGLES = ("model.safetensors", "pytorch_model.bin")
"""The files of a model that is not divided, the preferred one first."""
OTHERS = {
    "**/*.distcp": "it holds shards of FSDP: merge them by `accelerate merge-weights`, and pass the result",
    "global_step*": "it holds a checkpoint of DeepSpeed: run its zero_to_fp32.py, and pass the result",
    "*/adapter_config.json": "an adapter lies in a folder of it: pass that one",
    "*/config.json": "a model may lie in a folder of it: pass that one",
    "*.gguf": "GGUF is not read: pass the model that it was made from",
    "*.safetensors": "call the file model.safetensors, or put the index of its shards there",
    "*.bin": "call the file pytorch_model.bin, or put the index of its shards there",
}
"""What lies in folders of other layouts, to what can be done."""
FLOATS = ("F64", "F32", "F16", "BF16")
"""The dtypes whose values a weight takes as they are; those of 8 bits and less come with scales."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a weight file: its dtype by safetensors' name, its shape, its file."""

    dtype: str
    shape: tuple[int, ...]
    file: Path

    @property
    def floating(self) -> bool:
        """Whether its values are real numbers."""
        return self.dtype in FLOATS


def check_layout(what: str, folder: Path) -> None:
    """Raise a `UserError` where a folder is no model in Hugging Face layout, whole and of its own."""
    weights = weight_files(folder)
    if (folder / ADAPTER).is_file():
        if weights:
            raise UserError(f"{what} holds a model and an adapter ({ADAPTER}); put the one that is meant by itself.")
        raise UserError(
            f"{what} holds an adapter: pass it with --checkpoint NAME=FOLDER beside its base, or merge it into that"
            " (peft: merge_and_unload) and pass the result."
        )
    if not (folder / "config.json").is_file():
        raise UserError(f"{what} has no config.json; pass a folder in Hugging Face layout.")
    if not weights:
        other = next((mend for pattern, mend in OTHERS.items() if any(folder.glob(pattern))), None)
        raise UserError(
            f"{what} holds no weights (model.safetensors or pytorch_model.bin);"
            f" {other or 'pass a folder in Hugging Face layout'}."
        )
    missing = [file.name for file in weights if not file.is_file()]
    if missing:
        raise UserError(f"{what} lacks {len(missing)} of {len(weights)} weight files: {missing[0]}; download it again.")


def weight_files(folder: Path) -> list[Path]:
    """Return the files that transformers loads: safetensors, else pickles; the shards of an index, there or not."""
    index = _index(folder)
    if index is not None:
        return [folder / name for name in sorted(set(_weight_map(index).values()))]
    return [folder / name for name in SINGLES if (folder / name).is_file()][:1]


def check_one_model(what: str, folder: Path) -> None:
    """Raise a `UserError` where a single file and the shards of an index stand side by side: one of them is old."""
    for name in SINGLES:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file() and index.is_file():
            shards = sorted(set(_weight_map(index).values()) - {name})
            if any((folder / shard).is_file() for shard in shards):
                raise UserError(
                    f"{what} holds {name} and the shards of {index.name} ({names_of(shards)}): one of them may be old."
                    " Remove what is not meant."
                )


def _index(folder: Path) -> Path | None:
    """Return the index that transformers goes by; None: it takes a single file, or there is none."""
    for name in SINGLES:
        if (folder / name).is_file():
            return None
        if (folder / f"{name}.index.json").is_file():
            return folder / f"{name}.index.json"
    return None


def _weight_map(index: Path) -> dict[str, str]:
    listed = read_json(index)
    names = listed.get("weight_map") if isinstance(listed, dict) else None
    if not isinstance(names, dict) or not all(isinstance(file, str) for file in names.values()):
        raise UserError(f"{index} is no index of weights: it has no `weight_map` of tensors to files. {AGAIN}")
    if "metadata" not in listed:
        raise UserError(f'{index} has no `metadata`, which transformers asks for; add "metadata": {{}} to it.')
    return names


def stored_tensors(what: str, folder: Path) -> dict[str, StoredTensor]:
    """Return every tensor of the weight files by its name in them.

    Raises:
        UserError: a file is damaged, two files hold one tensor, or an index names one that no file holds.
    """
    tensors: dict[str, StoredTensor] = {}
    for file in weight_files(folder):
        own = _of_safetensors(what, file) if file.suffix == ".safetensors" else _of_pickle(what, file)
        twice = sorted(own.keys() & tensors.keys())
        if twice:
            raise UserError(
                f"{what}: {tensors[twice[0]].file.name} and {file.name} both hold {names_of(twice)}; which one is meant"
                " cannot be known. Save the model again."
            )
        tensors |= own
    index = _index(folder)
    lost = sorted(_weight_map(index).keys() - tensors.keys()) if index is not None else []
    if lost:
        raise UserError(f"{what}: its index lists {names_of(lost)}, which no file of it holds. {AGAIN}")
    return tensors


def _of_safetensors(what: str, file: Path) -> dict[str, StoredTensor]:
    from safetensors import safe_open

    if file.stat().st_size < LFS_POINTER and file.read_bytes().startswith(b"version https://git-lfs"):
        raise UserError(f"{what}: {file.name} is a pointer of Git LFS and no weights; run `git lfs pull` there.")
    try:
        with safe_open(file, "np") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            return {
                name: StoredTensor(str(part.get_dtype()), tuple(part.get_shape()), file)
                for name, part in slices.items()
            }
    except Exception as error:
        raise UserError(f"{what}: {file.name} is cut off or damaged: {first_line(error)} {AGAIN}") from error


def _of_pickle(what: str, file: Path) -> dict[str, StoredTensor]:
    """Read a pickle's names and shapes; its code is never executed and its values stay on disk."""
    import torch

    try:
        state = torch.load(file, map_location="meta", weights_only=True, mmap=is_zipfile(file))
    except Exception as error:
        raise UserError(f"{what} cannot be loaded: {file.name}: {first_line(error)} {AGAIN}") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        keys = names_of(list(state)) if isinstance(state, Mapping) else type(state).__name__
        raise UserError(f"{what}: {file.name} is no state dict but {keys}; save the model's `state_dict()` alone.")
    return {str(name): StoredTensor(_code(value), tuple(value.shape), file) for name, value in state.items()}


def _code(tensor: Any) -> str:
    """Return safetensors' name of a dtype."""
    kind = str(tensor.dtype).removeprefix("torch.")
    if kind.startswith("bfloat"):
        return "BF16"
    letter = "F" if tensor.dtype.is_floating_point else "C" if tensor.dtype.is_complex else "I"
    return f"{letter}{8 * tensor.dtype.itemsize}"


def same_values(first: str, one: StoredTensor, second: str, other: StoredTensor) -> bool:
    """Return whether two stored tensors hold the same values; of a pickle that is not read, and holds until it is."""
    import torch
    from safetensors import safe_open

    if one.shape != other.shape:
        return False
    if {one.file.suffix, other.file.suffix} != {".safetensors"}:
        return True

    rows = max(1, (1 << 24) // max(1, prod(one.shape[1:])))
    with safe_open(one.file, "pt") as left, safe_open(other.file, "pt") as right:
        a, b = left.get_slice(first), right.get_slice(second)
        return all(torch.equal(a[row : row + rows], b[row : row + rows]) for row in range(0, one.shape[0], rows))


def config_facts(what: str, folder: Path) -> dict[str, Any]:
    """Return what a folder's config.json says; raise a `UserError` where it is no configuration."""
    facts = read_json(folder / "config.json")
    if not isinstance(facts, dict):
        raise UserError(f"{what}: its config.json is no configuration of a model (a JSON object). {AGAIN}")
    return facts


def names_of(names: list[Any], most: int = 3) -> str:
    """Return the first of some names, and how many there are where there are more."""
    first = ", ".join(map(str, names[:most]))
    return first if len(names) <= most else f"{first}, … ({len(names)} in all)"
