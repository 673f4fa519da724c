"""Classes and specs beside names: in registries, in requests, in workers."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner
from unlearn_bench.harness import Request
from unlearn_bench.harness.cli import main
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.models.load import ModelSpec
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.planning.classes import pack, source_of
from unlearn_bench.harness.registry import Registry
from unlearn_bench.harness.suite import SourceSpec, TaskSpec
from unlearn_bench.methods.base import methods
from unlearn_bench.methods.rmu import RMU
from unlearn_bench.tasks.base import tasks
from unlearn_bench.tasks.perplexity import Perplexity

QUICK = {"tracks": ("knowledge",), "limit": 4, "settings": ("training.steps=2",)}
PROGRAM = """
import json
from pathlib import Path
from unlearn_bench.harness import Request, evaluate
from unlearn_bench.harness.registry import Registry
from unlearn_bench.harness.suite import SourceSpec, TaskSpec
from unlearn_bench.methods.rmu import RMU
from unlearn_bench.tasks.perplexity import Perplexity

PART = 0.5


class PartOfRMU(RMU):
    version = 1

    def losses(self, batch):
        return {name: loss * PART for name, loss in super().losses(batch).items()}


class OurText(Perplexity):
    version = 1


if __name__ == "__main__":
    Path("ours.jsonl").write_text(json.dumps({"text": "one text of ours, which is of no suite"}) + "\\n")
    ours = TaskSpec(task=OurText, data=SourceSpec(path="ours.jsonl"))
    asked = Request(
        methods=[PartOfRMU], tracks=["knowledge"], tasks=["wmdp", "mmlu", ours], limit=4, settings=["training.steps=2"]
    )
    result = evaluate(asked, output="out", workers=1)
    variants = sorted({cell.spec.variant for cell in result.plan.cells})
    print(json.dumps([dict(result.failures), variants, list(result.plan.tasks)]))
