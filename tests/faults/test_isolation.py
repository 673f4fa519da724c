"""A plugin that breaks, hangs, crashes or is killed ends its own cell; an interrupted run leaves no process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import psutil
import pytest
from unlearn_bench.harness import Request, evaluate
from unlearn_bench.harness.commands.evaluate import evaluate as evaluate_command
from unlearn_bench.harness.commands.options import seconds
from unlearn_bench.harness.errors import UserError, WorkerLost
from unlearn_bench.harness.executors.base import Executor
from unlearn_bench.harness.jobs.job import EvalJob
from unlearn_bench.harness.jobs.worker import run_job
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.runner import Runner
from unlearn_bench.harness.runtime import RunConfig
from unlearn_bench.harness.store.entries import Store
from unlearn_bench.harness.transforms.base import BuildJob

PLUGIN = """
import ctypes, os, signal, sys, time
from pathlib import Path
from unlearn_bench.methods.base import register
from unlearn_bench.methods.rmu import RMU

def hang():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(3600)

def leave():
    print("last words", flush=True)
    os._exit(3)

def fail():
    raise RuntimeError("the plugin broke")

def faulty(name, fault):
    @register(name)
    class Faulty(RMU):
        def losses(self, batch):
            if batch.step == 0:
                with Path(os.environ["FAULTS"], name).open("a") as stream:
                    print(os.getpid(), file=stream)
                fault()
            return {key: loss * self.factor for key, loss in super().losses(batch).items()}
        factor = float("nan") if name == "blank" else 1.0

faulty("raises", fail)
faulty("hangs", hang)
faulty("leaves", leave)
faulty("killed", lambda: os.kill(os.getpid(), signal.SIGKILL))
faulty("crashes", lambda: ctypes.string_at(0))
faulty("quits", lambda: sys.exit("no more"))
faulty("blank", lambda: None)
"""
QUICK = {"tracks": ("knowledge",), "tasks": ("wmdp", "mmlu"), "limit": 8, "settings": ("training.steps=2",)}
CAUSES = {
    "raises": "RuntimeError: the plugin broke",
    "hangs": "ended at its time limit, 0:00:20",
    "leaves": "its process ended with status 3",
    "killed": "its process was killed (signal 9); the machine may have run out of memory",
    "crashes": "signal 11, SIGSEGV",
    "quits": "SystemExit: no more",
    "blank": "forget is nan at step 0",
}
PRINTED = {
    "raises": "in fail",
    "hangs": "in hang",
    "leaves": "last words",
    "crashes": "Fatal Python error: Segmentation fault",
    "quits": "sys.exit",
}


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> dict[str, str]:
    """An installed package of faulty methods; return the environment in which it is found."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "unlearn_faulty.py").write_text(PLUGIN)
    facts = folder / "unlearn_faulty-0.1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: unlearn-faulty\nVersion: 0.1\n")
    (facts / "entry_points.txt").write_text("[unlearn_bench.methods]\nfaulty = unlearn_faulty\n")
    (folder / "faults").mkdir()
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "FAULTS": str(folder / "faults")}


def command(methods: str, store: Path, *more: object, before: str = "") -> list[str]:
    small = ["--tracks", "knowledge", "--tasks", "wmdp,mmlu", "--limit", "8", "--set", "training.steps=2"]
    line = ["evaluate", "--methods", methods, *small, "--output", str(store), "--workers", "2", *map(str, more)]
    return [sys.executable, "-c", f"{before}\nfrom unlearn_bench.harness.cli import main\nmain({line!r})"]


def rows(store: Path) -> dict[str, dict]:
    board = json.loads((store / "leaderboards" / "micro.json").read_text())
    return {row["variant"]: row for row in board["rows"]}


@pytest.mark.parametrize(
    "faults", [("raises", "leaves", "killed", "blank"), pytest.param(tuple(CAUSES), marks=pytest.mark.slow)]
)
def test_a_faulty_plugin_costs_its_own_cell_and_is_named_with_its_cause(plugin, tmp_path: Path, faults) -> None:
    plugin = {**plugin, "FAULTS": str(tmp_path)}
    calm, store = tmp_path / "calm", tmp_path / "store"
    assert not evaluate(Request(methods=("rmu",), **QUICK), output=calm, executor="inline").failures
    asked = command(",".join(("rmu", *faults)), store, "--time-limit", "20s")
    done = subprocess.run(asked, capture_output=True, text=True, env=plugin, timeout=280)
    assert done.returncode == 1, done.stderr
    found, undisturbed = rows(store), rows(calm)
    for variant in ("rmu", "base"):
        assert found[variant].items() >= {key: undisturbed[variant][key] for key in ("forget", "retain")}.items()
        assert found[variant]["s_unlearning"] == undisturbed[variant]["s_unlearning"]
    said = {line for line in done.stderr.splitlines() if line.startswith("Failed: ")}
    assert len(said) == len(faults)
    for variant in faults:
        cause = CAUSES[variant]
        (line,) = (line for line in said if line.startswith(f"Failed: knowledge/{variant}#0: "))
        assert cause in line
        assert found[variant]["status"] == "failed"
        kept = json.loads((store / "cells" / found[variant]["cells"][0] / "failure.json").read_text())
        assert cause in kept["cause"]
        assert PRINTED.get(variant, "") in kept["traceback"]
        tried = Path(plugin["FAULTS"], variant).read_text().split()
        assert len(set(tried)) == (2 if variant == "killed" else 1), "only what may pass is tried again"
    print(f"{len(faults)} faulty methods, each named with its cause; rmu and base as undisturbed")


