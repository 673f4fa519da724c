"""A small store that stands for every other: what is read from it keeps its bytes while the code is moved about.

`unlearn-bench evaluate` plans `micro` as ever and hands out its jobs; what they would have made is drawn from hashes,
so nothing depends on a model, a processor, the time or a version. Every id, board and report is then compared with
`tests/golden/guard`. To renew after a change that is meant:

    UNLEARN_BENCH_REWRITE_GOLDEN=1 pytest tests/test_guard.py
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.metadata
import json
import os
import re
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from unlearn_bench.harness import load_records
from unlearn_bench.harness.cli import main
from unlearn_bench.harness.executors.base import executors
from unlearn_bench.harness.planning import build, imports
from unlearn_bench.harness.records import Choices, Generations, Item, Record
from unlearn_bench.harness.store import Store

GOLDEN = Path(__file__).parent / "golden" / "guard"
REWRITE = os.environ.get("UNLEARN_BENCH_REWRITE_GOLDEN") == "1"
MEANT = "If that is meant: UNLEARN_BENCH_REWRITE_GOLDEN=1 pytest tests/test_guard.py, and look at what git diff says."
ASKED = (
    "evaluate",
    "--suite=micro",
    "--methods=rmu,uld,cosine_meta_rmu,multi_layer_probe",
    "--seeds=0,1",
    "--limit=24",
    "--stress=quantise8",
    "--nulls=constant",
    "--checkpoint=imported=import",
    "--engine=transformers",
    "--device=cpu",
    "--output=store",
)
RIGHT = {
    "base": (80, 85, 60),
    "noise": (74, 82, 56),
    "imported": (70, 66, 50),
    "constant": (25, 25, 10),
    "rmu": (34, 80, 40),
    "uld": (56, 83, 30),
    "cosine_meta_rmu": (38, 74, 34),
    "multi_layer_probe": (62, 78, 16),
}
"""Of a hundred items: the forget and the other questions that a variant answers, and its toxic continuations."""
LAYERS = [2, 4, 6]


def drawn(below: int, *what: Any) -> int:
    """Return a whole number from 0 that depends on `what` alone."""
    return int.from_bytes(hashlib.sha256(repr(what).encode()).digest()[:6], "big") % below


def luck(variant: str, *what: Any) -> int:
    """Return how hard something is, in per cent: much the same for every variant."""
    return (4 * drawn(100, *what) + drawn(100, variant, *what)) // 5


class Finisher:
    """Does a job's work without a model: commits what is drawn to the store, as the job would."""

    def __init__(self, job: Any) -> None:
        self.job, self.cell, self.store = job, job.cell, Store.open(job.config.store)
        self.variant, self.label = job.cell.variant.partition("+")[0], job.cell.label

    def finish(self) -> None:
        if not hasattr(self.job, "tasks"):
            self.make()
            return
        manifest = self.store.entry("cells", self.cell.id).manifest() or {"delta": self.cell.transform}
        for task in self.job.tasks:
            self.measure(task, manifest["delta"])

    def make(self) -> None:
        delta = f"delta of {self.label}".encode()
        files = {"training.jsonl": lines(self.log())}
        facts = {"cell": self.cell.model_dump(mode="json"), "summary": self.summary(), "recorded": self.recorded()}
        if self.cell.transform == "import":
            facts |= {"delta": self.cell.settings["digest"], "pointer": "FOLDER"}
        else:
            files["delta.safetensors"] = lambda path: path.write_bytes(delta)
            facts["delta"] = hashlib.sha256(delta).hexdigest()
        self.store.entry("cells", self.cell.id).commit(files, facts)

    def measure(self, task: Any, delta: str) -> None:
        items = task.build()[1]
        outcome = task.outcome(self.job.model, delta, self.job.engine)
        record = task.record(outcome)
        draw = self.judged if task.judged else self.likelihoods if task.name == "perplexity" else self.chosen
        rows = [draw(task.name, item) for item in items]
        self.store.entry("outcomes", outcome.id).commit(
            {"outcomes.jsonl": lines([vars(answer) for answer, _ in rows])},
            {"outcome": outcome.model_dump(mode="json"), "cell": self.label, "recorded": self.recorded()},
        )
        self.store.entry("records", record.id).commit(
            {"records.jsonl": lines([vars(scored) for _, scored in rows])},
            {"record": record.model_dump(mode="json"), "cell": self.label},
        )

    def recorded(self) -> dict[str, Any]:
        odd = {"machine": "other"} if self.label == "knowledge/rmu#1" else {}
        costs = {"seconds": 1 + drawn(400, self.label) / 4, "peak_memory_mib": 300 + drawn(200, self.label)}
        return {"threads": 1, "device": "cpu", "torch": "0.0", "transformers": "0.0", "machine": "some", **costs, **odd}

    def summary(self) -> dict[str, Any]:
        learned = self.cell.transform == "train" and self.variant == "cosine_meta_rmu"
        return {"mean_log_alpha": 0.5 + 0.25 * self.cell.seed, "alpha": 1.75} if learned else {}

    def log(self) -> list[dict[str, Any]]:
        if self.cell.transform != "train":
            return []
        probed = self.variant == "multi_layer_probe"
        setup = {"probes": self.probes()} if probed else {}
        return [{"setup": setup, "shared_layers": 0, "step": -1}, *(self.step(i, probed) for i in range(12))]

    def step(self, i: int, probed: bool) -> dict[str, Any]:
        forget, retain = 8 + drawn(16, self.label, "forget", i) / 8 - i / 2, 1 + drawn(16, self.label, i) / 16
        learned = {"alpha": 1 + drawn(8, self.label, "alpha", i) / 8} if self.variant == "cosine_meta_rmu" else {}
        layers = {f"forget_layer_{layer}": (layer + 1) / (i + 1) for layer in LAYERS} if probed else {}
        losses = {"forget": forget, "retain": retain, "total": forget + retain}
        return {"step": i, "topic": "all", "grad_norm": 1.0, **losses, **learned, **layers}

    def probes(self) -> dict[str, Any]:
        cosines = [[1.0 if i == j else (drawn(17, i + j) - 8) / 16 for j in LAYERS] for i in LAYERS]
        counts = [[1 + drawn(9, layer), 30, 31, 2] for layer in LAYERS]
        return {"layers": LAYERS, "cosines": cosines, "edges": [-4, -2, 0, 2, 4], "counts": counts}

    def level(self, task: str) -> int:
        forget, retain, toxic = RIGHT[self.cell.method if self.cell.beside == "noise" else self.variant]
        found = {"wmdp": forget, "form_shift": forget, "realtoxicityprompts": toxic}.get(task, retain)
        back = 8 if self.cell.stress and self.variant not in ("base", "noise") else 0
        return found + back + 3 * (self.cell.seed or 0)

    def chosen(self, task: str, item: Item) -> tuple[Choices, Record]:
        which = drawn(4, self.label, task, item.id, "choice")
        tokens = [1 + drawn(3, item.id, i) for i in range(4)]
        answer = Choices(item.id, [-1.0 - abs(i - which) for i in range(4)], tokens, [i == which for i in range(4)])
        if (self.label, drawn(12, item.id)) == ("toxicity/rmu#1", 0):
            return answer, Record(*place(item), None, "a log-probability is not finite")
        right = luck(self.label, task, item.id) < self.level(task)
        marks = {"tie": float(drawn(20, self.label, item.id) == 0), "truncated": float(drawn(30, item.id) == 0)}
        scores = {"acc": float(right), "probability": (20 + 60 * right) / 100, "position": float(which)}
        return answer, Record(*place(item), scores, None, marks)

    def likelihoods(self, task: str, item: Item) -> tuple[Choices, Record]:
        tokens = 8 + drawn(8, item.id)
        nll = (120 - self.level(task) + drawn(40, self.label, item.id)) / 16
        answer = Choices(item.id, [-nll * tokens], [tokens], [False])
        return answer, Record(*place(item), {"nll": nll}, None, {"truncated": 0.0})

    def judged(self, task: str, item: Item) -> tuple[Generations, Record]:
        each = [luck(self.label, task, item.id, i) < self.level(task) for i in range(5)]
        toxicities = [(55 * bad + drawn(45, item.id, i)) / 100 for i, bad in enumerate(each)]
        texts = [f" said{drawn(40, self.label, item.id, i, 0)} {self.word(item.id, i)}." for i in range(5)]
        answer = Generations(item.id, texts, [4] * 5, [True] * 5, [-8.0 - i for i in range(5)])
        scores = {"toxicity_rate": sum(each) / 5, "max_toxicity": max(toxicities), "any_toxic": float(any(each))}
        marks = {"empty": 0.0, "repetitive": 0.2, "gibberish": drawn(3, self.label, item.id) / 5, "truncated": 0.0}
        return answer, Record(*place(item), scores, None, marks, toxicities)

    def word(self, *what: Any) -> str:
        return " ".join(f"word{drawn(60, self.label, *what, i)}" for i in range(4))


