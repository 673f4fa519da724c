"""What cannot be trained is said before anything runs: by the dry run and by `evaluate`, from shapes alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from unlearn_bench.harness import Request, evaluate
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.planning.dry_run import dry_run
from unlearn_bench.harness.suites import micro
from unlearn_bench.methods.base import methods
from unlearn_bench.methods.rmu import RMU

QUICK = {"tracks": ("knowledge",), "tasks": ("wmdp", "mmlu"), "limit": 4}


@pytest.mark.parametrize(
    ("method", "setting", "cause"),
    [
        ("rmu", "rmu.layer=50", "Decoder layer 48, 49, 50 was asked for"),
        ("rmu", "rmu.parameters=[mlp.up.weight]", "has no parameter 'mlp.up.weight'"),
        ("uld", "uld.depth=13", "Decoder layer 12 was asked for, but LlamaForCausalLM has 12"),
        ("multi_layer_probe", "multi_layer_probe.layers=[0,99]", "Decoder layer 99 was asked for"),
    ],
)
def test_what_a_model_does_not_have_is_said_before_anything_runs(tmp_path: Path, method, setting, cause) -> None:
    request = Request(methods=(method, "grad_ascent"), settings=(setting,), **QUICK)
    for run in (lambda: dry_run(request, tmp_path, 8), lambda: evaluate(request, output=tmp_path / "store")):
        with pytest.raises(UserError, match="Nothing was run") as refused:
            run()
        assert cause in str(refused.value)
        assert f"knowledge/{method}[" in str(refused.value)
        assert "grad_ascent" not in str(refused.value)
    assert not list((tmp_path / "store").rglob("manifest.json"))
    assert not list((tmp_path / "store").rglob("plan*.json"))


@pytest.mark.parametrize(
    ("where", "rows", "cause"),
    [
        ("forget", '{"text": " "}\n', "No row of rows.jsonl has any text"),
        ("retain", '{"text": ""}\n', "No row of rows.jsonl has any text"),
        ("probe", '{"text": "all of one kind", "label": 1}\n', "Probes need text of both labels"),
    ],
)
def test_text_that_cannot_be_trained_on_is_said_before_anything_runs(tmp_path: Path, where, rows, cause) -> None:
    for part in ("model", "data"):
        shutil.copytree(Path(micro.__file__).parent / part, tmp_path / part)
    (tmp_path / "rows.jsonl").write_text(rows)
    usual, source = {"path": "data/retain.jsonl"}, {"path": "rows.jsonl"}
    corpora = {"forget": {"toxic": usual}, "retain": usual}
    corpora |= {"forget": {"toxic": source}} if where == "forget" else {where: source}
    settings = {"form": "continuation"}
    tasks = {
        name: {"task": name, "data": {"path": f"data/{name}.jsonl"}, "settings": settings} for name in QUICK["tasks"]
    }
    suite = {
        "name": "blank",
        "models": {"micro": {"path": "model"}},
        "tasks": tasks,
        "tracks": {"knowledge": {"forget_task": "wmdp", "retain_task": "mmlu", "corpora": corpora}},
        "training": {"batch_size": 2, "max_length": 16, "steps": 2},
    }
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    request = Request(
        suite=str(tmp_path / "suite.yaml"), methods=("multi_layer_probe",), settings=("multi_layer_probe.layers=[1,2]",)
    )
    with pytest.raises(UserError, match=cause):
        evaluate(request, output=tmp_path / "store")
    assert not list((tmp_path / "store").rglob("manifest.json"))


def test_half_precision_that_an_optimiser_cannot_take_is_said_before_anything_runs(tmp_path: Path) -> None:
    request = Request(methods=("rmu",), dtype="float16", settings=("training.precision=reference",), **QUICK)
    with pytest.raises(UserError, match="Adam in float16 divides by zero"):
        dry_run(request, tmp_path, 8)


def test_code_of_a_plugin_runs_in_workers_only(tmp_path: Path) -> None:
    class Elsewhere(RMU):
        def trained(self, context):
            raise AssertionError("it was traced")

    Elsewhere.__module__ = "somewhere"
    with methods.temporary("elsewhere", Elsewhere):
        assert dry_run(Request(methods=("elsewhere",), **QUICK), tmp_path, 8).cells
