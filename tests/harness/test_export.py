"""Export: the folder loads to exactly what was measured, made from links and single tensors, never from a model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from unlearn_bench.harness.maintenance import export
from unlearn_bench.harness.maintenance.export import export_checkpoint
from unlearn_bench.harness.models.load import ModelSpec, load_model, named_dtype
from unlearn_bench.harness.models.patch import apply_delta
from unlearn_bench.harness.store.delta import save_delta
from unlearn_bench.harness.store.files import read_json, write_json
from unlearn_bench.harness.store.shards import Shard

ODD: dict[str, Any] = {"vocab_size": 91, "hidden_size": 17, "num_attention_heads": 1}
CHANGED = "model.layers.1.mlp.down_proj.weight"
SHAPE = {
    **{"vocab_size": 90, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4},
    **{"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64},
}


def build(
    folder: Path, family: str = "llama", dtype: str = "float32", shard: str = "12KB", **changes: Any
) -> ModelSpec:
    """Save a random model, in several shards, with files of a tokenizer."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**SHAPE, **changes})
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    model.save_pretrained(folder, max_shard_size=shard)
    (folder / "tokenizer.json").write_text('{"kept": "as it is"}')
    (folder / "README.md").write_text("not part of the model")
    return ModelSpec(name="toy", path=str(folder), dtype=dtype)


def change(model: PreTrainedModel, *names: str) -> dict[str, Tensor]:
    own = dict(model.named_parameters())
    return {name: own[name].detach() + torch.randn(own[name].shape).to(own[name].dtype) for name in names}


def exported(spec: ModelSpec, delta: dict[str, Tensor] | None, folder: Path) -> Path:
    """Export to `folder`/new, and hold that it loads to what the engine measures."""
    if delta is not None:
        save_delta(folder / "delta.safetensors", delta)
    export_checkpoint(spec, folder / "delta.safetensors" if delta is not None else None, folder / "new")
    measured = load_model(spec)
    apply_delta(measured, spec.name, delta or {})
    assert named_dtype(read_json(folder / "new" / "config.json"), "it") == spec.dtype
    loaded = AutoModelForCausalLM.from_pretrained(folder / "new", dtype="auto").state_dict()
    expected = measured.state_dict()
    assert loaded.keys() == expected.keys()
    for name, tensor in expected.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor), name
    return folder / "new"


@pytest.fixture
def never_whole(monkeypatch):
    def load(*_):
        raise AssertionError("the model was loaded whole")

    monkeypatch.setattr(export, "load_model", load)


def shards(folder: Path) -> dict[str, Path]:
    return {file.name: file for file in folder.glob("*.safetensors")}


def test_only_shards_with_a_changed_tensor_are_written(tmp_path: Path, never_whole) -> None:
    spec = build(tmp_path / "base")
    new = exported(spec, change(load_model(spec), CHANGED), tmp_path)
    index = read_json(tmp_path / "base" / export.INDEX)
    base, made = shards(tmp_path / "base"), shards(new)
    assert len(base) > 3
    assert made.keys() == base.keys()
    for name in base:
        same = base[name].stat().st_ino == made[name].stat().st_ino
        assert same == (name != index["weight_map"][CHANGED])
        assert not made[name].is_symlink()
    for kept in ("tokenizer.json", "generation_config.json", "config.json", export.INDEX):
        assert (new / kept).read_bytes() == (tmp_path / "base" / kept).read_bytes()
    assert not (new / "README.md").exists()


def test_the_base_is_not_written_into(tmp_path: Path) -> None:
    spec = build(tmp_path / "base")
    before = {file: file.read_bytes() for file in (tmp_path / "base").iterdir()}
    exported(spec, change(load_model(spec), CHANGED), tmp_path)
    assert {file: file.read_bytes() for file in (tmp_path / "base").iterdir()} == before


def test_a_single_file_keeps_its_metadata_and_its_other_tensors(tmp_path: Path, never_whole) -> None:
    spec = build(tmp_path / "base", shard="1GB")
    delta = change(load_model(spec), CHANGED, "model.norm.weight")
    new = exported(spec, delta, tmp_path)
    files = [folder / "model.safetensors" for folder in (tmp_path / "base", new)]
    heads = [safe_open(file, "pt").metadata() for file in files]
    assert heads[0] == heads[1] == {"format": "pt"}
    before, after = map(load_file, files)
    assert {name for name in before if not torch.equal(before[name], after[name])} == set(delta)


def test_a_base_cell_is_all_links(tmp_path: Path, never_whole) -> None:
    new = exported(build(tmp_path / "base"), None, tmp_path)
    assert all(file.samefile(tmp_path / "base" / name) for name, file in shards(new).items())


