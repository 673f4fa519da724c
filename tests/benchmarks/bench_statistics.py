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
from simulated import Simulated
from unlearn_bench.harness.results.board import board_of
from unlearn_bench.leaderboards.rows.resampling import Resamples
from unlearn_bench.leaderboards.spec import BoardSpec, Checkpoint, TaskInfo, TrackRoles
from unlearn_bench.leaderboards.stats.arrays import ScoreMatrix
from unlearn_bench.leaderboards.stats.simultaneous import against, rank_intervals

ITEMS = {"wmdp": (3000, 3), "rtp": (1000, 1), "mmlu": (13000, 57)}
"""Items and strata of each task: 17,000 items, the retain task in the 57 subjects of MMLU."""
METHODS = 20
RESAMPLES = 10_000


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
    evidence = Resamples.of_tables(spec, cells, tables)
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
        pairs = [(row, rival) for row in rows[2:] for rival in rows[:2]]
        against(pairs, spec.confidence, evidence.freedom(s))
    whole = time.process_time() - started
    print(
        f"{RESAMPLES:,} resamples, {METHODS} methods x 2 tracks, {sum(n for n, _ in ITEMS.values()):,} items: "
        f"{drawn:.1f} s drawing, {whole:.1f} s in all, {_peak():.2f} GB at most"
    )


def _table(n: int, strata: int, columns: int, rng: np.random.Generator) -> ScoreMatrix:
    codes = np.sort(rng.integers(strata, size=n))
    hard = rng.random((n, 1))
    values = (0.7 * hard + 0.3 * rng.random((n, columns)) < 0.5).astype(float)
    names = tuple(f"s{code:02}" for code in range(strata))
    return ScoreMatrix(tuple(f"{i:05}" for i in range(n)), values, np.arange(n), codes, names)


def board(variants: int = 100, seeds: int = 5, limit: int = 250) -> None:
    """Print the time of a board of 1,000 micro cells: 100 variants, 5 seeds, two tracks, 250 items a task."""
    with tempfile.TemporaryDirectory() as folder:
        simulated = Simulated.planned(Path(folder), variants, seeds, limit)
        plan, store = simulated.plan, simulated.finish(Path(folder) / "store")
        started = time.process_time()
        found = board_of(plan, store)
        built = time.process_time() - started
        size = len(found.to_json()) + len(found.to_markdown(details=True)) + len(found.to_csv())
        whole = time.process_time() - started
        print(
            f"a board of {len(plan.cells):,} cells x {sum(task.count for task in plan.tasks.values())} items from "
            f"records: {built:.1f} s, with its texts ({size / 1e6:.1f} MB) {whole:.1f} s, {_peak():.2f} GB at most"
        )


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


PARTS: dict[str, Callable[[], None]] = {"resampling": resampling, "board": board}


def main(arguments: Sequence[str]) -> None:
    """Run what is named, or all."""
    for name in arguments or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
