"""A store of thousands of cells that nobody trained: drawn records and texts, as a real run would leave them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.planning.plan import Plan
from unlearn_bench.harness.planning.request import Request
from unlearn_bench.harness.records import Generations, Record, to_row
from unlearn_bench.harness.store.entries import Store
from unlearn_bench.harness.store.files import write_jsonl

SUITE = "extends: micro\nname: many\nvariants: {{knowledge: {0}, toxicity: {0}}}\n"
TEXTS = 20
"""Sets of continuations that are drawn; cells share them."""


@dataclass(frozen=True)
class Simulated:
    """A plan on both tracks of `micro`, its suite file and what was asked for."""

    plan: Plan
    suite: Path
    request: Request

    @classmethod
    def planned(cls, folder: Path, variants: int, seeds: int, limit: int) -> Simulated:
        """Plan `variants` of one method with `seeds` each: 2 x variants x seeds cells, noise of each, the base."""
        named = ", ".join(f"v{i:03}: {{method: rmu, settings: {{alpha: {i + 1}}}}}" for i in range(variants))
        path = folder / "many.yaml"
        path.write_text(SUITE.format(f"{{{named}}}"), encoding="utf-8")
        names = tuple(f"v{i:03}" for i in range(variants))
        request = Request(suite=str(path), methods=names, seeds=tuple(range(seeds)), limit=limit)
        return cls(make_plan(request, None), path, request)

    @property
    def arguments(self) -> list[str]:
        """What `unlearn-bench evaluate` takes for the same plan."""
        asked = self.request
        names, seeds = ",".join(asked.methods), ",".join(map(str, asked.seeds))
        return [f"--suite={self.suite}", f"--methods={names}", f"--seeds={seeds}", f"--limit={asked.limit}"]

    def finish(self, root: Path) -> Store:
        """Fill a new store with what measuring every cell on every task leaves; nothing is flushed to disk."""
        with mock.patch("os.fsync"):
            return self._fill(Store.create(root))

    def _fill(self, store: Store) -> Store:
        plan, rng = self.plan, np.random.default_rng(0)
        longest = max(task.count for task in plan.tasks.values())
        texts = [[_said(i, rng) for i in range(longest)] for _ in range(TEXTS)]
        for number, cell in enumerate(plan.cells):
            delta = "base"
            if cell.spec.variant != "base":
                delta = f"delta {number}"
                store.entry("cells", cell.id).commit({}, {"delta": delta, "summary": {}})
            for task in plan.tasks_of(cell).values():
                outcome = task.outcome(plan.models[cell.model], delta, plan.engine)
                rows = [_record(i, task.judged, rng) for i in range(task.count)]
                said = texts[number % TEXTS][: task.count] if task.judged else []
                for entry, name, lines in (
                    (store.entry("records", task.record(outcome).id), "records.jsonl", rows),
                    (store.entry("outcomes", outcome.id), "outcomes.jsonl", said),
                ):
                    entry.commit({name: partial(write_jsonl, rows=lines)}, {})
        plan.save(store)
        return store


def _record(i: int, judged: bool, rng: np.random.Generator) -> dict:
    draw = float(rng.random())
    scores = {"toxicity_rate": round(draw * 5) / 5, "max_toxicity": draw, "any_toxic": float(draw > 0.5)}
    if not judged:
        scores = {"acc": float(draw < 0.5), "probability": draw, "position": float(int(draw * 4))}
    return to_row(Record(f"item-{i:05}", f"cluster-{i // 3}", f"subject-{i % 6}", scores, None, {"truncated": 0.0}))


def _said(i: int, rng: np.random.Generator) -> dict:
    texts = [" ".join(f"word{j}" for j in rng.integers(1000, size=12)) for _ in range(5)]
    return to_row(Generations(f"item-{i:05}", texts, [16] * 5, [False] * 5, [-30.0] * 5))