@pytest.mark.parametrize("stored", ["bfloat16", "float32"])
def test_a_dtype_of_evaluation_other_than_the_files(tmp_path: Path, never_whole, stored: str) -> None:
    """After an odd number of 16-bit values a 32-bit tensor would not be aligned."""
    spec = build(tmp_path / "base", dtype=stored, shard="1GB", **ODD)
    measured = "float32" if stored == "bfloat16" else "bfloat16"
    spec = spec.model_copy(update={"dtype": measured})
    new = exported(spec, change(load_model(spec), CHANGED), tmp_path)
    with safe_open(new / "model.safetensors", "pt") as file:
        found = {name: file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    begins = {name: facts["data_offsets"][0] for name, facts in Shard.read(new / "model.safetensors").tensors.items()}
    assert not any(begin % found[name].itemsize for name, begin in begins.items())
    assert found.pop(CHANGED) == getattr(torch, measured)
    assert set(found.values()) == {getattr(torch, stored)}


def test_the_index_counts_tensors_that_grew(tmp_path: Path) -> None:
    spec = build(tmp_path / "base", dtype="bfloat16").model_copy(update={"dtype": "float32"})
    new = exported(spec, change(load_model(spec), CHANGED), tmp_path)
    total = sum(tensor.nbytes for file in shards(new).values() for tensor in load_file(file).values())
    assert read_json(new / export.INDEX)["metadata"]["total_size"] == total


def test_a_delta_in_float32_of_a_model_in_bfloat16_is_rounded_as_in_evaluation(tmp_path: Path, never_whole) -> None:
    spec = build(tmp_path / "base", dtype="bfloat16")
    exported(spec, {CHANGED: torch.randn(16, 24)}, tmp_path)


def test_a_config_that_names_its_dtype_as_older_ones_do(tmp_path: Path) -> None:
    spec = build(tmp_path / "base")
    config = read_json(tmp_path / "base" / "config.json")
    write_json(tmp_path / "base" / "config.json", {**config, "torch_dtype": config.pop("dtype")})
    new = exported(spec.model_copy(update={"dtype": "bfloat16"}), None, tmp_path)
    assert read_json(new / "config.json")["torch_dtype"] == "bfloat16"


def test_another_filesystem_gets_copies(tmp_path: Path, monkeypatch, never_whole) -> None:
    def refuse(*_):
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    spec = build(tmp_path / "base")
    new = exported(spec, change(load_model(spec), CHANGED), tmp_path)
    assert not any(file.samefile(tmp_path / "base" / name) for name, file in shards(new).items())


def test_a_hub_cache_of_symbolic_links_gives_files(tmp_path: Path, hub_cache, never_whole) -> None:
    spec = build(tmp_path / "base")
    commit = hub_cache("owner/toy", tmp_path / "base")
    spec = ModelSpec(name="toy", hub="owner/toy", revision=commit)
    new = exported(spec, change(load_model(spec), CHANGED), tmp_path)
    assert not any(file.is_symlink() for file in new.iterdir())


def test_tied_weights_are_streamed_where_one_name_is_in_the_files(tmp_path: Path, never_whole) -> None:
    spec = build(tmp_path / "base", tie_word_embeddings=True)
    exported(spec, change(load_model(spec), "model.embed_tokens.weight"), tmp_path)


def test_a_tensor_of_two_names_in_the_files_is_changed_in_both(tmp_path: Path) -> None:
    """Two names with different values would no longer be tied."""
    spec = build(tmp_path / "base", shard="1GB", tie_word_embeddings=True)
    file = tmp_path / "base" / "model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, file, {"format": "pt"})
    exported(spec, change(load_model(spec), "model.embed_tokens.weight"), tmp_path)


def test_names_that_transformers_converts_on_loading(tmp_path: Path) -> None:
    part = {**SHAPE, "sliding_window": 5, "query_pre_attn_scalar": 8}
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    spec = build(tmp_path / "base", "gemma3", text_config=part, vision_config={**vision, "image_size": 14})
    model = load_model(spec)
    name = next(name for name, _ in model.named_parameters() if name.endswith("layers.1.mlp.down_proj.weight"))
    exported(spec, change(model, name), tmp_path)


def test_names_without_the_prefix_of_the_loaded_model(tmp_path: Path) -> None:
    spec = build(tmp_path / "base", shard="1GB", tie_word_embeddings=True)
    file = tmp_path / "base" / "model.safetensors"
    save_file({name.removeprefix("model."): value for name, value in load_file(file).items()}, file, {"format": "pt"})
    exported(spec, change(load_model(spec), CHANGED), tmp_path)


def test_pickled_weights_are_loaded_and_saved(tmp_path: Path) -> None:
    spec = build(tmp_path / "base", shard="1GB")
    file = tmp_path / "base" / "model.safetensors"
    torch.save(load_file(file), file.with_name("pytorch_model.bin"))
    file.unlink()
    new = exported(spec, change(load_model(spec), CHANGED), tmp_path)
    assert not list(new.glob("*.bin*"))
    assert (new / "tokenizer.json").is_file()


def test_a_file_cut_short_is_no_export(tmp_path: Path) -> None:
    spec = build(tmp_path / "base", shard="1GB")
    save_delta(tmp_path / "delta.safetensors", change(load_model(spec), CHANGED))
    file = tmp_path / "base" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(EOFError, match=r"model\.safetensors ends before"):
        export_checkpoint(spec, tmp_path / "delta.safetensors", tmp_path / "new")
    assert not (tmp_path / "new" / "config.json").exists()


MEASURED = r"""
import re, sys
from pathlib import Path
from unlearn_bench.harness.maintenance.export import export_checkpoint
from unlearn_bench.harness.models.load import ModelSpec
for name in sys.argv[2:]:
    root = Path(sys.argv[1])
    spec = ModelSpec(name="toy", path=str(root / name))
    export_checkpoint(spec, root / "delta.safetensors", root / f"{name}-new")
    print(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak is read from Linux's /proc")
@pytest.mark.slow
def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    """One file, whole to be written: the second model has 100 MB more than the first, the same changed tensor."""
    small = build(tmp_path / "small", shard="1GB")
    build(tmp_path / "large", shard="1GB", vocab_size=800_000)
    save_delta(tmp_path / "delta.safetensors", change(load_model(small), CHANGED))
    line = [sys.executable, "-c", MEASURED, str(tmp_path), "small", "large"]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    before, after = (int(peak) * 1024 for peak in done.stdout.split())
    written = (tmp_path / "large-new" / "model.safetensors").stat().st_size
    assert written > 100e6
    assert after - before < written / 3
    assert json.loads((tmp_path / "large-new" / "config.json").read_text())["vocab_size"] == 800_000
