"""Deltas: the changed tensors and nothing else, small beside the model, the same bytes for the same tensors."""

from __future__ import annotations

from math import prod
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.models.meta import meta_model, tied_names
from unlearn_bench.harness.models.patch import apply_delta, put_tensors
from unlearn_bench.harness.store.delta import save_delta
from unlearn_bench.harness.store.shards import Shard
from unlearn_bench.harness.suite import SuiteModel, load_suite
from unlearn_bench.harness.training.trace import trace_method
from unlearn_bench.methods.base import methods
from unlearn_bench.methods.testing import tiny_model

LARGEST = {"rmu": 0.03, "adap_rmu": 0.03, "cosine_meta_rmu": 0.03, "multi_layer_probe": 0.07}
"""Bytes of a delta, as part of the whole checkpoint's, for the model of 8B."""


@pytest.fixture(scope="module")
def listed() -> SuiteModel:
    return load_suite("paper").models["Llama-3.1-8B"]


@pytest.mark.parametrize("name", LARGEST)
def test_a_delta_of_an_8b_model_is_a_few_hundredths_of_it(name: str, listed: SuiteModel, tmp_path: Path) -> None:
    """Counted from shapes; the header and the bytes a value are those of a written file."""
    whole = {key: value.shape for key, value in meta_model(listed.architecture).named_parameters()}
    kind = methods.get(name)
    settings = load_suite("paper").variants["knowledge"][name].settings
    trained = trace_method(kind(kind.Settings(**settings)), meta_model(listed.architecture)).trained
    file = tmp_path / "delta.safetensors"
    save_delta(file, {key: torch.zeros(1) for key in trained}, getattr(torch, listed.dtype))
    written = Shard.read(file)
    assert set(written.tensors) == set(trained)
    delta = written.start + sum(prod(whole[key]) * written.size(key) for key in trained)
    full = sum(map(prod, whole.values())) * getattr(torch, listed.dtype).itemsize
    assert full == 2 * 8_030_261_248
    assert 0 < delta / full <= LARGEST[name]


def test_a_delta_is_stored_in_the_dtype_that_is_measured(tmp_path: Path) -> None:
    tensors = {"b": torch.randn(3, 5), "a": torch.randn(4)}
    save_delta(tmp_path / "own", tensors)
    save_delta(tmp_path / "cast", tensors, torch.bfloat16)
    assert {value.dtype for value in load_file(tmp_path / "own").values()} == {torch.float32}
    for name, value in load_file(tmp_path / "cast").items():
        assert torch.equal(value, tensors[name].bfloat16())


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.randn(3, 5), "a": torch.randn(4)}
    save_delta(tmp_path / "one", tensors)
    save_delta(tmp_path / "other", {name: tensors[name].t().contiguous().t() for name in sorted(tensors)})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_tensors_go_into_a_model_and_its_own_come_back_bit_by_bit() -> None:
    model = tiny_model(layers=2).to(torch.bfloat16)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    name = "model.layers.1.mlp.down_proj.weight"
    delta = {name: torch.randn(before[name].shape), "model.norm.weight": torch.randn(before["model.norm.weight"].shape)}
    with pytest.raises(UserError, match="'nothing', which tiny has not; pass the model it was made from with --models"):
        apply_delta(model, "tiny", {**delta, "nothing": torch.zeros(1)})
    with pytest.raises(UserError, match=r"'model\.norm\.weight' is .* in tiny: it belongs to another model"):
        apply_delta(model, "tiny", {**delta, "model.norm.weight": torch.zeros(1)})
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    originals = apply_delta(model, "tiny", delta)
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, delta[key].bfloat16() if key in delta else before[key])
    put_tensors(model.state_dict(), originals)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_without_weights_knows_its_ties(tied: bool) -> None:
    facts = tiny_model(layers=2).config.to_dict()
    names = tied_names(meta_model({**facts, "tie_word_embeddings": tied}))
    both = ["model.embed_tokens.weight", "lm_head.weight"]
    assert [names[name] for name in both] == ([both, both] if tied else [[name] for name in both])
