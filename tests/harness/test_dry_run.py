"""The dry run: mistakes are errors, what is out of reach is named and asked for once, what does not fit is said."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from unlearn_bench.harness.cli import main
from unlearn_bench.harness.planning import dry_run as dryrun
from unlearn_bench.harness.planning.devices import A100, GIB
from unlearn_bench.harness.planning.dry_run import dry_run
from unlearn_bench.harness.planning.request import Request

MODEL = str(Path(dryrun.__file__).parents[1] / "suites" / "micro" / "model")
PAPER = Request(suite="paper", models=(MODEL,), methods=("rmu",), tracks=("toxicity",))


@pytest.fixture
def asked(monkeypatch) -> Counter:
    """Let the hub be out of reach for data sets; counts what was asked for."""
    found: Counter = Counter()

    def gone(path, *, name=None, split=None, revision=None):
        found[path] += 1
        raise ConnectionError("no route\nmore")

    monkeypatch.setattr("datasets.load_dataset", gone)
    return found


@pytest.mark.parametrize("suite", ["micro", "paper"])
def test_a_mistyped_model_is_an_error_and_not_out_of_reach(tmp_path: Path, suite: str) -> None:
    arguments = ("evaluate", "--suite", suite, "--dry-run", "--models", "Mistral-7", "--output", str(tmp_path / "out"))
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert f"Unknown model 'Mistral-7': neither a model of suite {suite}" in done.stderr
    assert ("Did you mean 'Mistral-7B'" in done.stderr) == (suite == "paper")


def test_a_model_out_of_reach_goes_by_its_name_and_says_what_to_do(hub_cache, tmp_path: Path) -> None:
    said = dry_run(Request(models=("someone/tiny@v2",), methods=("none",)), tmp_path, 64)
    assert [(cell.model, cell.cell) for cell in said.cells] == [("tiny", None)]
    [missing] = said.unreached
    assert "`hf download someone/tiny --revision v2`" in missing


def test_a_source_out_of_reach_is_asked_for_once(asked: Counter, tmp_path: Path) -> None:
    said = dry_run(PAPER, tmp_path, 64)
    assert asked == {
        "cais/mmlu": 1,
        "allenai/real-toxicity-prompts": 1,
        "Salesforce/wikitext": 2,
        "s-nlp/paradetox": 2,  # forget and probe are two parts of it
    }
    for name in asked:
        assert any(f"data set {name} cannot be loaded from the hub: no route. " in text for text in said.unreached)


def test_cells_that_do_not_fit_the_device_are_named(asked: Counter, tmp_path: Path, monkeypatch) -> None:
    said = dry_run(PAPER, tmp_path, 64)
    assert "Too large" not in said.to_text()
    monkeypatch.setattr(dryrun, "A100", replace(A100, memory=GIB))
    assert "Too large for A100-80GB: base, toxicity/rmu#0" in said.to_text()