"""


class SignFlip(RMU):
    """A method that nobody registered."""


def test_a_temporary_thing_goes_and_what_it_hid_comes_back() -> None:
    with methods.temporary("rmu", SignFlip), methods.temporary("brief", SignFlip):
        assert methods.get("rmu") is methods.get("brief") is SignFlip
        with methods.temporary("rmu", RMU):
            assert methods.get("rmu") is RMU
        assert methods.get("rmu") is SignFlip
    assert methods.get("rmu") is RMU
    assert "brief" not in methods.names()


def test_it_goes_after_an_error_too() -> None:
    with pytest.raises(KeyError), methods.temporary("brief", SignFlip):
        raise KeyError("brief")
    assert "brief" not in methods.names()
    with pytest.raises(UserError, match="cannot be the name"), methods.temporary("no/name", SignFlip):
        pass


def test_a_class_is_called_as_it_is_registered() -> None:
    with methods.temporary("flipped", SignFlip):
        plan = make_plan(Request(methods=(SignFlip, "rmu"), **QUICK), None)
    assert {cell.spec.method for cell in plan.cells} == {"base", "noise", "flipped", "rmu"}


@pytest.mark.parametrize(("name", "expected"), [("SignFlip", "sign_flip"), ("HalfRMU2", "half_rmu2"), ("Mine", "mine")])
def test_one_that_is_not_registered_gets_a_name_of_its_own(name: str, expected: str) -> None:
    registry: Registry = Registry("method", "unlearn_bench.methods", "none")
    kind = type(name, (RMU,), {})
    assert registry.name_of(kind) == expected
    assert registry.name_of(type(name, (RMU,), {"name": "given-name"})) == "given-name"
    assert registry.get(expected) is kind


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(UserError, match=r"'rmu' is taken by unlearn_bench\.methods\.rmu\.RMU; rename"):
        make_plan(Request(methods=[type("RMU", (RMU,), {})], **QUICK), None)


def test_a_sent_class_stays_where_its_module_is_imported_afterwards() -> None:
    """A class that was sent by value has another path than the one that its module registers."""
    registry = Registry("method", "unlearn_bench.methods", "unlearn_bench.methods")
    sent = type("Faulty", (RMU,), {"__module__": "unlearn_faulty"})
    registry.put("faulty", sent)
    registry.register("faulty")(SignFlip)
    assert registry.get("faulty") is sent


def test_what_is_no_method_or_no_task_is_refused() -> None:
    with pytest.raises(UserError, match="takes names and classes of methods"):
        make_plan(Request(methods=[Perplexity], **QUICK), None)
    with pytest.raises(UserError, match="give it its data: TaskSpec"):
        make_plan(Request(tasks=[Perplexity], **QUICK), None)


def test_a_spec_is_a_control_and_a_model_may_be_a_folder_or_a_spec(root: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ours.jsonl").write_text(json.dumps({"text": "one text of ours"}) + "\n")
    folder = root / "harness" / "suites" / "micro" / "model"
    spec = ModelSpec(name="same", path=str(folder))
    with tasks.temporary("ours", type("Ours", (Perplexity,), {"__module__": "ours"})):
        ours = TaskSpec(task=tasks.get("ours"), data=SourceSpec(path="ours.jsonl"))
        plan = make_plan(Request(methods=("none",), models=[folder, spec], tasks=["wmdp", "mmlu", ours], **QUICK), None)
    assert list(plan.models) == ["model", "same"]
    assert plan.tasks["ours"].count == 1
    assert plan.suite.tracks["knowledge"].controls[-1] == "ours"
    taken = TaskSpec(task="perplexity", data=SourceSpec(path="ours.jsonl"))
    with pytest.raises(UserError, match="another task called 'perplexity'"):
        make_plan(Request(tasks=[taken], **QUICK), None)


def test_a_class_that_no_other_process_can_have_is_refused_before_anything_runs() -> None:
    lock = threading.Lock()

    class Holds(RMU):
        def losses(self, batch):
            with lock:
                return super().losses(batch)

    with methods.temporary("holds", Holds):
        plan = make_plan(Request(methods=("holds",), **QUICK), None)
        with pytest.raises(UserError, match=r"'holds' cannot be sent to workers: .*executor='inline'"):
            pack(plan)
    assert not pack(make_plan(Request(methods=("rmu",), **QUICK), None))


def test_the_source_of_a_notebook_is_part_of_what_it_makes() -> None:
    assert source_of(SignFlip) == source_of(RMU) == {}
    kinds = [type("A", (RMU,), {"__module__": "__main__", "losses": losses}) for losses in (RMU.losses, RMU.combine)]
    assert len({source_of(kind)["source"] for kind in kinds}) == 2


@pytest.mark.parametrize("way", [pytest.param("script", marks=pytest.mark.slow), "standard input"])
def test_workers_get_the_classes_of_a_program(way: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    line = [sys.executable, *(["program.py"] if way == "script" else ["-"])]
    done = subprocess.run(line, input=PROGRAM, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [{}, ["base", "noise(part_of_rmu)", "part_of_rmu"], ["wmdp", "mmlu", "our_text"]]


def test_verbose_names_what_begins_and_ends_in_workers_too_and_quiet_says_nothing(tmp_path: Path) -> None:
    line = ["evaluate", "--methods", "none", "--tasks", "wmdp,mmlu", "--limit", "4", "--workers", "1"]
    line += ["--tracks", "knowledge", "--output", str(tmp_path)]
    loud = CliRunner().invoke(main, ["-v", *line])
    assert loud.exit_code == 0, loud.output
    assert "INFO unlearn_bench.harness.runner: base: measuring wmdp, mmlu begins" in loud.stderr
    assert "INFO unlearn_bench.harness.jobs.evaluate: base: wmdp measured, 4 items" in loud.stderr
    quiet = CliRunner().invoke(main, ["-q", *line])
    assert (quiet.exit_code, quiet.stderr) == (0, "")
    assert quiet.stdout.splitlines()[:1] == loud.stdout.splitlines()[:1]
    assert "INFO" not in CliRunner().invoke(main, line).stderr
    assert logging.getLogger("unlearn_bench").level == logging.NOTSET


def test_a_level_that_is_none_is_refused() -> None:
    refused = CliRunner(env={"UNLEARN_BENCH_LOG": "debg"}).invoke(main, ["list", "methods"])
    assert refused.exit_code == 2
    assert "Did you mean 'debug'" in refused.stderr
