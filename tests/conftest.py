"""Shared by all tests: one torch thread a worker, no network, real data where it lies beside the project."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
def cli():
    """Run the installed command line as a user would; returns the completed process."""
    command = Path(sys.executable).with_name("unlearn-bench")

    def run(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("UNLEARN_BENCH_")}
        environment |= options.pop("env", {})
        line = [str(command), *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True, env=environment, timeout=600, **options)

    return run
