"""The Ray executor on a local cluster of two nodes: the board of `local`, whatever is lost in the middle."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from unlearn_bench.harness import Request, evaluate
from unlearn_bench.harness.errors import JobError, UserError
from unlearn_bench.harness.executors._ray import RayWorker, amounts, connect, needs
from unlearn_bench.harness.executors.ray import RayExecutor
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.planning.estimate import memory
from unlearn_bench.harness.planning.plan import base_cell
from unlearn_bench.harness.runtime import RunConfig
from unlearn_bench.harness.store.entries import Store
from unlearn_bench.harness.transforms.base import BuildJob

COMMAND = str(Path(sys.executable).with_name("unlearn-bench"))
NEEDS_RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra `ray`)")
QUICK = ("--methods", "rmu,adap_rmu", "--tracks", "knowledge", "--limit", "8", "--set", "training.steps=2")
LONGER = ("--methods", "rmu,adap_rmu,cosine_meta_rmu", "--tracks", "knowledge", "--limit", "24")
LONGER += ("--set", "training.steps=60")
MEMORY = 8 * 2**30
INTERRUPTED = "Interrupted. What is finished is kept; the same command goes on from there.\n"
HEALTH = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500, "health_check_timeout_ms": 2000}
"""How soon the cluster notices that a node is gone; Ray's own take a quarter of a minute."""


def run(arguments: tuple[str, ...], store: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "evaluate", *arguments, "--output", str(store), *options],
        capture_output=True,
        text=True,
        timeout=400,
    )


def boards(store: Path) -> list[bytes]:
    return [(store / "leaderboards" / f"micro.{kind}").read_bytes() for kind in ("json", "md")]


