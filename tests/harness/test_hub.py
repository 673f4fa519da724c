"""Models by hub id: what they are pinned to, from the cache or the hub, and what is said where neither has them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.models.load import ModelSpec, load_model, load_tokenizer, resolve_models
from unlearn_bench.harness.suite import load_suite
from unlearn_bench.methods.testing import tiny_model, tiny_tokenizer

HUB = "someone/tiny"


def resolve(name: str) -> ModelSpec:
    [spec] = resolve_models([name], load_suite("micro"), None).values()
    return spec


class TestHubOffline:
    def test_the_cache_gives_commit_weights_and_tokenizer(self, hub_cache, folder: Path) -> None:
        commit = hub_cache(HUB, folder)
        spec = resolve(HUB)
        assert (spec.name, spec.hub, spec.revision, spec.path) == ("tiny", HUB, commit, None)
        assert spec.digest == f"{HUB}@{commit}"
        loaded, saved = load_model(spec).state_dict(), tiny_model(layers=2).state_dict()
        assert loaded.keys() == saved.keys()
        assert all(torch.equal(loaded[name], saved[name]) for name in saved)
        assert load_tokenizer(spec).encode("bab") == tiny_tokenizer().encode("bab")

    def test_a_revision_is_a_commit_or_a_ref_of_the_cache(self, hub_cache, folder: Path) -> None:
        first, second = "1" * 40, "2" * 40
        hub_cache(HUB, folder, first)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
        hub_cache(HUB, folder, second, ref="v2")
        assert resolve(HUB).revision == first
        assert resolve(f"{HUB}@v2").revision == resolve(f"{HUB}@{second}").revision == second
        assert (resolve(HUB).dtype, resolve(f"{HUB}@v2").dtype) == ("float32", "bfloat16")
        with pytest.raises(UserError, match=r"prefetch it with `hf download someone/tiny --revision v3`"):
            resolve(f"{HUB}@v3")

    def test_a_cache_of_the_config_alone_is_no_model(self, hub_cache, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        hub_cache(HUB, folder)
        with pytest.raises(UserError, match=r"holds no weights .*`hf download someone/tiny --revision c0ffee"):
            resolve(HUB)

    def test_a_tokenizer_does_not_wait_for_the_weights(self, hub_cache, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        spec = ModelSpec(name="tiny", hub=HUB, revision=hub_cache(HUB, folder))
        assert load_tokenizer(spec).encode("bab") == tiny_tokenizer().encode("bab")
        with pytest.raises(UserError, match="holds no weights"):
            load_model(spec)

    def test_pickles_are_not_taken_from_the_hub(self, hub_cache, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        torch.save(tiny_model(layers=2).state_dict(), folder / "pytorch_model.bin")
        hub_cache(HUB, folder)
        with pytest.raises(UserError, match="where the hub has pickles only, convert them"):
            resolve(HUB)

    def test_an_interrupted_download_is_no_model(self, save_tiny, hub_cache, tmp_path: Path) -> None:
        sharded = save_tiny(tmp_path / "sharded", max_shard_size="3KB")
        sorted(sharded.glob("*.safetensors"))[0].unlink()
        hub_cache(HUB, sharded)
        with pytest.raises(UserError, match="lacks 1 of"):
            resolve(HUB)

    def test_what_is_not_cached_is_named_with_what_to_do(self, hub_cache) -> None:
        with pytest.raises(UserError, match=r"cannot be reached for someone/tiny .*`hf download someone/tiny`"):
            resolve(HUB)

    def test_a_run_by_hub_id_needs_no_network(self, cli, hub_cache, root: Path, tmp_path: Path) -> None:
        commit = hub_cache("someone/small", root / "harness" / "suites" / "micro" / "model")
        done = cli(
            *("evaluate", "--models", "someone/small", "--methods", "rmu", "--tracks", "knowledge", "--limit", 4),
            *("--set", "training.steps=2", "--output", tmp_path / "out"),
        )
        assert done.returncode == 0, done.stderr
        plan = json.loads((tmp_path / "out" / "plans" / "micro.json").read_text())
        assert plan["models"]["small"]["digest"] == f"someone/small@{commit}"
        board = json.loads((tmp_path / "out" / "leaderboards" / "micro.json").read_text())
        assert {row["variant"]: row["status"] for row in board["rows"]}["rmu"] == "ok"

    def test_another_process_loads_it_too(self, hub_cache, folder: Path) -> None:
        hub_cache(HUB, folder)
        script = (
            "from unlearn_bench.harness.models.load import resolve_models\n"
            "from unlearn_bench.harness.models.load import load_model, load_tokenizer\n"
            "from unlearn_bench.harness.suite import load_suite\n"
            f"spec = resolve_models([{HUB!r}], load_suite('micro'), None)['tiny']\n"
            "print(load_model(spec).num_parameters(), load_tokenizer(spec).vocab_size)\n"
        )
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [str(tiny_model(layers=2).num_parameters()), str(tiny_tokenizer().vocab_size)]


def answer(status: int):
    import huggingface_hub.errors as errors

    def make(kind: str):
        response = SimpleNamespace(status_code=status, headers={}, request=None)
        return getattr(errors, kind)("words", response=response)  # pyright: ignore

    return make


class TestHubOnline:
    @pytest.fixture
    def hub(self, hub_cache, monkeypatch):
        """Let the hub answer as told: a commit, or an error; `config` is what a download of config.json gives."""
        import huggingface_hub

        def say(info: object, config: object = None) -> None:
            def model_info(_self, _hub, *, revision=None, timeout=None):
                if isinstance(info, Exception):
                    raise info
                return SimpleNamespace(sha=info)

            def download(*_args, **_options):
                if isinstance(config, Exception):
                    raise config
                return str(config)

            monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
            if config is not None:
                monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)

        return say

    def test_the_hub_names_the_commit(self, hub, folder: Path) -> None:
        hub("3" * 40, folder / "config.json")
        spec = resolve(f"{HUB}@main")
        assert (spec.revision, spec.digest) == ("3" * 40, f"{HUB}@{'3' * 40}")

    @pytest.mark.parametrize(
        ("kind", "status", "words"),
        [
            ("GatedRepoError", 403, r"gated: accept its licence on https://huggingface\.co/someone/tiny, .*auth login"),
            ("RepositoryNotFoundError", 401, r"has no model someone/tiny, or it is private: .*`hf auth login`"),
            ("RevisionNotFoundError", 404, r"has no revision 'v9'; https://huggingface\.co/someone/tiny/tree/main"),
            ("HfHubHTTPError", 429, r"refuses someone/tiny \(HTTP 429\)"),
        ],
    )
    def test_a_refusal_is_named_even_where_a_copy_is_cached(self, hub, hub_cache, folder, kind, status, words) -> None:
        hub_cache(HUB, folder, ref="v9")
        hub(answer(status)(kind))
        with pytest.raises(UserError, match=words):
            resolve(f"{HUB}@v9")

    @pytest.mark.parametrize(
        ("kind", "status", "words"),
        [("GatedRepoError", 403, "accept its licence"), ("RemoteEntryNotFoundError", 404, "has no config.json")],
    )
    def test_files_that_are_kept_back_are_named_before_anything_runs(self, hub, kind, status, words) -> None:
        hub("3" * 40, answer(status)(kind))
        with pytest.raises(UserError, match=words):
            resolve(HUB)

    @pytest.mark.parametrize("cause", [ConnectionError("no route"), TimeoutError(), "503"])
    def test_without_the_hub_the_cache_serves(self, hub, hub_cache, folder: Path, cause) -> None:
        hub(answer(503)("HfHubHTTPError") if cause == "503" else cause)
        with pytest.raises(UserError, match=r"cannot be reached for someone/tiny \(\w+Error\).*--models FOLDER"):
            resolve(HUB)
        commit = hub_cache(HUB, folder)
        assert resolve(HUB).revision == commit

    def test_a_name_that_is_no_hub_id_is_refused(self, hub_cache) -> None:
        with pytest.raises(UserError, match="'a/b/c' is no hub id"):
            resolve("a/b/c")


def test_a_hub_that_cannot_be_reached_is_asked_once_and_local_files_are_used_from_there_on(monkeypatch, caplog) -> None:
    import datasets.config
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import OfflineModeIsEnabled
    from unlearn_bench.harness.errors import settle_offline

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    for module in (constants, datasets.config):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    settle_offline.cache_clear()
    try:
        assert settle_offline() == settle_offline() == "not reachable (ConnectError)"
        assert len(caplog.records) == 1
        assert "http://127.0.0.1:9 cannot be reached" in caplog.text
        assert os.environ["HF_HUB_OFFLINE"] == "1"
        assert datasets.config.HF_HUB_OFFLINE
        with pytest.raises(OfflineModeIsEnabled):
            HfApi().model_info("gpt2")
    finally:
        settle_offline.cache_clear()
