"""What is recorded of the machine, where a board tells rows apart by it, and why a comparison then judges nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from unlearn_bench.harness import Request, evaluate, runtime
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.results.board import board_of
from unlearn_bench.harness.results.compare import compare
from unlearn_bench.harness.results.provenance import MACHINE, RECORDED, unusual, usual_values, usual_words
from unlearn_bench.harness.runtime import RunConfig, environment_facts
from unlearn_bench.harness.store.entries import Store
from unlearn_bench.harness.store.files import read_sealed, write_sealed

ASKED = Request(
    methods=("simnpo",),
    tracks=("knowledge",),
    tasks=("wmdp", "mmlu"),
    limit=12,
    settings=("training.steps=8", "training.learning_rate=0.003"),
)


@pytest.fixture(autouse=True)
def _asked_anew():
    runtime.processor.cache_clear()
    runtime._driver.cache_clear()
    yield
    runtime.processor.cache_clear()
    runtime._driver.cache_clear()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (
            "processor\t: 0\ncpu family\t: 6\nmodel\t\t: 85\nmodel name\t: Some  Xeon @ 2GHz\n\nprocessor\t: 1\n"
            "model name\t: Another\n",
            "Some Xeon @ 2GHz (family 6 model 85)",
        ),
        ("processor: 0\nmodel name: Plain\n", "Plain"),
        ("processor: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n", "(implementer 0x41 part 0xd0c)"),
        ("processor: 0\nmodel: IBM,9105\nmodel name:\n", ""),
        ("", ""),
    ],
)
def test_a_processor_is_named_by_what_the_system_says(text, name, tmp_path, monkeypatch) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(runtime, "CPU_INFO", tmp_path / "cpuinfo")
    assert runtime.processor().endswith(name)
    assert runtime.processor().strip()


def test_a_system_that_says_nothing_of_its_processor_or_driver_is_unknown(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(runtime, "CPU_INFO", tmp_path / "nothing")
    monkeypatch.setattr(runtime, "NVIDIA_DRIVER", tmp_path / "nothing")
    monkeypatch.setattr(runtime.platform, "processor", lambda: "")
    assert runtime.processor() == runtime._driver() == runtime.UNKNOWN


def test_a_gpu_is_told_with_its_driver_and_kernels(tmp_path, monkeypatch) -> None:
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar 5 2024\n")
    monkeypatch.setattr(runtime, "NVIDIA_DRIVER", tmp_path / "version")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    facts = environment_facts(RunConfig(store=tmp_path, device="cuda", threads=1))
    assert (facts["device"], facts["driver"], facts["cuda"], facts["cudnn"]) == (
        "Some GPU",
        "550.54.15",
        "12.8",
        "91002",
    )
    assert "math" in facts["attention_kernels"]
    assert {"driver", "cuda", "cudnn", "attention_kernels"} <= set(RECORDED)


def test_kernels_that_a_user_chose_are_told(monkeypatch) -> None:
    for name in runtime.KERNEL_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert runtime.chosen_kernels() == "automatic"
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert runtime.chosen_kernels() == "MKL_CBWR=COMPATIBLE ONEDNN_MAX_CPU_ISA=AVX2"


def test_torchs_kernels_and_libraries_are_told(tmp_path) -> None:
    facts = environment_facts(RunConfig(store=tmp_path, device="cpu", threads=1))
    assert facts["capability"] == torch.backends.cpu.get_cpu_capability()
    assert facts["blas"].split()[0] in torch.__config__.show()
    assert "numpy" in facts["blas"]
    assert set(MACHINE) <= facts.keys()
    assert "driver" not in facts


def test_cells_that_differ_are_told_in_one_line_and_unknown_ones_in_none() -> None:
    one = {"threads": ["1"], "processor": ["A"], "capability": ["AVX512"]}
    other = {"threads": ["1"], "processor": ["B"], "capability": ["DEFAULT"]}
    older = {"threads": ["1"], "processor": ["unknown"], "capability": ["unknown"]}
    usual = usual_values([older, older, one, one, other])
    assert usual == {"threads": "1", "processor": "A", "capability": "AVX512"}
    assert unusual(usual, one) == unusual(usual, older) == []
    assert unusual(usual, other) == [
        "made or measured with processor B, capability DEFAULT; most rows with processor A, capability AVX512"
    ]
    assert unusual(usual, {**one, "threads": ["1", "2"]}) == ["made or measured with threads 2, most rows with 1"]
    assert "processor, capability unknown of 2 of 5 checkpoints" in usual_words(usual, [older, older, one, one, other])
    assert "unknown" not in usual_words(usual, [one, other])
    alone = usual_values([older])
    assert unusual(alone, older) == []
    assert usual_words(alone, [older]).startswith("threads 1; processor, capability unknown:")


# A store


@pytest.fixture(scope="module")
def runs(tmp_path_factory, process) -> Path:
    """The same run with the machine's own kernels and with torch's plainest."""
    folder = tmp_path_factory.mktemp("machines")
    line = ["evaluate", "--methods", *ASKED.methods, "--tracks", *ASKED.tracks, "--tasks", ",".join(ASKED.tasks or ())]
    line += ["--limit", ASKED.limit, "--executor", "inline", *(f"--set={each}" for each in ASKED.settings)]
    done = process(*line, "--output", folder / "plain", env={"ATEN_CPU_CAPABILITY": "default"})
    assert done.returncode == 0, done.stderr
    evaluate(ASKED, output=folder / "own", executor="inline")
    return folder


def manifests(store: Path, *sections: str) -> list[Path]:
    return [path for section in sections for path in sorted(store.glob(f"{section}/*/manifest.json"))]


def change(path: Path, **facts: Any) -> None:
    """Let a manifest say other facts; None takes one out."""
    manifest = read_sealed(path)
    manifest["recorded"] = {k: v for k, v in {**manifest["recorded"], **facts}.items() if v is not None}
    write_sealed(path, manifest)


def board(store: Path) -> dict[str, Any]:
    opened = Store.open(store)
    return json.loads(board_of(make_plan(ASKED, opened), opened).to_json())


def warnings(value: dict[str, Any]) -> dict[str, list[str]]:
    said = {row["variant"]: [text for text in row["warnings"] if "made or" in text] for row in value["rows"]}
    return {variant: texts for variant, texts in said.items() if texts}


def test_every_training_and_every_evaluation_has_them_and_no_id(runs: Path) -> None:
    plain, own = runs / "plain", runs / "own"
    for store, capability in ((plain, "DEFAULT"), (own, torch.backends.cpu.get_cpu_capability())):
        for path in manifests(store, "cells", "outcomes"):
            facts = read_sealed(path)["recorded"]
            assert set(MACHINE) <= facts.keys(), path
            assert facts["capability"] == capability
        attentions = [read_sealed(path)["recorded"].get("training_attention") for path in manifests(store, "cells")]
        assert "sdpa" in attentions
    assert {path.parent.name for path in manifests(plain, "cells")} == {
        path.parent.name for path in manifests(own, "cells")
    }


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="the machine's own kernels are those")
def test_other_kernels_are_named_and_nothing_of_one_seed_is_judged(runs: Path) -> None:
    report = compare(str(runs / "own"), str(runs / "plain"), runs)
    own = torch.backends.cpu.get_cpu_capability()
    (fact,) = report.comparisons[0].identity
    assert (fact.what, fact.a, fact.b) == ("recorded capability", own, "DEFAULT")
    changes = {quantity.change for row in report.comparisons[0].rows for quantity in row.quantities}
    assert changes <= {"same", "not judged"}
    assert report.status == (2 if "not judged" in changes else 0)
    for row in report.comparisons[0].rows:
        if row.open:
            assert f"capability {own} against DEFAULT" in (row.unjudged or "")
            assert row.variant in report.to_text()


def test_rows_and_their_base_from_other_machines_are_told(runs: Path, tmp_path: Path) -> None:
    store = shutil.copytree(runs / "own", tmp_path / "store")
    assert warnings(board(store)) == {}
    for path in manifests(store, "outcomes"):
        if "base" in read_sealed(path)["cell"]:
            change(path, processor="Older", capability="AVX2")
    told = warnings(board(store))
    assert told.keys() == {"base"}
    assert "processor Older, capability AVX2; most rows with" in told["base"][0]


def test_a_store_made_before_opens_says_unknown_and_warns_of_nothing(runs: Path, tmp_path: Path) -> None:
    store, new = shutil.copytree(runs / "own", tmp_path / "store"), ("interop_threads", "training_attention")
    for path in manifests(store, "cells", "outcomes"):
        change(path, **dict.fromkeys((*MACHINE, *new)))
    value = board(store)
    assert warnings(value) == {}
    assert "processor, capability, blas, kernels unknown: not recorded" in value["facts"]["measured with"]
    report = compare(str(store), str(runs / "own"), tmp_path)
    assert {fact.a for fact in report.comparisons[0].identity if fact.what.split()[1] in MACHINE} == {"unknown"}
    assert report.status == 0, "the same checkpoints and answers"
