"""Deltas: the changed tensors and nothing else, small beside the model, the same bytes for the same tensors."""

from __future__ import annotations

from math import prod
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from unlearn_bench.harness.models.meta import meta_model
from unlearn_bench.harness.store.delta import save_delta
from unlearn_bench.harness.store.shards import Shard
from unlearn_bench.harness.suite import SuiteModel, load_suite
from unlearn_bench.harness.training.trace import trace_method
from unlearn_bench.methods.base import methods

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
