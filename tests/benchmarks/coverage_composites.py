"""How often the intervals of composites hold the truth, in worlds whose truth is known.

    python tests/benchmarks/coverage_composites.py [--worlds 400] [--items 100 400] [--per 1 5]

Scores of items are normal, with half of their variance shared by the items of a cluster and, of the forget items, 0.7
between the unlearned and the retrained model. A world asks the board; the truths are those of the two normal laws.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from scipy.stats import norm
from tabulate import tabulate
from unlearn_bench.harness.records import Record
from unlearn_bench.leaderboards.board import build_board
from unlearn_bench.leaderboards.spec import BoardSpec, Checkpoint, TaskInfo, TrackRoles
from unlearn_bench.leaderboards.stats.composite import Composite

SHIFTS = {"alike": 0.0, "near": 0.3, "far": 1.0}
"""How far the unlearned model's forget scores lie below the retrained one's, in standard deviations."""
COMPOSITES = {
    "D (ks)": Composite("ks", ["forget.x", "forget.x"]),
    "AUC": Composite("auc", ["forget.x", "holdout.x"]),
    "privleak": Composite("privleak", ["AUC", "AUC"]),
    "likeness": Composite("likeness", ["AUC", "AUC"]),
    "harmonic mean": Composite("harmonic_mean", ["forget.p", "holdout.p", "AUC"]),
}
SLACK = {"likeness": 0.01}
"""How far beside an interval the truth still counts. Resamples of 1 - |difference| never reach a truth of 1: counted
without slack, intervals of models that are alike hold it in no world."""
TASKS = {name: TaskInfo(name, "x", 0.0, "higher", 1, largest=None) for name in ("forget", "holdout")}


def truths(shift: float) -> dict[str, float]:
    """Return what the composites are of N(-shift, 1) against N(0, 1), N(0, 1) for the holdout items."""
    auc, mean = float(norm.cdf(shift / math.sqrt(2))), float(norm.cdf(-shift / math.sqrt(2)))
    return {
        "D (ks)": 2 * float(norm.cdf(shift / 2)) - 1,
        "AUC": auc,
        "privleak": 100 * ((1 - auc) - 0.5) / 0.5,
        "likeness": max(0.0, 1 - abs(auc - 0.5) / 0.5),
        "harmonic mean": 3 / (1 / mean + 1 / 0.5 + 1 / auc),
    }


def scores(rng: np.random.Generator, items: int, per: int, shared: float) -> np.ndarray:
    """Draw the scores of two models [items, 2], N(0, 1) each, correlated by `shared`."""
    clusters = rng.standard_normal((math.ceil(items / per), 3)).repeat(per, axis=0)[:items]
    whole = (clusters + rng.standard_normal((items, 3))) / math.sqrt(2) if per > 1 else rng.standard_normal((items, 3))
    return math.sqrt(shared) * whole[:, :1] + math.sqrt(1 - shared) * whole[:, 1:]


def world(rng: np.random.Generator, items: int, per: int, shift: float) -> list[Checkpoint]:
    """Draw an unlearned and a retrained model's records."""
    forget, holdout = scores(rng, items, per, 0.7), scores(rng, items, per, 0.7)
    forget[:, 0] -= shift

    def records(values: np.ndarray) -> list[Record]:
        return [
            Record(f"i{i:04}", f"c{i // per:04}", "", {"x": float(x), "p": float(norm.cdf(x))})
            for i, x in enumerate(values)
        ]

    return [
        Checkpoint(
            "m", "t", name, name, kind, None, name, records={"forget": records(f), "holdout": records(h)}, role=role
        )
        for name, kind, role, f, h in (
            ("u", "import", None, forget[:, 0], holdout[:, 0]),
            ("r", "reference", "retain", forget[:, 1], holdout[:, 1]),
        )
    ]


def covered(rng: np.random.Generator, items: int, per: int, shift: float, worlds: int) -> dict[str, list[float]]:
    """Return of each composite the share of worlds whose interval holds the truth, and the mean width."""
    spec = BoardSpec("s", 1, "", {"t": TrackRoles("forget", "holdout")}, TASKS, resamples=500, composites=COMPOSITES)
    found: dict[str, list[tuple[bool, float]]] = {name: [] for name in COMPOSITES}
    for _ in range(worlds):
        (table,) = build_board(spec, world(rng, items, per, shift)).composites
        values = next(row["values"] for row in table["rows"] if row["variant"] == "u")
        for name, truth in truths(shift).items():
            value = values[name]["value"]
            if value is None or value["low"] is None or value["high"] is None:
                raise SystemExit(f"{name} has no interval")
            slack = SLACK.get(name, 1e-6)
            holds = value["low"] - slack <= truth <= value["high"] + slack
            found[name].append((holds, value["high"] - value["low"]))
    return {name: [float(np.mean([one[k] for one in pairs])) for k in (0, 1)] for name, pairs in found.items()}


def main() -> None:
    """Print a table: a line a setting, a column a composite."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=400)
    parser.add_argument("--items", type=int, nargs="+", default=[100, 400])
    parser.add_argument("--per", type=int, nargs="+", default=[1, 5])
    asked = parser.parse_args()
    rng, rows = np.random.default_rng(0), []
    for items in asked.items:
        for per in asked.per:
            for name, shift in SHIFTS.items():
                shares = covered(rng, items, per, shift, asked.worlds)
                rows.append([items, per, name, *(f"{share:.1%}, {width:.3g}" for share, width in shares.values())])
    print(tabulate(rows, ["items", "a cluster", "models", *COMPOSITES], tablefmt="pipe"))


if __name__ == "__main__":
    main()