def place(item: Item) -> tuple[str, str, str]:
    return item.id, item.cluster, item.stratum


def lines(rows: list[Any]) -> Callable[[Path], Any]:
    """Return what writes rows to a path, one JSON object a line."""
    text = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
    return lambda path: path.write_text(text, encoding="utf-8")


def submit(executor: Any, job: Any) -> Future[None]:
    """Stand for an executor's `submit`."""
    future: Future[None] = Future()
    try:
        future.set_result(Finisher(job).finish())
    except Exception as error:
        future.set_exception(error)
    return future


def say(*arguments: str, status: int = 0) -> str:
    """Return what a command prints."""
    ran = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert ran.exit_code == status, ran.output
    return ran.stdout


@pytest.fixture
def fixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own, with nothing from outside that boards or reports could show, and nobody who trains."""
    for name in [name for name in os.environ if name.startswith("UNLEARN_BENCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr(executors.get("inline"), "submit", submit)
    known = importlib.metadata.distribution
    own = {"unlearn-bench": SimpleNamespace(version="0.0.0")}
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: own.get(name) or known(name))
    monkeypatch.setattr(imports, "check_weights", lambda what, folder: None)  # nobody loads the words below
    monkeypatch.setattr(build, "import_notes", lambda *of: ())  # nor reads them
    (tmp_path / "import").mkdir()
    for name, content in (("config.json", b"{}"), ("model.safetensors", b"weights"), ("tokenizer.json", b"{}")):
        (tmp_path / "import" / name).write_bytes(content)


def entries(root: Path) -> tuple[str, str]:
    """Return the names of all that the store holds, with what each is, and the manifests."""
    names, manifests = [], []
    for path in sorted(root.glob("*/*/manifest.json")):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        section, ident = path.parts[-3:-1]
        cell = manifest["cell"]
        about = [manifest["outcome"]["task"]] if section == "outcomes" else []
        names.append(" ".join([f"{section}/{ident}", cell if isinstance(cell, str) else cell["variant"], *about]))
        manifests.append(path.read_text(encoding="utf-8"))
    return "\n".join(names) + "\n", "".join(manifests)


def artefacts() -> tuple[dict[str, str], dict[str, str]]:
    """Return what is compared as text, and what by its sha256 alone, by file name."""
    at, store = "--output=store", Path("store")
    say(*ASKED, "--executor=inline")
    say("report", "store", "--out=report.md")
    names, manifests = entries(store)
    board = read(store / "leaderboards" / "micro.md")
    details = say("leaderboard", at, "--details")
    assert details.startswith(board)
    texts = {
        "entries.txt": names,
        "dry_run.txt": say(*ASKED, "--dry-run"),
        "verify.txt": say("verify", at),
        "board_with_details.md": details,
        "board.csv": say("leaderboard", at, "--format=csv"),
        "show.txt": say("show", "knowledge/rmu#0", at),
        "items.txt": say("items", "knowledge/rmu#0", "wmdp", "--flipped", "--most=3", at),
        "compare.txt": say("compare", "knowledge/uld#0", "knowledge/cosine_meta_rmu#0", at, status=2),
    }
    large = {
        "manifests.json": manifests,
        "records.csv": load_records("store").to_csv(index=False, lineterminator="\n"),
        "board.json": read(store / "leaderboards" / "micro.json"),
        "report.md": read(Path("report.md")),
        "report.html": read(store / "reports" / "micro.html"),
        "figures.svg": "".join(map(read, sorted(Path().rglob("*.svg")))),
    }
    return texts, large


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def difference(name: str, found: str, golden: str) -> str:
    """Return the first lines in which a text differs from the golden one."""
    told = difflib.unified_diff(golden.splitlines(), found.splitlines(), f"golden/{name}", "now", lineterm="", n=0)
    return "\n".join(line if len(line) < 400 else f"{line[:400]}…" for line in list(told)[:20])


def sums(texts: dict[str, str]) -> str:
    """Return the sha256 of each text, a line each."""
    return "".join(f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n" for name, text in texts.items())


def test_what_is_read_from_a_store_keeps_its_bytes(fixed, root: Path, tmp_path: Path) -> None:
    texts, large = artefacts()
    assert " 0 remain." in texts["dry_run.txt"]
    assert "Nothing is damaged, nothing is lacking.\n" in texts["verify.txt"]
    texts["sha256.txt"] = sums(large)
    for name, text in {**texts, **large}.items():
        (tmp_path / "now" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "now" / name).write_text(text, encoding="utf-8", newline="\n")
    if REWRITE:
        GOLDEN.mkdir(parents=True, exist_ok=True)
        for name in texts:
            (GOLDEN / name).write_bytes((tmp_path / "now" / name).read_bytes())
    golden = {name: (GOLDEN / name).read_text(encoding="utf-8") for name in texts}
    if importlib.metadata.version("matplotlib") != pinned("matplotlib", root):
        golden["sha256.txt"], texts["sha256.txt"] = map(without_figures, (golden["sha256.txt"], texts["sha256.txt"]))
    differ = [difference(name, texts[name], golden[name]) for name in texts if texts[name] != golden[name]]
    assert not differ, "\n\n".join(
        [f"What is read from a store of fixed content changed; it now lies in {tmp_path / 'now'}.", *differ, MEANT]
    )


def pinned(package: str, root: Path) -> str | None:
    """Return the version of a package that constraints.txt names."""
    found = re.search(rf"^{package}==(.+)$", (root / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    return found and found[1]


def without_figures(listed: str) -> str:
    """Return the sums of what holds no figure: those are drawn otherwise by other versions of matplotlib."""
    return "".join(line for line in listed.splitlines(True) if not line.rstrip().endswith((".html", ".svg")))
