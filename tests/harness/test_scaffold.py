"""`new` writes methods and tasks that work as they are; `check` says in words what is broken."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from unlearn_bench.harness.authoring.check import check
from unlearn_bench.harness.authoring.scaffold import write
from unlearn_bench.harness.cli import main
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.records import Record
from unlearn_bench.methods.base import Method, MethodSettings, methods
from unlearn_bench.tasks.base import Task, TaskSettings, tasks
from unlearn_bench.tasks.mmlu import MMLU
from unlearn_bench.tasks.perplexity import Perplexity
from unlearn_bench.tasks.realtoxicityprompts import RealToxicityPrompts

PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]


def run(code: list[str], *, path: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(path)}
    line = [sys.executable, *code]
    return subprocess.run(line, capture_output=True, text=True, env=environment, timeout=300, cwd=cwd)


def command(*arguments: str) -> list[str]:
    return ["-c", f"from unlearn_bench.harness.cli import main; main({list(arguments)!r})"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    """A folder with the packages `hush` (a method) and `recall` (a task), installed in `installed`."""
    home = tmp_path_factory.mktemp("packages")
    write("method", "hush", home / "hush")
    write("task", "recall", home / "recall")
    done = subprocess.run([*PIP, "installed", "./hush", "./recall"], cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return home


@pytest.mark.slow
def test_new_packages_pass_their_own_tests_and_the_contract_in_them(packages: Path):
    for name in ("hush", "recall"):
        assert (
            f'check_{"method" if name == "hush" else "task"}("{name}")'
            in (packages / name / "tests" / f"test_{name}.py").read_text()
        )
    tested = run(["-m", "pytest", "-q", "hush/tests", "recall/tests"], path=packages / "installed", cwd=packages)
    assert tested.returncode == 0, tested.stdout


def test_a_new_method_is_measured_by_a_new_task_at_once(packages: Path):
    small = ("--tasks", "wmdp,mmlu,recall", "--limit", "12", "--set", "training.steps=3", "--executor", "inline")
    asked = command(
        "evaluate", "--suite", "recall/recall.yaml", "--methods", "hush", *small, "--output", "out", "--json"
    )
    done = run(asked, path=packages / "installed", cwd=packages)
    assert done.returncode == 0, done.stderr
    board = json.loads(done.stdout)
    [row] = [row for row in board["rows"] if row["method"] == "hush"]
    assert row["status"] == "ok"
    [recall] = [control for control in row["controls"] if control["task"] == "recall"]
    assert 0 < recall["value"] < 1


@pytest.fixture(scope="module")
def checkout(root: Path, tmp_path_factory) -> tuple[Path, str, set[str]]:
    """A copy of the checkout in which a method and a task were begun, what that printed, and the new files."""
    home = tmp_path_factory.mktemp("checkout") / "unlearn_bench"
    for folder in ("harness", "methods", "tasks", "leaderboards", "reports"):
        shutil.copytree(root / folder, home / folder, ignore=shutil.ignore_patterns("__pycache__", "published"))
    shutil.copy(root / "pyproject.toml", home)
    before = {path.relative_to(home) for path in home.rglob("*")}
    code = (
        "import os; from pathlib import Path; from unlearn_bench.harness.authoring.scaffold import write\n"
        "print(write('method', 'hush')); print(write('task', 'recall')); os.chdir('..')\n"
        "try: write('method', 'other')\nexcept Exception as error: print(error)"
    )
    made = run(["-c", code], path=home.parent, cwd=home)
    assert made.returncode == 0, made.stderr
    new = {path.relative_to(home) for path in home.rglob("*") if path.is_file() and path.suffix != ".pyc"} - before
    return home, made.stdout, set(map(str, new))


def test_in_a_checkout_a_method_is_one_file_and_its_test(checkout):
    _, said, new = checkout
    assert "unlearn-bench evaluate --suite tests/tasks/recall.yaml" in said
    assert "pass --package DIR" in said
    assert new == {
        "methods/hush.py",
        "tests/methods/test_hush.py",
        "tasks/recall.py",
        "tests/tasks/recall.yaml",
        "tests/tasks/test_recall.py",
    }


@pytest.mark.slow
def test_the_tests_of_what_is_new_in_a_checkout_pass(checkout):
    home, _, _ = checkout
    tested = run(["-m", "pytest", "-q", "tests/tasks", "tests/methods"], path=home.parent, cwd=home)
    assert tested.returncode == 0, tested.stdout


def test_what_new_writes_passes_the_projects_style(root: Path, packages: Path):
    ruff = [str(Path(sys.executable).with_name("ruff")), "--config", str(root / "pyproject.toml")]
    files = [packages / name / f"unlearn_bench_{name}.py" for name in ("hush", "recall")]
    for arguments in (["check"], ["format", "--check"]):
        done = subprocess.run([ruff[0], *arguments, *ruff[1:], *files], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Hush", "lower-case letters"),
        ("class", "cannot name a method"),
        ("2fast", "cannot name a method"),
        ("../escape", "cannot name a method"),
        ("rmu", r"taken by the method unlearn_bench\.methods\.rmu\.RMU"),
        ("mmlu", "taken by the task"),
        ("noise", "meaning of its own"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_before_anything_is_written(name: str, words: str, tmp_path: Path):
    with pytest.raises(UserError, match=words):
        write("method", name, tmp_path / "package")
    assert list(tmp_path.iterdir()) == []


def test_no_file_is_overwritten(tmp_path: Path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(UserError, match="nothing was written"):
        write("method", "hush", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "mine"


class Sound(Method):
    """A method that keeps the contract; each case below breaks one promise."""

    Settings = MethodSettings
    version, citation, summary = 1, "none", "pull hidden states to a random point"

    def trained(self, context: Any) -> list[str]:
        return context.layer_parameters([0], "mlp.down_proj.weight")

    def setup(self, context: Any) -> None:
        super().setup(context)
        self.target = torch.tensor(context.rng.random(context.hidden_size), dtype=torch.float32)

    def losses(self, batch: Any) -> dict[str, torch.Tensor]:
        return {"forget": (self.context.hidden(batch.forget, [0])[0] - self.target).square().mean()}

    def combine(self, losses: Any) -> torch.Tensor:
        return losses["forget"]


class NotFinite(Sound):
    def losses(self, batch):
        return {"forget": super().losses(batch)["forget"].log() * float("inf")}


class GloballyRandom(Sound):
    def combine(self, losses):
        return losses["forget"] * (1 + random.random())


class Unrepeatable(Sound):
    def combine(self, losses):
        return losses["forget"] * (1 + int.from_bytes(os.urandom(2), "little"))


class Forgetful(Sound):
    pulled = 0.0

    def after_step(self, batch, losses):
        self.pulled += 1
        return {"pulled": self.pulled}


class Misspelt(Sound):
    def trained(self, context):
        return ["model.layers.0.mlp.down_porj.weight"]


class Unchanging(Sound):
    def combine(self, losses):
        return 0 * losses["forget"]


class Anything(Sound):
    class Settings(MethodSettings):
        strength: Any = 1.0


class NeedsMore(Sound):
    class Settings(MethodSettings):
        strength: float


class Refused(Sound):
    class Settings(MethodSettings):
        strength: float = torch.nan


class Crashing(Sound):
    def losses(self, batch):
        return {"forget": self.wieght * super().losses(batch)["forget"]}


class OrderBound(Perplexity):
    def score(self, items, outcomes, scorer=None):
        found = super().score(items, outcomes, scorer)
        return [
            Record(r.item, r.cluster, r.stratum, r.scores and {"nll": r.scores["nll"] + n}, r.missing, r.marks)
            for n, r in enumerate(found)
        ]


class FailureIsZero(Perplexity):
    @staticmethod
    def _record(item, outcome):
        found = Perplexity._record(item, outcome)
        return found if found.scores else Record(item.id, item.cluster, item.stratum, {"nll": 0.0})


class OneFailsAll(Perplexity):
    def score(self, items, outcomes, scorer=None):
        found = super().score(items, outcomes, scorer)
        failed = any(record.missing for record in found)
        return [Record(r.item, r.cluster, r.stratum, None, "a neighbour failed") if failed else r for r in found]


class Deaf(Perplexity):
    def score(self, items, outcomes, scorer=None):
        found = super().score(items, outcomes, scorer)
        return [Record(r.item, r.cluster, r.stratum, r.scores and {"nll": 1.0}, r.missing) for r in found]


class DeafToTheJudge(RealToxicityPrompts):
    def _record(self, item, outcome, judged):
        return super()._record(item, outcome, {text: value and 0.5 for text, value in judged.items()})


class OutOfBounds(MMLU):
    def _record(self, task, item, outcome):
        r = super()._record(task, item, outcome)
        return Record(r.item, r.cluster, r.stratum, r.scores and {**r.scores, "acc": 100.0}, r.missing, r.marks)


class WordySetting(Perplexity):
    class Settings(TaskSettings):
        max_characters: Any = 100


@pytest.fixture
def registered():
    """Register a class under a name of its own for one test."""
    with ExitStack() as stack:

        def put(kind: type) -> str:
            registry: Any = methods if issubclass(kind, Method) else tasks
            return stack.enter_context(registry.temporary(f"test_{kind.__name__.lower()}", kind))

        yield put


@pytest.mark.parametrize(
    ("kind", "rule", "words"),
    [
        (NotFinite, "It trains", "forget is -inf at step 0"),
        (GloballyRandom, "One seed", "it draws from random: draw from context.rng only"),
        (Unrepeatable, "One seed", "something that no seed reaches"),
        (Forgetful, "A run that was interrupted", "self.pulled missing in state_dict()"),
        (Misspelt, "It trains", "has no parameters called ['model.layers.0.mlp.down_porj.weight']"),
        (Unchanging, "It trains", "returned the base unchanged"),
        (Anything, "Settings are typed", "'strength' takes anything at all; give it a type"),
        (NeedsMore, "Settings are typed", "'strength' has no default"),
        (Refused, "Settings are typed", "'strength' refuses its own default"),
        (Crashing, "It trains", "'wieght'"),
        (OrderBound, "A record depends on its own item", "depend on the order of the items"),
        (FailureIsZero, "What cannot be scored", "a failed outcome has scores {'nll': 0.0}"),
        (OneFailsAll, "What cannot be scored", "changes the records of others"),
        (Deaf, "Other answers", "the same whatever is answered"),
        (OutOfBounds, "It scores every sound answer", "acc is 100.0, outside [0, 1.0]"),
        (WordySetting, "Settings are typed", "'max_characters' takes anything"),
    ],
)
def test_check_names_what_is_broken(
    kind: type[Method | Task], rule: str, words: str, registered: Callable[[type], str]
):
    checked = check(registered(kind))
    first = next(found for found in checked.rules if found.state == "broken")
    assert first.rule.startswith(rule)
    assert words in first.words
    assert not checked.ok
    assert f"BROKEN  {rule}" in checked.to_text()


def test_a_crash_is_told_with_its_line(registered: Callable[[type], str]):
    checked = check(registered(Crashing))
    [broken] = [found for found in checked.rules if found.state == "broken"]
    assert f"{Path(__file__).name}, line" in broken.words
    assert "self.wieght" in broken.words
    assert {found.state for found in checked.rules[-5:]} == {"unchecked"}


def test_the_exit_status_says_whether_the_contract_is_kept(registered: Callable[[type], str]):
    kept = CliRunner().invoke(main, ["check", registered(Sound), "--json"])
    assert kept.exit_code == 0
    assert {rule["state"] for rule in json.loads(kept.stdout)["rules"]} == {"ok"}
    broken = CliRunner().invoke(main, ["check", registered(Deaf)])
    assert broken.exit_code == 1
    assert "test_deaf breaks 1 of 9 rules." in broken.stdout


def test_check_takes_settings_and_refuses_wrong_ones():
    assert not check("rmu", {"layer": 20}).ok
    with pytest.raises(UserError, match="alpha"):
        check("rmu", {"alpha": -1})


def test_check_suggests_a_name():
    with pytest.raises(UserError, match="Did you mean 'perplexity'"):
        check("perplexty")
