"""What a worker loads to train: the layers that a method reads, again only where they are not held."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from unlearn_bench.harness.models import cache as model_cache
from unlearn_bench.harness.models.layers import decoder_layers
from unlearn_bench.harness.models.load import ModelSpec
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.planning.request import Request
from unlearn_bench.harness.store.entries import Store
from unlearn_bench.harness.transforms import train
from unlearn_bench.methods.testing import tiny_model, tiny_tokenizer


@pytest.fixture
def spec(tmp_path: Path):
    tiny_model().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    model_cache._base.clear()
    yield ModelSpec(name="tiny", path=str(tmp_path), dtype="bfloat16")
    model_cache._base.clear()


def depth(model) -> int:
    return len(decoder_layers(model)[1])


def test_a_deeper_part_serves_a_method_that_reads_less_and_not_the_other_way_round(spec):
    deep, _ = model_cache.base_model(spec, "cpu", "mixed", 6)
    assert depth(deep) == 6
    assert model_cache.base_model(spec, "cpu", "reference", 4)[0] is deep
    whole, _ = model_cache.base_model(spec, "cpu", "mixed", None)
    assert depth(whole) == 9
    assert model_cache.base_model(spec, "cpu", "mixed", 8)[0] is whole
    assert deep.dtype == whole.dtype == torch.bfloat16
    assert model_cache.base_model(spec, "cpu", "float32", 4)[0].dtype == torch.float32
    assert len(model_cache._base) == 1


@pytest.fixture
def job(spec, tmp_path):
    """A training cell of the suite micro, on a tiny model."""
    plan = make_plan(
        Request(methods=("rmu",), tracks=("knowledge",), settings=("training.steps=2", "rmu.layer=7")), None
    )
    cell = next(cell.spec for cell in plan.cells if cell.spec.transform == "train")
    place = SimpleNamespace(
        store=Store.create(tmp_path / "store").root, device="cpu", checkpointing=False, verify_inputs=False
    )
    corpora, folder = plan.suite.tracks["knowledge"].corpora, Path(plan.data_folder or "")
    return SimpleNamespace(cell=cell, model=spec, corpora=corpora, folder=folder, config=place)


def held() -> list[int | None]:
    return [layers for layers, *_ in model_cache._base.values()]


def test_only_the_layers_that_a_method_reads_are_loaded(job):
    made = train.Train().make(job, lambda event: None)
    assert held() == [8]
    assert made.log[0]["shared_layers"] == 5


def test_a_method_that_reads_more_than_when_traced_gets_the_whole_model(job, monkeypatch):
    expected = train.Train().make(job, lambda event: None).delta
    model_cache._base.clear()
    monkeypatch.setattr(train, "_read_layers", lambda job: 6)
    found = train.Train().make(job, lambda event: None).delta
    assert held() == [None]
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_method_that_cannot_be_traced_gets_the_whole_model(job, monkeypatch):
    def fail(*_):
        raise ValueError("needs real text")

    monkeypatch.setattr(train, "trace_method", fail)
    train.Train().make(job, lambda event: None)
    assert held() == [None]
