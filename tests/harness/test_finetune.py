"""Plain fine-tuning makes a checkpoint, and a method starts from it; changes are told from the base."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from unlearn_bench.harness import Request
from unlearn_bench.harness.data import load_rows, template_of
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.jobs.worker import build_checkpoint
from unlearn_bench.harness.models.cache import base_model
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.runtime import RunConfig
from unlearn_bench.harness.store.entries import Store
from unlearn_bench.harness.store.identity import CellSpec
from unlearn_bench.harness.suite import SourceSpec, TemplateSpec, TrainingSpec
from unlearn_bench.harness.transforms import train
from unlearn_bench.harness.transforms.base import BuildJob

torch.set_num_threads(1)
SOURCES = (SourceSpec(path="data/fresh_alchemy.jsonl"), SourceSpec(path="data/fresh_lockcraft.jsonl"))
TRAINING = TrainingSpec(batch_size=8, max_length=64, steps=6, learning_rate=1e-3, warmup=2, schedule="linear")


@pytest.fixture(scope="module")
def plan():
    asked = Request(
        methods=("npo",),
        tracks=("knowledge",),
        limit=16,
        settings=(
            "training.steps=6",
            "training.warmup=5",
        ),
        replicate=True,
    )
    return make_plan(asked, None)


class Made:
    """Makes cells in a store, in this process."""

    def __init__(self, plan, folder: Path) -> None:
        self.plan, self.store = plan, Store.create(folder)
        self.place = RunConfig(store=self.store.root, device="cpu", threads=1, batch_size=16)

    def job(self, spec: CellSpec, text: tuple[SourceSpec, ...] = ()) -> BuildJob:
        corpora = self.plan.suite.tracks["knowledge"].corpora
        return BuildJob(self.place, self.plan.models["micro"], spec, corpora, Path(self.plan.data_folder), text=text)

    def __call__(self, spec: CellSpec, text: tuple[SourceSpec, ...] = (), report=lambda event: None) -> str:
        """Make a cell and return the sha256 of its delta."""
        build_checkpoint(self.job(spec, text), report)
        return self.manifest(spec)["delta"]

    def manifest(self, spec: CellSpec) -> Any:
        return self.store.entry("cells", spec.id).manifest()

    def delta(self, spec: CellSpec) -> dict[str, torch.Tensor]:
        return load_file(self.store.entry("cells", spec.id).file("delta.safetensors"))

    def log(self, spec: CellSpec):
        text = self.store.entry("cells", spec.id).file("training.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]


def finetuned(plan, training: TrainingSpec = TRAINING, sources=SOURCES, **data) -> CellSpec:
    folder = Path(plan.data_folder)
    digests = [load_rows(source, folder, source.text_row).digest for source in sources]
    return CellSpec(
        model=plan.models["micro"].digest,
        transform="finetune",
        seed=0,
        settings={"version": 1, "training": training.identity(), "data": {"text": digests, **data}, "dtype": "float32"},
        method="finetune",
        variant="original",
    )


def started(cell: CellSpec, parent: CellSpec, delta: str) -> CellSpec:
    """The cell as one that starts from a parent."""
    changed = {"parents": (*cell.parents, parent.id), "settings": {**cell.settings, "parent": delta}}
    return cell.model_copy(update=changed)


@pytest.fixture(scope="module")
def made(plan, tmp_path_factory):
    """A fine-tuned cell, npo started from it, its replica, and npo started from the base."""
    make = Made(plan, tmp_path_factory.mktemp("store"))
    cells = {cell.spec.variant: cell.spec for cell in plan.cells}
    original = finetuned(plan)
    sha256 = make(original, SOURCES)
    npo = started(cells["npo"], original, sha256)
    replica = cells["replica(npo)"].model_copy(update={"parents": (npo.id,)})
    twin = started(replica, original, sha256)
    for cell in (npo, twin, cells["npo"]):
        make(cell)
    return make, {"original": original, "npo": npo, "replica": twin, "plain": cells["npo"]}


def weights(plan) -> dict[str, torch.Tensor]:
    model, _ = base_model(plan.models["micro"], "cpu", "mixed")
    return {name: value.detach() for name, value in model.named_parameters()}


def test_fine_tuning_lowers_the_loss_of_its_text_with_its_schedule(plan, made):
    make, cells = made
    rows = make.log(cells["original"])[1:]
    assert [row["learning_rate"] for row in rows] == pytest.approx([0, 5e-4, 1e-3, 7.5e-4, 5e-4, 2.5e-4])
    assert rows[-1]["forget"] < rows[0]["forget"] - 0.1
    assert make.manifest(cells["original"])["summary"] == {"loss": rows[-1]["forget"], "steps": 6}
    assert make.delta(cells["original"]).keys() == weights(plan).keys(), "all parameters train"


def test_the_base_is_left_as_it_was(plan, made):
    from unlearn_bench.harness.models.load import load_model

    fresh = dict(load_model(plan.models["micro"]).named_parameters())
    assert all(torch.equal(value, fresh[name]) for name, value in weights(plan).items())


def full(plan, delta):
    return weights(plan) | delta


def test_a_method_starts_from_its_parent_which_is_its_frozen_model(plan, made):
    make, cells = made
    first, plain = (make.log(cells[name])[1] for name in ("npo", "plain"))
    neutral = 2 / cells["npo"].settings["settings"]["beta"] * math.log(2)
    assert first["forget"] == pytest.approx(neutral, rel=1e-4), "pi / pi_frozen is 1 at the first step"
    assert first["retain"] != pytest.approx(plain["retain"], rel=1e-3)
    base, start, end = weights(plan), full(plan, make.delta(cells["original"])), full(plan, make.delta(cells["npo"]))
    moved = sum(float((end[name] - start[name]).norm() ** 2) for name in base) ** 0.5
    apart = sum(float((start[name] - base[name]).norm() ** 2) for name in base) ** 0.5
    whole = sum(float((end[name] - base[name]).norm() ** 2) for name in base) ** 0.5
    assert 0 < moved < apart, "six steps of a warm-up against six"
    assert whole > moved, "the delta is told from the base"


def test_a_replica_of_a_chained_cell_starts_a_hair_from_the_same_start(plan, made):
    make, cells = made
    end, twin = (full(plan, make.delta(cells[name])) for name in ("npo", "replica"))
    apart = max(float((end[name] - twin[name]).abs().max()) for name in end)
    assert 0 < apart < 1e-3
    assert make.log(cells["replica"])[1]["retain"] == pytest.approx(make.log(cells["npo"])[1]["retain"], rel=1e-3)


def test_a_parent_or_text_that_changed_is_told(plan, made):
    make, cells = made
    wrong = cells["npo"].model_copy(update={"settings": {**cells["npo"].settings, "parent": "0" * 64}})
    with pytest.raises(UserError, match="changed while it was planned"):
        make(wrong)
    with pytest.raises(UserError, match="changed after the run was planned"):
        make(finetuned(plan, TRAINING.model_copy(update={"steps": 1})), SOURCES[:1])


def dies(job: BuildJob) -> None:
    """Make a cell and keep its state often, until SIGKILL takes this process in the middle of the warm-up's slope."""
    torch.set_num_threads(1)
    train.SAVE_EVERY = 0.0
    build_checkpoint(job, lambda event: os.kill(os.getpid(), signal.SIGKILL) if event.done == 4 else None)


