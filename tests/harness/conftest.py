"""Shared by the tests of the harness: a tiny model in a folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def save_tiny() -> Callable[..., Path]:
    """Save a tiny model and its tokenizer to a folder; returns the folder."""
    from unlearn_bench.methods.testing import tiny_model, tiny_tokenizer

    def save(folder: Path, **options) -> Path:
        tiny_model(layers=2).save_pretrained(folder, **options)
        tiny_tokenizer().save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="module")
def saved(save_tiny, tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "tiny"))
