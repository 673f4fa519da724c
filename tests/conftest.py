"""Shared by all tests: one torch thread a worker, no network, real data where it lies beside the project."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data, from UNLEARN_BENCH_DATA or beside the project."""
    folder = Path(os.environ.get("UNLEARN_BENCH_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "mmlu").is_dir():
        pytest.skip(f"no real data in {folder}; set UNLEARN_BENCH_DATA")
    return folder


@pytest.fixture(scope="session")
def golden(data_root: Path) -> Path:
    """The folder of published logs in it."""
    folder = data_root / "golden"
    if not folder.is_dir():
        pytest.skip(f"no published logs in {folder}")
    return folder


@pytest.fixture(scope="session")
def real_model(root: Path) -> Path:
    """The folder of SmolLM2-135M that `make real-model` makes."""
    folder = Path(os.environ.get("UNLEARN_BENCH_REAL_MODEL") or root / ".cache" / "smollm2-135m")
    if not (folder / "config.json").is_file():
        pytest.skip(f"no real model in {folder}; run `make real-model` or set UNLEARN_BENCH_REAL_MODEL")
    return folder


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "you", "are", "very", "kind", "awful", "fine", "the", "day"]


@pytest.fixture(scope="session")
def save() -> Callable[..., str]:
    """Save a random BERT of a transformers class in a folder, with a tokenizer of `WORDS` that takes pairs of texts."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    def write(
        folder: Path,
        kind: str,
        labels: tuple[str, ...] = ("entailment", "neutral", "contradiction"),
        positions: int = 24,
    ) -> str:
        inner = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
        inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        inner.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        special |= {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
        transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(folder)
        torch.manual_seed(1)
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        config = transformers.BertConfig(
            vocab_size=len(WORDS), max_position_embeddings=positions, initializer_range=0.5, **sizes
        )
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: index for index, label in enumerate(labels)}
        getattr(transformers, kind)(config).save_pretrained(folder)
        return str(folder)

    return write


@pytest.fixture(scope="session")
def cli() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in this process, cells included; returns what `process` would.

    Starting a process and its workers takes longer than most that tests ask for.
    """
    from click.testing import CliRunner
    from unlearn_bench.harness.cli import main

    def run(*arguments: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        unset: dict[str, str | None] = {key: None for key in os.environ if key.startswith("UNLEARN_BENCH_")}
        line = [*map(str, arguments)]
        done = CliRunner().invoke(main, line, env={**unset, "UNLEARN_BENCH_EXECUTOR": "inline", **(env or {})})
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return subprocess.CompletedProcess(line, done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the installed command line as a user would, in a process of its own; returns the completed process."""
    command = Path(sys.executable).with_name("unlearn-bench")

    def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("UNLEARN_BENCH_")}
        environment |= options.pop("env", {})
        line = [str(command), *map(str, arguments)]
        limit = options.pop("timeout", 600)
        return subprocess.run(line, capture_output=True, text=True, env=environment, timeout=limit, **options)

    return run


@pytest.fixture(scope="session")
def hub_copy():
    """Write a data set as a download from the hub leaves it: a card that names configurations, and their files.

    Takes a folder, the hub id, and rows by configuration and split.
    """
    import json

    def write(folder: Path, name: str, configs: dict[str, dict[str, list[dict]]]) -> None:
        card = ["---", "configs:"]
        for config, splits in configs.items():
            (folder / name / config).mkdir(parents=True)
            card += [f"- config_name: {config}", "  data_files:"]
            for split, rows in splits.items():
                file = f"{config}/{split}.jsonl"
                (folder / name / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
                card += [f"  - split: {split}", f"    path: {file}"]
        (folder / name / "README.md").write_text("\n".join([*card, "---", ""]))

    return write


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch):
    """A local hub cache of its own, out of the network's reach; returns how a model folder is put into it.

    `put("owner/name", folder)` writes `models--owner--name/{refs/main,snapshots/COMMIT/…}` as a download does and
    returns the commit. Other processes find the cache by HF_HUB_CACHE, which is set.
    """
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(hub: str, folder: Path, commit: str = "c0ffee" + "0" * 34, ref: str | None = "main") -> str:
        place = cache / ("models--" + hub.replace("/", "--"))
        snapshot = place / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (place / "blobs").mkdir(exist_ok=True)
        for file in folder.iterdir():
            blob = place / "blobs" / hashlib.sha256(f"{commit}{file.name}".encode()).hexdigest()
            shutil.copyfile(file, blob)
            (snapshot / file.name).symlink_to(Path("..", "..", "blobs", blob.name))
        if ref is not None:
            (place / "refs").mkdir(exist_ok=True)
            (place / "refs" / ref).write_text(commit)
        return commit

    return put
