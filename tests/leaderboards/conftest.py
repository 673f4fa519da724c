"""A small synthetic world: records with clusters and strata, checkpoints, and the spec of a two-track board."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from unlearn_bench.harness.data.logs import read_log
from unlearn_bench.harness.records import Record
from unlearn_bench.leaderboards.spec import BoardSpec, Checkpoint, TaskInfo, TrackRoles
from unlearn_bench.tasks.realtoxicityprompts import RealToxicityPrompts

TASKS = {
    "wmdp": TaskInfo("wmdp", "acc", 0.25, "higher", 1, "facts of the forget text", chosen="position"),
    "mmlu": TaskInfo("mmlu", "acc", 0.25, "higher", 1, chosen="position"),
    "rtp": TaskInfo("rtp", "toxicity", 0.0, "lower", 2, marks=RealToxicityPrompts.marks),
    "chem": TaskInfo("chem", "acc", 0.25, "higher", 1, "a topic without forget text", chosen="position"),
}
TRACKS = {
    "knowledge": TrackRoles("wmdp", "mmlu", ("rtp",)),
    "toxicity": TrackRoles("rtp", "mmlu", ("wmdp",)),
}


def spec(**changes) -> BoardSpec:
    given = {
        "suite": "toy",
        "revision": 3,
        "description": "A toy.",
        "tracks": TRACKS,
        "tasks": TASKS,
        "resamples": 300,
        "margin": 0.05,
        "facts": {"scorer": "toy scorer"},
        "command": "unlearn-bench evaluate --suite toy",
    }
    return BoardSpec(**{**given, **changes})


def records(
    task: str, mean: float, *, key: str = "", n: int = 120, per: int = 3, marks=None, missing=()
) -> list[Record]:
    """Records whose items are as hard for every checkpoint, with a little noise of the checkpoint's own (`key`)."""
    hard = np.random.default_rng(zlib.crc32(task.encode())).permutation(n) / n
    own = np.random.default_rng(zlib.crc32(f"{task}{key}".encode())).uniform(-0.1, 0.1, n) if key else np.zeros(n)
    metric = TASKS[task].metric
    found = []
    for i in range(n):
        cluster = f"c{i // per}"
        stratum = f"s{i // per % 4}"
        if i in missing:
            found.append(Record(f"{task}-{i}", cluster, stratum, None, "scorer failed"))
            continue
        score = float(hard[i] + own[i] < mean)
        found.append(Record(f"{task}-{i}", cluster, stratum, {metric: score}, marks=marks or {}))
    return found


def checkpoint(
    variant: str,
    kind: str = "method",
    *,
    track: str | None = "knowledge",
    seed: int | None = 0,
    wmdp: float = 0.6,
    mmlu: float = 0.7,
    rtp: float = 0.5,
    chem: float | None = None,
    model: str = "tiny",
    key: str | None = None,
    marks=None,
    missing=(),
    **more,
) -> Checkpoint:
    key = f"{variant}{track}{seed}" if key is None else key
    means = {"wmdp": wmdp, "mmlu": mmlu, "rtp": rtp} | ({} if chem is None else {"chem": chem})
    measured = {
        task: records(
            task, mean, key=key, marks=marks if task == "rtp" else None, missing=missing if task == "mmlu" else ()
        )
        for task, mean in means.items()
    }
    if more.get("status", "ok") != "ok":
        measured = {}
    cell = f"{model}-{track}-{variant}-{seed}"
    return Checkpoint(model, track, variant.split("[")[0], variant, kind, seed, cell, records=measured, **more)


def base(**more) -> Checkpoint:
    return checkpoint("base", "base", **{"track": None, "seed": None, "wmdp": 0.65, **more})


def noise(of: Checkpoint, **more) -> Checkpoint:
    """Noise of a checkpoint's own norm."""
    given = {"wmdp": 0.62, "mmlu": 0.68, "model": of.model, **more}
    made = checkpoint(f"noise({of.variant})", "noise", track=of.track, seed=of.seed, **given)
    return replace(made, beside="noise", of=of.cell)


def replica(of: Checkpoint, **more) -> Checkpoint:
    """The same training once more, from weights a hair apart."""
    made = checkpoint(f"replica({of.variant})", track=of.track, seed=of.seed, **more)
    return replace(made, method=of.method, beside="replica", of=of.cell)


def noised(*cells: Checkpoint, **more) -> list[Checkpoint]:
    """Checkpoints, each with its own noise."""
    return [each for cell in cells for each in (cell, noise(cell, **more))]


def seeded(variant: str, seeds: int = 3, **more) -> list[Checkpoint]:
    """A method of several training seeds, each with its own noise."""
    return noised(*(checkpoint(variant, seed=seed, **more) for seed in range(seeds)))


def row_of(board, variant: str, track: str = "knowledge"):
    return next(row for row in board.rows if row["variant"] == variant and row["track"] == track)


@pytest.fixture(scope="session")
def toy() -> SimpleNamespace:
    return SimpleNamespace(
        spec=spec,
        records=records,
        checkpoint=checkpoint,
        base=base,
        noise=noise,
        noised=noised,
        replica=replica,
        seeded=seeded,
        row_of=row_of,
        tasks=TASKS,
    )


@pytest.fixture(scope="module")
def published(golden: Path) -> dict[str, Any]:
    """What OpenUnlearning wrote into its log as the values of its metrics."""
    log = json.loads((golden / "openunlearning" / "TOFU_EVAL.json").read_text())
    return {name: metric["agg_value"] for name, metric in log.items()}


@pytest.fixture(scope="module")
def evaluated(golden: Path) -> dict[str, list[Record]]:
    return read_log(golden / "openunlearning" / "TOFU_EVAL.json")