@dataclass
class Nodes:
    """A cluster of two nodes with two processors each; the second can be lost."""

    cluster: Any

    @property
    def options(self) -> tuple[str, ...]:
        return ("--executor", "ray", "--address", self.cluster.address)

    def add(self, **more: int) -> Any:
        return self.cluster.add_node(num_cpus=2, memory=MEMORY, object_store_memory=2**27, **more)

    def start(self, arguments: tuple[str, ...], store: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [COMMAND, "evaluate", *arguments, "--output", str(store), *self.options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    head = {"num_cpus": 2, "memory": MEMORY, "object_store_memory": 2**27, "_system_config": HEALTH}
    cluster = Cluster(initialize_head=True, head_node_args={**head, "include_dashboard": False})
    yield Nodes(cluster)
    cluster.shutdown()


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> Path:
    """The store of the longer run by the executor `local`."""
    store = tmp_path_factory.mktemp("calm") / "store"
    assert run(LONGER, store, "--workers", "2").returncode == 0
    return store


def actors(node: Any, titles: str = r"ray::(RayWorker|_QueueActor)") -> list[Any]:
    """Return the processes of a node that have what the run started there, by the titles that Ray gives them."""
    import psutil

    [raylet] = node.all_processes["raylet"]
    children = psutil.Process(raylet.process.pid).children(recursive=True)
    return [child for child in children if child.is_running() and re.match(titles, "".join(child.cmdline()[:1]))]


def at_work(node: Any) -> list[Any]:
    """Return the workers of a node that run a job now."""
    return actors(node, r"ray::RayWorker\.run$")


def wait_until_at_work(node: Any, store: Path, running: subprocess.Popen[str]) -> list[Any]:
    """Wait until a node trains, and return its processes that do."""
    while not (working := at_work(node)) or len(list(store.glob("cells/*/.lock"))) < 2:
        assert running.poll() is None, f"the run ended before its node was at work: {running.communicate()[1]}"
        time.sleep(0.02)
    return working


@NEEDS_RAY
@pytest.mark.slow
def test_two_nodes_make_the_board_of_this_machine_alone(nodes: Nodes, tmp_path: Path) -> None:
    second = nodes.add()
    there, here = tmp_path / "there", tmp_path / "here"
    done = run(QUICK, there, *nodes.options)
    assert done.returncode == 0, done.stderr
    assert run(QUICK, here, "--workers", "2").returncode == 0
    assert boards(there) == boards(here)
    nodes.cluster.remove_node(second)


@NEEDS_RAY
@pytest.mark.slow
def test_what_a_lost_node_was_at_runs_again_elsewhere(nodes: Nodes, calm: Path, tmp_path: Path) -> None:
    second, store = nodes.add(), tmp_path / "store"
    running = nodes.start(LONGER, store)
    working = wait_until_at_work(second, store, running)
    nodes.cluster.remove_node(second, allow_graceful=False)
    printed, said = running.communicate()
    assert running.returncode == 0, said
    assert printed.startswith("micro, revision"), "what Ray says goes to standard error"
    assert "is lost; knowledge/" in said or "is lost; base" in said
    assert working
    assert not any(process.is_running() for process in working)
    assert boards(store) == boards(calm)


@NEEDS_RAY
@pytest.mark.slow
@pytest.mark.full
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_actor_and_the_next_goes_on(
    nodes: Nodes, calm: Path, tmp_path: Path, how
) -> None:
    import psutil

    second, store = nodes.add(), tmp_path / "store"
    running = nodes.start(LONGER, store)
    wait_until_at_work(second, store, running)
    while not list(store.glob("*/*/manifest.json")):
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)
    started = [process for node in (nodes.cluster.head_node, second) for process in actors(node)]
    assert len(started) >= 3, "the reports' actor and a worker on each node"
    running.send_signal(how)
    said = running.communicate(timeout=60)[1]
    kept = {path: path.stat().st_mtime_ns for path in store.glob("*/*/manifest.json")}
    assert 0 < len(kept) < len(list(calm.glob("*/*/manifest.json")))
    assert psutil.wait_procs(started, timeout=60)[1] == []
    if how == signal.SIGINT:
        assert running.returncode == 130
        assert said.endswith(INTERRUPTED)
    assert run(LONGER, store, *nodes.options).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert boards(store) == boards(calm)
    nodes.cluster.remove_node(second)


@NEEDS_RAY
@pytest.mark.slow
@pytest.mark.full
def test_interrupts_of_a_run_on_this_machine_alone_leave_no_process(tmp_path: Path) -> None:
    import psutil

    asked = ["evaluate", *QUICK, "--set", "training.steps=100000", "--output", str(tmp_path)]
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"from unlearn_bench.harness.cli import main; main({[*asked, '--executor', 'ray', '--address', 'local']!r})"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not list(tmp_path.glob("cells/*/.lock")):
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)
    family = psutil.Process(running.pid).children(recursive=True)
    assert any("ray::RayWorker.run" in process.cmdline() for process in family)
    for _ in range(3):
        os.killpg(running.pid, signal.SIGINT)
        time.sleep(0.2)
    assert running.communicate(timeout=60)[1].endswith(INTERRUPTED)
    assert running.returncode == 130
    assert psutil.wait_procs(family, timeout=30)[1] == []


class Seen(RayWorker):
    """A worker that notes what it was given, and ends its job once two of them are at work."""

    def run(self, job):
        folder = job.config.store / "seen"
        folder.mkdir(exist_ok=True)
        (folder / job.model.name).write_text(json.dumps([os.environ["CUDA_VISIBLE_DEVICES"], job.config.device]))
        while len(list(folder.iterdir())) < 2:
            time.sleep(0.02)


@NEEDS_RAY
@pytest.mark.slow
def test_two_models_are_placed_on_gpus_of_their_own_and_four_gpus_are_not_waited_for(nodes, tmp_path: Path) -> None:
    from ray import cloudpickle

    store, second = Store.create(tmp_path), nodes.add(num_gpus=2)
    [model] = make_plan(Request(methods=("none",), limit=4), None).models.values()

    def job(name: str, limit: float = 60, **options: int) -> BuildJob:
        place = RunConfig(store=store.root, device="cuda", threads=1, engine_options=options, time_limit=limit)
        return BuildJob(place, model.model_copy(update={"name": name, "digest": name}), base_cell(model))

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with RayExecutor(4, lambda event: None, nodes.cluster.address) as executor:
        assert [executor.device(asked) for asked in ("auto", "cuda:1", "cpu")] == ["cuda", "cuda", "cpu"]
        executor._worker = executor._ray.remote(Seen)
        with pytest.raises(JobError, match="ended after 1 s, its time limit"):
            executor.submit(job("alone", 1)).result(60)
        (tmp_path / "seen" / "alone").unlink()
        small, large = [executor.submit(job(name)) for name in "ab"], job("c", tensor_parallel_size=4)
        assert [future.result(120) for future in small] == [None, None]
        with pytest.raises(
            UserError, match=r"need 1 CPU, 4 GPUs on .*: 2 CPUs, 2 GPUs.* a smaller tensor_parallel_size"
        ):
            executor.submit(large).result(60)
    seen = [json.loads(path.read_text()) for path in (tmp_path / "seen").iterdir()]
    assert sorted(seen) == [["0", "cuda"], ["1", "cuda"]]
    nodes.cluster.remove_node(second)


