"""The Ray executor on a local cluster of two nodes: the board of `local`, whatever is lost in the middle."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from unlearn_bench.harness import Request, evaluate
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.executors._ray import amounts, connect, needs
from unlearn_bench.harness.jobs import MakeJob, Place
from unlearn_bench.harness.needs import memory
from unlearn_bench.harness.plan import base_cell
from unlearn_bench.harness.planning import make_plan

COMMAND = str(Path(sys.executable).with_name("unlearn-bench"))
NEEDS_RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra `ray`)")
QUICK = ("--methods", "rmu,adap_rmu", "--tracks", "knowledge", "--limit", "8", "--set", "training.steps=2")
LONGER = ("--methods", "rmu,adap_rmu,cosine_meta_rmu", "--tracks", "knowledge", "--limit", "24")
LONGER += ("--set", "training.steps=60")
MEMORY = 8 * 2**30
HEALTH = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500, "health_check_timeout_ms": 2000}
"""How soon the cluster notices that a node is gone; Ray's own take a quarter of a minute."""


def run(arguments: tuple[str, ...], store: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "evaluate", *arguments, "--output", str(store), *options], capture_output=True, text=True
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

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=2, memory=MEMORY, object_store_memory=2**27)

    def start(self, arguments: tuple[str, ...], store: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [COMMAND, "evaluate", *arguments, "--output", str(store), *self.options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
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


def at_work(node: Any) -> list[Any]:
    """Return the workers of a node that run a job now, by the titles that Ray gives to their processes."""
    import psutil

    [raylet] = node.all_processes["raylet"]
    children = psutil.Process(raylet.process.pid).children(recursive=True)
    return [child for child in children if child.is_running() and "".join(child.cmdline()[:1]) == "ray::Worker.run"]


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
    said = running.communicate()[1]
    assert running.returncode == 0, said
    assert "is lost; knowledge/" in said or "is lost; base" in said
    assert working
    assert not any(process.is_running() for process in working)
    assert boards(store) == boards(calm)


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
    assert "Jobs of micro need 1 CPUs, " in done.stderr
    assert "none of the 1 of the Ray cluster has that (the most of each: 2 CPUs, 8.0 GiB of memory)" in done.stderr


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
        place = Place(Path("store"), device, 2, 64, options, memory=asked)
        return needs(MakeJob(place, model, base_cell(model)))

    assert needed("cpu") == {"CPU": 2, "memory": asked[model.digest]}
    assert asked[model.digest] > 2**30
    assert needed("cuda", tensor_parallel_size=2, max_num_seqs=8) == {"CPU": 2, "GPU": 2}
    assert amounts({"CPU": 2, "memory": 3 * 2**30}) == "2 CPUs, 3.0 GiB of memory"
