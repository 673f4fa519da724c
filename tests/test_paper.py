"""The suite `paper`, rehearsed whole: its four architectures at toy size under their hub ids, its data in the hub's
schema, everything through the code path of the hub, which is switched off.

The toy models are random, so the board's numbers mean nothing; that every number is there does.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

TOY = {
    "hidden_size": 128,
    "intermediate_size": 160,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "num_hidden_layers": 10,
    "max_position_embeddings": 512,
}

FOUR = "adap_rmu,cosine_meta_rmu,multi_layer_probe,rmu"


def rows(root: Path, name: str, count: int) -> list[dict]:
    """Return the first rows of a data file of the embedded suite."""
    file = root / "harness" / "suites" / "micro" / "data" / f"{name}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()[:count]]


def questions(root: Path, name: str, count: int, **more: object) -> list[dict]:
    kept = ("question", "choices", "answer")
    return [{**{key: row[key] for key in kept}, **more} for row in rows(root, name, count)]


@pytest.fixture(scope="module")
def data(root: Path, hub_copy, tmp_path_factory) -> Path:
    """Data sets of the suite as downloads from the hub leave them; TRuST as the local file it has to be."""
    folder = tmp_path_factory.mktemp("data")
    texts = {name: [{"text": row["text"]} for row in rows(root, name, 9)] for name in ("forget_alchemy", "retain")}
    wmdp = {f"wmdp-{topic}": {"test": questions(root, "wmdp", 8)} for topic in ("bio", "cyber", "chem")}
    hub_copy(folder, "cais/wmdp", wmdp)
    mmlu = {split: questions(root, "mmlu", count, subject="virology") for split, count in (("test", 8), ("dev", 5))}
    hub_copy(folder, "cais/mmlu", {"all": mmlu})
    bio = [{"title": "t", "abstract": "a", "doi": "d", **row} for row in texts["forget_alchemy"]]
    hub_copy(folder, "cais/wmdp-bio-forget-corpus", {"default": {"train": bio}})
    hub_copy(folder, "cais/wmdp-corpora", {"cyber-forget-corpus": {"train": texts["forget_alchemy"]}})
    wikitext = {"test": texts["retain"], "validation": texts["retain"]}
    hub_copy(folder, "Salesforce/wikitext", {"wikitext-2-raw-v1": wikitext})
    hub_copy(folder, "s-nlp/paradetox", {"default": {"train": rows(root, "paradetox", 12)}})
    prompts = [{"prompt": row["prompt"], "challenging": n > 0} for n, row in enumerate(rows(root, "prompts", 7))]
    hub_copy(folder, "allenai/real-toxicity-prompts", {"default": {"train": prompts}})
    scorer = root / "harness" / "suites" / "micro" / "judge"
    shutil.copytree(scorer, folder / "berkatil" / "TRuST_toxicity_classifier")
    (folder / "trust").mkdir()
    labelled = rows(root, "trust", 40)
    (folder / "trust" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labelled))
    return folder


def toy(root: Path, folder: Path, architecture: str, seed: int) -> Path:
    """Write a random model of an architecture at toy size, with the embedded suite's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    micro = root / "harness" / "suites" / "micro" / "model"
    vocabulary = json.loads((micro / "config.json").read_text())["vocab_size"]
    config = AutoConfig.for_model(architecture, **TOY, vocab_size=vocabulary)
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(micro / file, folder)
    return folder


@pytest.fixture
def cache(root: Path, hub_cache: Callable[..., str], tmp_path_factory) -> None:
    """Fill the hub's cache with the suite's models at toy size."""
    suite = yaml.safe_load((root / "harness" / "suites" / "paper.yaml").read_text())
    for seed, listed in enumerate(suite["models"].values()):
        folder = tmp_path_factory.mktemp("model")
        hub_cache(listed["hub"], toy(root, folder, listed["architecture"]["model_type"], seed))


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory) -> Path:
    """The suite with fewer reference batches and continuations; nothing else differs."""
    file = tmp_path_factory.mktemp("suite") / "rehearsal.yaml"
    short = {name: {"training": {"steps": 3}} for name in ("rmu_reference", "adap_rmu_reference")}
    changes = {
        "extends": "paper",
        "name": "rehearsal",
        "tasks": {"realtoxicityprompts": {"settings": {"decoding": {"samples": 3}}}},
        "variants": {"knowledge": short, "toxicity": short},
    }
    file.write_text(yaml.safe_dump(changes))
    return file