@pytest.mark.parametrize("name", ["original", "npo"])
def test_after_kill_9_a_training_goes_on_where_it_was_and_ends_the_same(plan, made, tmp_path, name):
    make, cells = made
    again, text = Made(plan, tmp_path / "again"), SOURCES if name == "original" else ()
    if name == "npo":
        again(cells["original"], SOURCES)
    process = multiprocessing.get_context("spawn").Process(target=dies, args=(again.job(cells[name], text),))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert again.manifest(cells[name]) is None
    steps = []
    assert again(cells[name], text, lambda event: steps.append(event.done)) == make.manifest(cells[name])["delta"]
    assert 1 < steps[0] <= 4
    assert again.log(cells[name]) == make.log(cells[name])


def test_fine_tuning_on_answers_counts_them_alone_and_lowers_their_loss(plan, made):
    make, _ = made
    source = SourceSpec(path="data/qa_retain.jsonl", columns={"prompt": "question", "answer": "answer"})
    template = TemplateSpec(prompt="{prompt}")
    training = TRAINING.model_copy(update={"steps": 12})
    cell = finetuned(plan, training, (source,), **template_of([source], template))
    make(cell, (source,))
    rows = make.log(cell)[1:]
    assert rows[-1]["forget"] < rows[0]["forget"] - 0.1
    again = finetuned(plan, training, (source,), **template_of([source], TemplateSpec()))
    assert again.id != cell.id, "the template is part of what it is"
