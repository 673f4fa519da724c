"""A small report's content without a store: a board of made-up records, logs, costs and items."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from unlearn_bench.harness.records import Record
from unlearn_bench.leaderboards.board import build_board
from unlearn_bench.leaderboards.spec import BoardSpec, Checkpoint, Published, TaskInfo, TrackRoles
from unlearn_bench.reports.data import (
    Cell,
    CheckpointAnswer,
    Content,
    Continuation,
    Items,
    MeasuredCost,
    OpenQuestion,
    PromptSample,
    Question,
    Run,
)

NASTY = (
    "</code></bdi></script><script>document.title='owned'</script><img src=https://evil.example/x onerror=alert(1)>"
    " **bold** [link](https://evil.example) `tick` ``two`` | cell | <!-- --> &lt; {{ 7*7 }} # no heading"
    " \u202eright to left\u202c \x00\x07\x1b[31m \ud800 \u200b \u2028 @someone www.evil.example ```\nfence"
)
HIDDEN = ("\u202e", "\u202c", "\x00", "\x07", "\x1b", "\ud800", "\u200b", "\u2028")
SPEC = BoardSpec(
    suite="toy",
    revision=1,
    description="",
    tracks={"knowledge": TrackRoles("wmdp", "mmlu"), "toxicity": TrackRoles("rtp", "mmlu")},
    tasks={
        "wmdp": TaskInfo("wmdp", "acc", 0.25, "higher", 1),
        "mmlu": TaskInfo("mmlu", "acc", 0.25, "higher", 1),
        "rtp": TaskInfo("rtp", "toxicity_rate", 0.0, "lower", 1),
    },
    resamples=200,
    command="unlearn-bench evaluate --suite toy.yaml",
    published=Published("a paper", {"tiny": {"knowledge": {"rmu": 0.41}}}),
)
LOG = {
    "step": "other",
    "forget": "loss",
    "retain": "loss",
    "total": "total",
    "alpha": "weight",
    "forget_layer_{layer}": "layer_loss",
    "probes": "directions",
}
RIGHT = {"base": (150, 160, 90), "noise": (148, 158, 92), "rmu": (70, 158, 60), "adap": (120, 158, 30)}


def _records(task: str, metric: str, right: int) -> list[Record]:
    order = np.random.default_rng(len(task)).permutation(200)
    return [Record(f"{task}-{i}", f"c{i}", f"s{i % 4}", {metric: float(order[i] < right)}) for i in range(200)]


def checkpoint(variant: str, track: str | None, **more) -> Checkpoint:
    wmdp, mmlu, rtp = RIGHT.get(variant, (100, 150, 50))
    records = {
        "wmdp": _records("wmdp", "acc", wmdp),
        "mmlu": _records("mmlu", "acc", mmlu),
        "rtp": _records("rtp", "toxicity_rate", rtp),
    }
    kind = variant if variant in ("base", "noise") else "method"
    seed = None if kind == "base" else 0
    method = variant.partition("[")[0]
    made = Checkpoint("tiny", track, method, variant, kind, seed, f"{variant}-{track}", records=records)
    return replace(made, **more)


def noise(of: Checkpoint, **more) -> Checkpoint:
    """Noise of a checkpoint's own norm."""
    made = checkpoint("noise", of.track, seed=of.seed, **more)
    return replace(made, variant=f"noise({of.variant})", cell=f"noise-{of.cell}", beside="noise", of=of.cell)


def noised(*cells: Checkpoint) -> list[Checkpoint]:
    """Checkpoints, each with its own noise."""
    return [each for one in cells for each in (one, noise(one))]


def cell(made: Checkpoint) -> Cell:
    steps = [
        {"step": i, "forget": 5.0 / (i + 1), "retain": 0.1 * i, "total": 5.0, "alpha": 1 + i % 3} for i in range(30)
    ]
    state = {"ok": "finished", "failed": "failed", "pending": "not finished"}[made.status]
    return Cell(
        model=made.model,
        track=made.track,
        variant=made.variant,
        seed=made.seed,
        id=made.cell,
        label=f"{made.track}/{made.variant}#0",
        kind=made.kind,
        state=state,
        cause=made.failure,
        costs=[MeasuredCost("training", 12.5, 640, None, 2048)] if state == "finished" else [],
        training=steps if made.kind == "method" and state == "finished" else (),
        log_schema=LOG,
    )


def sample(item: str, text: str, toxicity: float | None, prompt_toxicity: float | None = 0.0) -> PromptSample:
    scores = None if toxicity is None else {"max_toxicity": toxicity}
    texts = [Continuation.of(text, toxicity), Continuation.of(f"mild words after {item}", 0.02)]
    return PromptSample(item, "all", f"prompt of {item}", prompt_toxicity, texts, scores, None, {})


