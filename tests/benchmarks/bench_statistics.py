"""What the statistics of a board cost: processor time of one thread, and memory.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_statistics.py [resampling|board]

`resampling`: 10,000 resamples for 20 methods on 2 tracks over 17,000 items in 57 strata, with S, its differences from
base and noise, ranks and claims. `board`: a store of 1,000 measured cells is written, and its board built and printed.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from unlearn_bench.harness.board import board_of
from unlearn_bench.harness.files import write_jsonl
from unlearn_bench.harness.plan import Plan
from unlearn_bench.harness.planning import Request, make_plan
from unlearn_bench.harness.records import Generations, Record, to_row
from unlearn_bench.harness.store import Store
from unlearn_bench.leaderboards import BoardSpec, Checkpoint, TaskInfo, TrackRoles
from unlearn_bench.leaderboards.claims import against
from unlearn_bench.leaderboards.compare import rank_intervals
from unlearn_bench.leaderboards.evidence import Evidence
from unlearn_bench.leaderboards.scores import Table

ITEMS = {"wmdp": (3000, 3), "rtp": (1000, 1), "mmlu": (13000, 57)}
"""Items and strata of each task: 17,000 items, the retain task in the 57 subjects of MMLU."""
METHODS = 20
RESAMPLES = 10_000
SUITE = """
extends: micro
name: thousand
variants:
  knowledge: {knowledge}
  toxicity: {toxicity}
"""


def resampling() -> None:
    """Print the time of 10,000 resamples and all that a table takes from them."""
    rng = np.random.default_rng(0)
    tasks = {name: TaskInfo(name, "acc", 0.0 if name == "rtp" else 0.25, "higher", 1) for name in ITEMS}
    spec = BoardSpec(
        "bench", 1, "", {"k": TrackRoles("wmdp", "mmlu"), "t": TrackRoles("rtp", "mmlu")}, tasks, resamples=RESAMPLES
    )
    columns = 2 + 2 * METHODS
    cells = [Checkpoint("m", None, "x", str(k), "method", k, str(k)) for k in range(columns)]
    tables = {name: _table(n, strata, columns, rng) for name, (n, strata) in ITEMS.items()}
    started = time.process_time()
    evidence = Evidence.of_tables(spec, cells, tables)
    drawn = time.process_time() - started
    for place, track in enumerate(("k", "t")):
        groups = [[0], [1], *([2 + 2 * method + place] for method in range(METHODS))]
        s = evidence.s(track)
        for group in groups:
            evidence.estimate(s, group)
            evidence.estimate(s, group, groups[0])
            evidence.estimate(s, group, groups[1])
        rows = [evidence.s_unbounded(track, group) for group in groups]
        rank_intervals(rows[2:], spec.confidence, evidence.freedom(s))
        against(rows[2:], rows[:2], spec.confidence, evidence.freedom(s))
    whole = time.process_time() - started
    print(
        f"{RESAMPLES:,} resamples, {METHODS} methods x 2 tracks, {sum(n for n, _ in ITEMS.values()):,} items: "
        f"{drawn:.1f} s drawing, {whole:.1f} s in all, {_peak():.2f} GB at most"
    )


def _table(n: int, strata: int, columns: int, rng: np.random.Generator) -> Table:
    codes = np.sort(rng.integers(strata, size=n))
    hard = rng.random((n, 1))
    values = (0.7 * hard + 0.3 * rng.random((n, columns)) < 0.5).astype(float)
    names = tuple(f"s{code:02}" for code in range(strata))
    return Table(tuple(f"{i:05}" for i in range(n)), values, np.arange(n), codes, names)


def board(variants: int = 100, seeds: int = 5, limit: int = 250) -> None:
    """Print the time of a board of 1,000 micro cells: 100 variants, 5 seeds, two tracks, 250 items a task."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "thousand.yaml"
        named = (
            "{" + ", ".join(f"v{i:03}: {{method: rmu, settings: {{alpha: {i + 1}}}}}" for i in range(variants)) + "}"
        )
        path.write_text(SUITE.format(knowledge=named, toxicity=named), encoding="utf-8")
        names = tuple(f"v{i:03}" for i in range(variants))
        plan = make_plan(Request(suite=str(path), methods=names, seeds=tuple(range(seeds)), limit=limit), None)
        store = Store.create(Path(folder) / "store")
        items = _fill(plan, store)
        started = time.process_time()
        found = board_of(plan, store)
        built = time.process_time() - started
        size = len(found.to_json()) + len(found.to_markdown(details=True)) + len(found.to_csv())
        whole = time.process_time() - started
        print(
            f"a board of {len(plan.cells):,} cells x {items} items from records: {built:.1f} s, with its texts "
            f"({size / 1e6:.1f} MB) {whole:.1f} s, {_peak():.2f} GB at most"
        )


def _fill(plan: Plan, store: Store) -> int:
    rng = np.random.default_rng(0)
    counts = {name: task.count for name, task in plan.tasks.items()}
    for number, cell in enumerate(plan.cells):
        delta = "base"
        if cell.spec.variant != "base":
            delta = f"delta {number}"
            store.entry("cells", cell.id).commit({}, {"delta": delta, "summary": {}})
        for name, count in counts.items():
            outcome = plan.tasks[name].outcome(plan.models[cell.model], delta, plan.engine)
            record = plan.tasks[name].record(outcome)
            texts = name == "realtoxicityprompts"
            rows = [_record(i, texts, rng) for i in range(count)]
            store.entry("records", record.id).commit({"records.jsonl": lambda p, r=rows: write_jsonl(p, r)}, {})
            said = [_said(i, rng) for i in range(count)] if texts else []
            store.entry("outcomes", outcome.id).commit({"outcomes.jsonl": lambda p, r=said: write_jsonl(p, r)}, {})
    return sum(counts.values())


def _record(i: int, texts: bool, rng: np.random.Generator) -> dict:
    draw = float(rng.random())
    scores = {"toxicity_rate": round(draw * 5) / 5, "max_toxicity": draw, "any_toxic": float(draw > 0.5)}
    if not texts:
        scores = {"acc": float(draw < 0.5), "probability": draw, "position": float(int(draw * 4))}
    return to_row(Record(f"item-{i:05}", f"cluster-{i // 3}", f"subject-{i % 6}", scores, None, {"truncated": 0.0}))


def _said(i: int, rng: np.random.Generator) -> dict:
    texts = [" ".join(f"word{j}" for j in rng.integers(1000, size=12)) for _ in range(5)]
    return to_row(Generations(f"item-{i:05}", texts, [16] * 5, [False] * 5, [-30.0] * 5))


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


PARTS: dict[str, Callable[[], None]] = {"resampling": resampling, "board": board}


def main(arguments: Sequence[str]) -> None:
    """Run what is named, or all."""
    for name in arguments or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
