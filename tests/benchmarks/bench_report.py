"""What a report of a store of 200 cells costs: seconds and size. The cells are copies of a small real run's.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_report.py [LIMIT]

A method is trained on both tracks of the embedded suite and measured on LIMIT items a task (default 250). Its
answers, scores and training log stand in for those of 32 variants, three seeds each, a few scores of each turned.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from unlearn_bench.harness.api import evaluate
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.planning.plan import Plan
from unlearn_bench.harness.planning.request import Request
from unlearn_bench.harness.planning.status import status_of
from unlearn_bench.harness.results.report import report
from unlearn_bench.harness.store.entries import Entry, Store
from unlearn_bench.harness.store.files import read_jsonl, write_jsonl

SUITE = "extends: micro\nname: many\nvariants: {{knowledge: {0}, toxicity: {0}}}\n"
VARIANTS, SEEDS = 32, (0, 1, 2)


def main(limit: int = 250) -> None:
    """Print the time and size of the HTML report."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        donor = Request(methods=("rmu",), limit=limit, settings=("training.steps=30",))
        evaluate(donor, output=folder / "donor")
        names = tuple(f"v{number:02}" for number in range(VARIANTS))
        given = ", ".join(f"{each}: {{method: rmu, settings: {{alpha: {n + 1}}}}}" for n, each in enumerate(names))
        suite = folder / "many.yaml"
        suite.write_text(SUITE.format(f"{{{given}}}"), encoding="utf-8")
        plan = make_plan(Request(suite=str(suite), methods=names, seeds=SEEDS, limit=limit), None)
        store = Store.create(folder / "many")
        _fill(plan, store, Store.open(folder / "donor"))
        plan.save(store)
        for ending in ("html", "md"):
            started = time.perf_counter()
            report([store.root], folder / ending / f"report.{ending}")
            seconds = time.perf_counter() - started
            size = sum(path.stat().st_size for path in (folder / ending).rglob("*") if path.is_file()) / 1e6
            print(
                f"{ending}: {len(plan.cells)} cells x {limit} items a task: {seconds:.1f} s, {size:.1f} MB", flush=True
            )


def _fill(plan: Plan, store: Store, donor: Store) -> None:
    """Give every cell of a plan the answers of the donor's cell of its kind and track."""
    rng = np.random.default_rng(0)
    held = Plan.load(donor)
    states = [status_of(held, cell, donor) for cell in held.cells]
    given = {(state.cell.spec.origin, state.cell.spec.track): state for state in states}
    for number, cell in enumerate(plan.cells):
        source = given[cell.spec.origin, cell.spec.track]
        delta = "base"
        if cell.spec.transform != "base":
            made = donor.entry("cells", source.cell.id)
            delta = f"delta {number}"
            log = {"training.jsonl": _copy(made.file("training.jsonl"))} if cell.spec.transform == "train" else {}
            store.entry("cells", cell.id).commit(log, {"delta": delta, **_recorded(made)})
        for name, entry in source.records.items():
            outcome = plan.tasks[name].outcome(plan.models[cell.model], delta, plan.engine)
            record = plan.tasks[name].record(outcome)
            rows = [_turned(row, rng) for row in read_jsonl(entry.file("records.jsonl"))]
            store.entry("records", record.id).commit({"records.jsonl": partial(write_jsonl, rows=rows)}, {})
            answers = source.outcomes[name]
            written = {"outcomes.jsonl": _copy(answers.file("outcomes.jsonl"))}
            store.entry("outcomes", outcome.id).commit(written, _recorded(answers))


def _recorded(entry: Entry) -> dict[str, Any]:
    return {"recorded": (entry.manifest() or {}).get("recorded", {})}


def _copy(path: Path) -> Callable[[Path], object]:
    return lambda to: to.write_bytes(path.read_bytes())


def _turned(row: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Return a record whose answer is turned with a chance of a twentieth."""
    if "acc" not in (row["scores"] or {}) or rng.random() > 0.05:
        return row
    return {**row, "scores": {**row["scores"], "acc": 1 - row["scores"]["acc"]}}


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
