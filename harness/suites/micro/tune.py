"""Settings for the suite's methods: random search with the same budget for each, on validation items only.

    python -m unlearn_bench.harness.suites.micro.tune --store FOLDER [--trials 16]

A trial is a full training scored by S-unlearning on validation questions and prompts, which share no fact with the
reported ones. Every method gets the same number of trials and steps, and the same ranges of what methods share; all
trials go to `tuning.json`. The best of each method and track is printed as the `variants` of `suite.yaml`: the highest
S-unlearning among trials of which at most a tenth of the answers to the forget task is broken (gibberish, empty,
repetitive or tied), since S credits a model that can no longer speak.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ....leaderboards.doubts import MANY, degenerate_share
from ...api import evaluate
from ...files import write_json
from ...planning import Request
from ...suite import SuiteSpec, VariantSpec, load_suite

LAYERS = (2, 3, 4, 5, 6, 7, 8)
LEARNING_RATE = (3e-4, 5e-3)
SPACES: dict[str, dict[str, tuple[Any, ...]]] = {
    "rmu": {"layer": LAYERS, "steering_coefficient": (1.0, 30.0), "alpha": (0.3, 300.0)},
    "adap_rmu": {"layer": LAYERS, "scale": (1.0, 10.0), "alpha": (0.3, 300.0)},
    "cosine_meta_rmu": {"layer": LAYERS, "alpha_0": (0.1, 100.0)},
    "multi_layer_probe": {"alpha_0": (0.1, 100.0)},
}
"""Choices are tuples of whole numbers; pairs of floats are ranges, drawn log-uniformly."""


def draw(rng: np.random.Generator, space: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
    """Draw one point of a search space, rounded to two significant digits."""
    return {key: _value(rng, values) for key, values in space.items()}


def _value(rng: np.random.Generator, values: tuple[Any, ...]) -> Any:
    if isinstance(values[0], int):
        return int(rng.choice(values))
    return float(f"{math.exp(rng.uniform(math.log(values[0]), math.log(values[1]))):.2g}")


def trials(method: str, track: str, count: int, seed: int = 0) -> list[VariantSpec]:
    """Return the trials of a method on a track: a pure function of (method, track, seed)."""
    rng = np.random.default_rng([seed, *method.encode(), *track.encode()])
    return [
        VariantSpec(
            method=method,
            settings=draw(rng, SPACES[method]),
            training=draw(rng, {"learning_rate": LEARNING_RATE}),
        )
        for _ in range(count)
    ]


def validation_suite(count: int) -> SuiteSpec:
    """Return the suite with validation items in place of the reported ones and the trials as its variants."""
    suite = load_suite("micro")
    tasks = {
        name: spec.model_copy(update={"data": spec.validation, "validation": None})
        for name, spec in suite.tasks.items()
    }
    variants = {
        track: {f"{method}-{i:02d}": t for method in SPACES for i, t in enumerate(trials(method, track, count))}
        for track in suite.tracks
    }
    return suite.model_copy(update={"name": "micro-validation", "tasks": tasks, "variants": variants})


def main() -> None:
    """Run every trial and print the best settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--store", type=Path, required=True, help="folder of the trials' store; finished ones are reused"
    )
    parser.add_argument("--trials", type=int, default=16, help="trials a method and track")
    asked = parser.parse_args()
    suite = validation_suite(asked.trials)
    result = evaluate(Request(suite=suite), output=asked.store)
    rows = [row for row in result.board.rows if row["variant"] not in ("base", "noise")]
    found = [_trial(suite, row) for row in rows]
    write_json(Path(__file__).with_name("tuning.json"), {"trials": asked.trials, "found": found})
    print(yaml.safe_dump({"variants": best(found)}, sort_keys=True))


def _trial(suite: SuiteSpec, row: Any) -> dict[str, Any]:
    variant = suite.variants[row["track"]][row["variant"]]
    values = {role: (row[role] or {}).get("value") for role in ("s_unlearning", "forget", "retain")}
    broken = round(degenerate_share(row), 6)
    return {"track": row["track"], "trial": row["variant"], **variant.identity(), **values, "broken": broken}


def best(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the trial with the highest S-unlearning of each track and method, in the form of `suite.yaml`.

    Trials with more than a tenth of their answers broken come last.
    """
    chosen: dict[str, dict[str, Any]] = {}
    for trial in sorted(found, key=lambda t: (t["broken"] > MANY, -(t["s_unlearning"] or 0.0), t["trial"])):
        keys = ("method", "settings", "training")
        chosen.setdefault(trial["track"], {}).setdefault(trial["method"], {key: trial[key] for key in keys})
    return chosen


if __name__ == "__main__":
    main()