@pytest.fixture(scope="session")
def run() -> Run:
    """Two tracks, two methods with their noise, base and a null, all measured; items with a text of every danger."""
    made = [checkpoint("base", None), checkpoint("constant", None, kind="null", seed=None)]
    made += noised(*(checkpoint(variant, track) for track in SPEC.tracks for variant in ("rmu", "adap")))
    questions = [
        Question("q-1", "s1", f"What is {NASTY}?", ["one", NASTY, "three", "four"], 0, 0, 1, False),
        Question("q-2", "s2", "What is a plain question?", ["w", "x", "y", "z"], 3, 1, 3, True),
    ]
    samples = [
        sample("p-calm", f"calm {NASTY}", 0.1),
        sample("p-toxic", "a toxic continuation", 0.93),
        sample("p-unscored", "an unscored continuation", None, None),
    ]
    items = [
        Items("tiny", "knowledge/rmu#0", "knowledge", "wmdp", "questions", 200, 2, 1, questions),
        Items("tiny", "toxicity/rmu#0", "toxicity", "rtp", "samples", 3, 3, 0, samples),
    ]
    return Run("store", build_board(SPEC, made), [cell(each) for each in made], items, {"command": SPEC.command})


@pytest.fixture(scope="session")
def content(run: Run) -> Content:
    return Content("0.1.0", [run])


@pytest.fixture(scope="session")
def answered(run: Run) -> Content:
    """Questions with right answers, written freely and given, with texts of every danger; without data too."""
    written = [
        CheckpointAnswer("base", [f"It is {NASTY}."], [], {"rougeL_recall": 0.25}, None),
        CheckpointAnswer("knowledge/rmu#0", ["", "a", "b", "c", "d" * 3000], [], None, "no answer was <b>given</b>"),
    ]
    given = [
        CheckpointAnswer("base", [], [0.5, 2e-7, None], {"prob": 0.5, "truth_ratio": 4e-7}, None),
        CheckpointAnswer("knowledge/rmu#0", [], [], None, "not measured"),
    ]
    texts = [("right", f"The answer {NASTY}"), ("wrong", "An error"), ("wrong", "Another")]
    items = [
        Items(
            "tiny",
            "2 checkpoints",
            None,
            "open",
            "answers",
            9,
            9,
            0,
            [
                OpenQuestion("o-1", "s1", f"What is {NASTY}?", texts[:1], written),
            ],
        ),
        Items(
            "tiny",
            "2 checkpoints",
            None,
            "given",
            "answers",
            9,
            9,
            0,
            [
                OpenQuestion("g-1", "s1", "What is plain?", texts, given),
                OpenQuestion("g-2", "s1", None, [], given),
            ],
        ),
    ]
    return Content("0.1.0", [replace(run, items=items)])


LAYER_SETS = ([0], [4], [8], [0, 1, 2], [6, 7, 8], [2, 4, 6], [0, 1, 2, 3, 4, 5, 6, 7, 8])


def probed(made: Checkpoint, layers: list[int]) -> Cell:
    """Return the cell of a checkpoint whose log describes probes at some layers."""
    steps = [{"step": i, "forget": 1.0, **{f"forget_layer_{k}": (k + 1) / (i + 1) for k in layers}} for i in range(40)]
    cosines = [[1.0 if i == j else -0.5 / (1 + abs(i - j)) for j in layers] for i in layers]
    probes = {
        "layers": layers,
        "cosines": cosines,
        "edges": [-4, -2, 0, 2, 4],
        "counts": [[2, 30, 31, 1]] * len(layers),
    }
    settings = json.dumps({"method": made.method, "settings": {"layers": layers, "probe_c": 1.0}})
    return replace(cell(made), settings=settings, training=steps, setup={"probes": probes})


@pytest.fixture(scope="session")
def swept() -> Content:
    """A method of seven layer sets on toxicity, and one of three strengths on knowledge that keeps its utility."""
    probes = {f"probe[layers=[{','.join(map(str, layers))}]]": layers for layers in LAYER_SETS}
    made = [checkpoint("base", None)]
    swept = [checkpoint(variant, "toxicity") for variant in probes]
    strengths = []
    for place, (wmdp, mmlu) in enumerate(((140, 160), (80, 159), (60, 120))):
        records = {"wmdp": _records("wmdp", "acc", wmdp), "mmlu": _records("mmlu", "acc", mmlu)}
        strengths.append(checkpoint(f"rmu[alpha={place}]", "knowledge", records=records))
    cells = [*map(cell, [*made, *strengths]), *map(probed, swept, probes.values())]
    return Content("0.1.0", [Run("store", build_board(SPEC, [*made, *noised(*strengths), *swept]), cells, [], {})])


@pytest.fixture(scope="session")
def many() -> Content:
    """Twelve methods with long names on one track, close to one another."""
    made = [checkpoint("base", None)]
    for place in range(12):
        records = {"wmdp": _records("wmdp", "acc", 100 + 2 * place), "mmlu": _records("mmlu", "acc", 150 + place)}
        made += noised(checkpoint(f"method_with_a_long_name_{place}", "knowledge", records=records))
    return Content("0.1.0", [Run("store", build_board(SPEC, made), list(map(cell, made)), [], {})])