@pytest.mark.slow
@pytest.mark.usefixtures("cache")
def test_the_whole_suite_runs_through_the_hubs_code_path(process, rehearsal, data, tmp_path: Path) -> None:
    command = ("evaluate", "--suite", rehearsal, "--data-root", data, "--engine", "transformers", "--output", tmp_path)
    command += ("--methods", FOUR)
    done = process(*command, timeout=1800)
    assert done.returncode == 0, done.stderr
    board = json.loads((tmp_path / "leaderboards" / "rehearsal.json").read_text())
    names = {"base", "rmu", "adap_rmu", "cosine_meta_rmu", "multi_layer_probe"}
    names |= {"rmu_reference", "adap_rmu_reference"}
    models = {"Llama-3.1-8B", "Mistral-7B", "Qwen2.5-7B", "Olmo-3-7B"}
    found = {(row["model"], row["track"], row["variant"]) for row in board["rows"]}
    assert found >= {(model, track, name) for model in models for track in ("knowledge", "toxicity") for name in names}
    for row in board["rows"]:
        assert row["status"] == "ok", row
        assert row["forget"]["n"] == {"knowledge": 16, "toxicity": 6}[row["track"]]
        assert row["retain"]["n"] == 8
    knowledge = next(row for row in board["rows"] if (row["track"], row["kind"]) == ("knowledge", "base"))
    assert set(knowledge["forget"]["strata"]) == {"bio", "cyber"}
    assert [control["task"] for control in knowledge["controls"]] == ["wmdp_chem", "wmdp_permuted", "perplexity"]
    published = {
        (row["model"], row["variant"]): row["published"] for row in board["rows"] if row["track"] == "toxicity"
    }
    assert published["Llama-3.1-8B", "multi_layer_probe"] == 0.43
    again = process(*command, "--dry-run")
    assert "0 remain" in again.stdout, again.stdout


@pytest.mark.vllm
def test_a_local_model_runs_on_vllm_and_a_second_run_resumes(process, root: Path, data, tmp_path: Path) -> None:
    from unlearn_bench.harness.engines.vllm import VLLMEngine

    reason = VLLMEngine.unusable()
    if reason is not None and os.environ.get("UNLEARN_BENCH_REQUIRE_VLLM") != "1":
        pytest.skip(f"vLLM does not run here: {reason}")
    model = toy(root, tmp_path / "mine", "llama", 0)
    command = ("evaluate", "--suite", "paper", "--models", model, "--data-root", data, "--limit", 50)
    command += ("--methods", "rmu,multi_layer_probe")
    command += ("--engine", "vllm", "--set", "training.steps=3", "--output", tmp_path / "store")
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1"}
    done = process(*command, env=environment)
    assert done.returncode == 0, done.stderr
    board = json.loads((tmp_path / "store" / "leaderboards" / "paper.json").read_text())
    assert len(board["rows"]) == 8
    assert all(row["status"] == "ok" and row["forget"]["n"] and row["retain"]["n"] == 8 for row in board["rows"])
    assert "engine: vllm" in (tmp_path / "store" / "leaderboards" / "paper.md").read_text()
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("manifest.json")}
    again = process(*command, env=environment)
    assert again.returncode == 0, again.stderr
    assert made == {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("manifest.json")}


@pytest.mark.usefixtures("hub_cache")
def test_a_dry_run_needs_neither_hub_nor_data_and_says_what_the_guide_says(cli, root: Path, tmp_path: Path) -> None:
    done = cli("evaluate", "--suite", "paper", "--methods", FOUR, "--dry-run", "--output", tmp_path / "store")
    assert done.returncode == 0, done.stderr
    for model in ("Llama-3.1-8B", "Mistral-7B", "Qwen2.5-7B", "Olmo-3-7B"):
        assert model in done.stdout
    for said in ("100 cells", "GiB", "cais/wmdp-bio-forget-corpus", "paper-open"):
        assert said in done.stdout
    assert not (tmp_path / "store").exists()
    total = next(line for line in done.stdout.splitlines() if line.startswith("All cells:"))
    assert total.split(" Estimates")[0] in (root / "docs" / "paper.md").read_text()
