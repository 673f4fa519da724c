"""Export: a checkpoint as a full Hugging Face folder, without loading the model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..models.load import MODEL_FILES, ModelSpec, load_model, model_folder
from ..models.weights import weight_files
from ..planning.plan import Plan
from ..planning.status import find_cell
from ..store.entries import DELTA, Store
from ..store.files import read_json, write_json
from ..store.identity import CONSTANT, UNMADE

if TYPE_CHECKING:
    from ..store.shards import Shard


INDEX = "model.safetensors.index.json"
WRITTEN = ("config.json", "*.safetensors", "pytorch_model*.bin", "*.index.json")
"""Those of a model's files that are not copied as they are."""


def export_cell(name: str, folder: Path, output: Path, suite: str | None = None) -> None:
    """Write the base model with a cell's changed tensors, and the tokenizer, to `folder`; see `export_checkpoint`.

    Raises:
        UserError: no such cell, a cell that is not finished or an import, or a folder that already holds something.
    """
    store = Store.open(output)
    plan = Plan.load(store, suite)
    cell = find_cell(plan, store, name)
    entry = store.entry("cells", cell.id)
    manifest = entry.manifest()
    made = cell.spec.transform not in UNMADE
    if cell.spec.transform == CONSTANT:
        raise UserError(f"{cell.spec.label} is no model: it answers alike whatever it is asked; name another cell.")
    if made:
        if manifest is None:
            raise UserError(f"Cell {cell.spec.label} is not finished; run `unlearn-bench evaluate` again first.")
        if "pointer" in manifest:
            raise UserError(f"{cell.spec.label} was made elsewhere; use its own folder, {manifest['pointer']}.")
        if cell.spec.changes == "decoding":
            raise UserError(
                f"{cell.spec.label} works at decoding time, so no folder of weights is what was measured: use the"
                f" base beside the assistant whose tensors lie in {entry.file(DELTA)}."
            )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder; pass a new one.")
    try:
        export_checkpoint(plan.models[cell.model], entry.file(DELTA) if made else None, folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}; pass another folder.") from error


def export_checkpoint(spec: ModelSpec, delta: Path | None, folder: Path) -> None:
    """Write a model with the tensors of a delta file (None: the base) to `folder`, its config.json last.

    Weight files without a changed tensor become hard links to the base's (copies where the filesystem has none), so
    whoever means to write into them copies the folder first. The others are written anew, tensor by tensor. Changed
    tensors are in the dtype of evaluation, and config.json names it: loaded in that, the folder is the checkpoint that
    was measured, bit by bit.

    The model is loaded whole only where its files do not hold the changed tensors under the names of the loaded
    model: pickles, conversions by transformers, a tensor of two names.
    """
    source = model_folder(spec)
    folder.mkdir(parents=True, exist_ok=True)
    streamed = _stream(spec, source, delta, folder)
    if not streamed:
        _save_whole(spec, delta, folder)
    for file in sorted({file for pattern in MODEL_FILES for file in source.glob(pattern)}):
        if not any(file.match(pattern) for pattern in WRITTEN):
            shutil.copyfile(file, folder / file.name)
    if streamed:
        config = read_json(source / "config.json")
        keys = [key for key in ("dtype", "torch_dtype") if key in config] or ["dtype"]
        _write(source / "config.json", folder / "config.json", config | dict.fromkeys(keys, spec.dtype))


def _stream(spec: ModelSpec, source: Path, delta: Path | None, folder: Path) -> bool:
    """Link or rewrite every weight file and write their index; False, with nothing written, where that cannot be."""
    from ..store.shards import Shard

    files = weight_files(source)
    if files[0].suffix != ".safetensors":
        return False
    shards = [Shard.read(file) for file in files]
    changed = {} if delta is None else Shard.read(delta).tensors
    if changed and not _replaceable(changed, shards, source):
        return False
    grown = 0
    for shard in shards:
        target = folder / shard.path.name
        if delta is None or changed.keys().isdisjoint(shard.tensors):
            _link(shard.path.resolve(), target)
        else:
            grown += shard.rewrite(target, delta, spec.torch_dtype)
    if files[0].name != "model.safetensors":
        index = read_json(source / INDEX)
        if "total_size" in index.get("metadata", {}):
            index["metadata"]["total_size"] += grown
        _write(source / INDEX, folder / INDEX, index)
    return True


def _replaceable(changed: Mapping[str, Any], shards: Sequence[Shard], source: Path) -> bool:
    """Whether each changed tensor of the loaded model is one tensor of the files, by its name and of its shape."""
    from ..models.meta import meta_model, tied_names

    shapes = {name: facts["shape"] for shard in shards for name, facts in shard.tensors.items()}
    if any(shapes.get(name) != facts["shape"] for name, facts in changed.items()):
        return False
    names = tied_names(meta_model(read_json(source / "config.json")))
    return not any(len(shapes.keys() & names.get(name, ())) > 1 for name in changed)


def _save_whole(spec: ModelSpec, delta: Path | None, folder: Path) -> None:
    from safetensors.torch import load_file

    from ..models.patch import apply_delta

    model = load_model(spec)
    if delta is not None:
        apply_delta(model, spec.name, load_file(delta))
    model.save_pretrained(folder)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _write(source: Path, target: Path, value: Any) -> None:
    """Copy a JSON file where it says `value` already, else write it."""
    if read_json(source) == value:
        shutil.copyfile(source, target)
    else:
        write_json(target, value)