@NEEDS_RAY
@pytest.mark.slow
@pytest.mark.full
def test_a_killed_process_costs_its_cell_and_the_next_run_makes_it(nodes: Nodes, calm: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    running = nodes.start(LONGER, store)
    victim = wait_until_at_work(nodes.cluster.head_node, store, running)[0]
    victim.send_signal(signal.SIGKILL)
    said = running.communicate()[1]
    assert running.returncode == 1, said
    assert "the process of its worker on" in said
    assert len([line for line in said.splitlines() if line.startswith("Failed:")]) >= 1
    kept = list(store.glob("*/*/manifest.json"))
    assert 0 < len(kept) < len(list(calm.glob("*/*/manifest.json")))
    assert run(LONGER, store, *nodes.options).returncode == 0
    assert boards(store) == boards(calm)


@NEEDS_RAY
@pytest.mark.slow
@pytest.mark.full
def test_what_no_node_can_hold_is_said_and_not_waited_for(nodes: Nodes, tmp_path: Path) -> None:
    done = run(("--methods", "none", "--limit", "8", "--batch-size", "1000000"), tmp_path, *nodes.options)
    assert done.returncode == 1
    assert "Jobs of micro need 1 CPU, " in done.stderr
    assert "none of the 1 of the Ray cluster has that (the most of each: 2 CPUs, 8.0 GiB of memory)" in done.stderr


@NEEDS_RAY
def test_a_worker_says_what_its_machine_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    start = (tmp_path / "store", str(tmp_path))
    with pytest.raises(UserError, match=r"has unlearn-bench .*, the driver 0\.0: install the same on every machine"):
        RayWorker(None).start(*start, "0.0")
    with pytest.raises(
        UserError, match=r"does not see the store .*/store: pass an --output that every machine reaches"
    ):
        RayWorker(None).start(*start, version("unlearn-bench"))


@NEEDS_RAY
def test_a_cluster_that_is_not_there_is_said() -> None:
    with pytest.raises(UserError, match=r"No Ray cluster answers at '127\.0\.0\.1:9': .* `ray start --head`"):
        connect("127.0.0.1:9")


def test_without_ray_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'unlearn-bench\[ray\]'"):
        evaluate(Request(methods=("none",), limit=2), output=tmp_path, executor="ray")


def test_an_address_without_a_cluster_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="takes no --address"):
        evaluate(Request(methods=("none",), limit=2), output=tmp_path, address="auto")


def test_a_worker_asks_for_threads_and_memory_or_for_the_gpus_that_share_its_model() -> None:
    plan = make_plan(Request(methods=("rmu",), limit=4), None)
    [model] = plan.models.values()
    asked = memory(plan, 64)

    def needed(device: str, **options: int) -> dict[str, float]:
        place = RunConfig(store=Path("store"), device=device, threads=2, engine_options=options, memory=asked)
        return needs(BuildJob(place, model, base_cell(model)))

    assert needed("cpu") == {"CPU": 2, "memory": asked[model.digest]}
    assert asked[model.digest] > 2**30
    assert needed("cuda", tensor_parallel_size=2, max_num_seqs=8) == {"CPU": 2, "GPU": 2}
    assert amounts({"CPU": 2, "memory": 3 * 2**30}) == "2 CPUs, 3.0 GiB of memory"
