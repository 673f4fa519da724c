"""The same command on real input: a real small model, real prompts, forget and retain text, and MMLU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_the_papers_methods_run_on_real_text_and_the_board_says_on_what(
    process, real_model, data_root, tmp_path: Path
) -> None:
    done = process(
        *("evaluate", "--models", real_model, "--tracks", "toxicity", "--data-root", data_root),
        *("--methods", "adap_rmu,cosine_meta_rmu,multi_layer_probe,rmu"),
        *("--limit", 4, "--set", "training.steps=2", "--set", "multi_layer_probe.probe_texts=64", "--output", tmp_path),
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    board = json.loads((tmp_path / "leaderboards" / "real.json").read_text())
    rows = {row["variant"]: row for row in board["rows"]}
    probe = "multi_layer_probe[probe_texts=64]"
    assert set(rows) >= {"base", "rmu", "adap_rmu", "cosine_meta_rmu", probe}
    assert all(row["status"] == "ok" and row["forget"]["n"] == row["retain"]["n"] == 4 for row in rows.values())
    text = (tmp_path / "leaderboards" / "real.md").read_text()
    for fact in (real_model.name, "n-gram classifier trained on ParaDetox", "--limit 4", "realtoxicityprompts", "mmlu"):
        assert fact in text
    assert str(data_root) not in text