def processes(leader: int) -> list[psutil.Process]:
    """Return the living processes of a session."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    return found


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder for temporary files whose path leaves room for a socket's name."""
    with TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.parametrize(
    "how",
    [
        (signal.SIGINT,),
        pytest.param((signal.SIGINT, signal.SIGINT), marks=pytest.mark.slow),
        pytest.param((signal.SIGKILL,), marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_ended_leaves_no_process_and_keeps_what_is_finished(
    plugin, tmp_path: Path, short: Path, how
) -> None:
    env, store = {**plugin, "FAULTS": str(tmp_path), "TMPDIR": str(short)}, tmp_path / "store"
    patient = "from unlearn_bench.harness.executors import local\nlocal.GRACE = 600" if len(how) == 2 else ""
    default = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    asked = command("rmu,hangs", store, before=default + patient)
    run = subprocess.Popen(asked, stderr=subprocess.PIPE, text=True, env=env, start_new_session=True)
    while not (tmp_path / "hangs").exists() or len(list(store.rglob("manifest.json"))) < 5:
        assert run.poll() is None, run.communicate()
        time.sleep(0.05)
    kept = {path: path.stat().st_mtime_ns for path in store.rglob("manifest.json")}
    worker = int((tmp_path / "hangs").read_text())
    alive = {process.pid for process in processes(run.pid)}
    assert {run.pid, worker} < alive
    assert len(alive) >= 4, "the run, what its workers are forked from, and two workers"
    for number in how:
        os.kill(run.pid, number)
        time.sleep(0.5)
    _, said = run.communicate(timeout=60)
    assert psutil.wait_procs(processes(run.pid), timeout=60)[1] == []
    assert not list(filter(Path.is_file, short.rglob("*"))), "nor is a temporary file left"
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    if signal.SIGKILL not in how:
        assert run.returncode == 130
        assert said.endswith("Interrupted. What is finished is kept; the same command goes on from there.\n")
    ended = " and ".join(signal.Signals(number).name for number in how)
    print(f"{ended}: {len(alive)} processes were at work, none is left; {len(kept)} finished entries untouched")


class Short(Executor):
    """Runs jobs as they come, two at once, and loses the first training as often as it is told."""

    def __init__(self, times: int) -> None:
        self.slots, self.times = 2, times
        self.jobs: list[tuple[BuildJob | EvalJob, int]] = []
        self.open: list[tuple[BuildJob | EvalJob, Future[None]]] = []

    def submit(self, job):
        future: Future[None] = Future()
        self.open.append((job, future))
        self.jobs.append((job, len(self.open)))
        if len(self.open) == 2 or len(self.jobs) > 2:
            for each, waiting in self.open:
                self._end(each, waiting)
            self.open = []
        return future

    def _end(self, job, future) -> None:
        if isinstance(job, BuildJob) and job.cell.variant == "rmu" and self.times:
            self.times -= 1
            future.set_exception(WorkerLost("its process was killed", passing=True))
            return
        future.set_result(run_job(job, lambda event: None))

    def close(self, *, now: bool = False) -> None: ...


@pytest.mark.parametrize(("times", "failed"), [(1, False), (2, True)])
def test_a_killed_job_is_tried_once_more_when_nothing_else_runs(tmp_path: Path, times: int, failed: bool) -> None:
    store, executor = Store.create(tmp_path), Short(times)
    plan = make_plan(Request(methods=("rmu", "adap_rmu"), **QUICK), store)
    failures = Runner(plan, store, executor, RunConfig(store=store.root, device="cpu", threads=1)).run()
    tries = [number for number, (job, _) in enumerate(executor.jobs) if job.cell.variant == "rmu"]
    made = [number for number in tries if isinstance(executor.jobs[number][0], BuildJob)]
    assert len(made) == 2
    assert executor.jobs[made[1]][1] == 1, "alone"
    first = [job.cell.variant for job, _ in executor.jobs[: made[1]] if isinstance(job, EvalJob)]
    assert sorted(first) == ["adap_rmu", "base", "noise(adap_rmu)"], "all else that could be done was done before"
    assert bool(failures) == failed


@pytest.mark.parametrize(("text", "found"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("2", 120), (None, None)])
def test_a_time_limit_is_read_with_its_unit(text: str | None, found: float | None) -> None:
    assert seconds(click.Context(evaluate_command), click.Option(["--time-limit"]), text) == found


@pytest.mark.parametrize("text", ["0", "soon", "3d", "-1m", "nan"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="such as 90s, 30m or 2h"):
        seconds(click.Context(evaluate_command), click.Option(["--time-limit"]), text)


def test_a_limit_is_refused_where_nothing_could_be_ended(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leave out --executor inline"):
        evaluate(Request(methods=("none",), **QUICK), output=tmp_path, executor="inline", time_limit=60)
