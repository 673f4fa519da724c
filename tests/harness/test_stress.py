"""Stress: quantisation by hand, relearning as a pure function, derived cells that wait for and follow their parents."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from unlearn_bench.harness import Request, evaluate
from unlearn_bench.harness.data import load_rows
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.jobs.worker import run_job
from unlearn_bench.harness.models.cache import base_model
from unlearn_bench.harness.models.load import load_model
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.planning.sources import SourceReader
from unlearn_bench.harness.planning.status import find_cell, status_of
from unlearn_bench.harness.runner import Runner
from unlearn_bench.harness.runtime import RunConfig
from unlearn_bench.harness.store.delta import save_delta
from unlearn_bench.harness.store.entries import Store
from unlearn_bench.harness.store.files import file_sha256
from unlearn_bench.harness.suite import SourceSpec, StressSpec, load_suite
from unlearn_bench.harness.transforms.base import BuildJob, transforms
from unlearn_bench.harness.transforms.quantise import linear_weights, round_to_nearest
from unlearn_bench.methods.base import methods
from unlearn_bench.methods.rmu import RMU

QUICK = {"tracks": ("knowledge",), "tasks": ("wmdp", "mmlu"), "limit": 8, "settings": ("training.steps=3",)}
ALL = ("relearn", "quantise8", "quantise4")


def delta(result, label: str) -> dict[str, torch.Tensor]:
    cell = find_cell(result.plan, result.store, label)
    return load_file(result.store.entry("cells", cell.id).file("delta.safetensors"))


@pytest.fixture(scope="module")
def weights(root: Path) -> dict[str, torch.Tensor]:
    return load_file(root / "harness" / "suites" / "micro" / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with every stress, and what it was asked for."""
    asked = Request(methods=("rmu",), stress=ALL, **QUICK)
    result = evaluate(asked, output=tmp_path_factory.mktemp("stress"), executor="inline")
    assert not result.failures
    return asked, result


def test_rounding_is_that_of_the_formula() -> None:
    weight = torch.tensor([[7.0, -3.5, 1.75, 0.2], [0.0, 0.0, 0.0, 0.0], [-14.0, 13.0, 3.0, -1.0]])
    by_hand = torch.tensor([[7.0, -4.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0], [-14.0, 12.0, 4.0, 0.0]])
    assert torch.equal(round_to_nearest(weight, 4), by_hand)
    assert torch.equal(round_to_nearest(weight.T, 4, channel=1), by_hand.T)
    fine = round_to_nearest(weight, 8)
    assert (fine - weight).abs().max() <= 14 / 127 / 2 + 1e-6
    assert torch.allclose(round_to_nearest(fine, 8), fine), "what is rounded stays"


def test_the_linear_weights_of_the_layers_are_rounded_and_nothing_else(run, weights) -> None:
    _, result = run
    model = load_model(result.plan.models["micro"])
    linear = {name for name, _ in linear_weights(model)}
    assert linear == {name for name in weights if ".layers." in name and weights[name].dim() == 2}
    rounded, parent = delta(result, "base+quantise4"), delta(result, "knowledge/rmu#0")
    assert set(rounded) == linear
    for name, tensor in rounded.items():
        assert torch.equal(tensor, round_to_nearest(weights[name], 4))
    after = delta(result, "knowledge/rmu+quantise4#0")
    assert set(parent) <= set(after)
    for name, tensor in after.items():
        assert torch.equal(tensor, round_to_nearest(parent.get(name, weights[name]), 4))


def test_every_cell_has_its_derived_ones_and_the_board_shows_them_beside_their_parents(run) -> None:
    _, result = run
    labels = [cell.spec.label for cell in result.plan.cells if cell.spec.stress]
    assert set(labels) == {
        *(f"knowledge/rmu+{stress}#0" for stress in ALL),
        *("base+quantise8", "base+quantise4", "knowledge/base+relearn"),
    }
    assert len(labels) == len(set(labels))
    rows = {row["variant"]: row for row in json.loads(result.board.to_json())["rows"]}
    for row in (rows["base"], rows["rmu"]):
        assert list(row["stress"]) == sorted(ALL)
        assert all(part["finished"] == 1 and part["forget"] for part in row["stress"].values())


def test_derived_cells_are_asked_what_their_tracks_s_is_made_of() -> None:
    plan = make_plan(Request(methods=("rmu",), stress=ALL), None)
    asked = {cell.spec.label: list(plan.tasks_of(cell)) for cell in plan.cells}
    assert asked["knowledge/rmu+relearn#0"] == ["wmdp", "mmlu"]
    assert asked["toxicity/base+relearn"] == ["mmlu", "realtoxicityprompts"]
    assert asked["base+quantise8"] == ["wmdp", "mmlu", "realtoxicityprompts"]
    assert asked["knowledge/rmu#0"] == list(plan.tasks)
    assert {"perplexity", "form_shift"} <= set(plan.tasks)


def test_a_finished_run_does_nothing_again(run, monkeypatch: pytest.MonkeyPatch) -> None:
    from unlearn_bench.harness.executors import inline

    asked, result = run
    monkeypatch.setattr(inline, "run_job", lambda job, report: pytest.fail("something was run again"))
    again = evaluate(asked, output=result.store.root, executor="inline")
    assert again.board.to_json() == result.board.to_json()


def made(result, store: Store, cell) -> dict[str, torch.Tensor]:
    """Make a derived cell in this process and return its delta."""
    place = RunConfig(store=store.root, device="cpu", threads=1, batch_size=8)
    corpora = result.plan.suite.tracks["knowledge"].corpora
    job = BuildJob(place, result.plan.models["micro"], cell.spec, corpora, Path(result.plan.data_folder))
    return transforms.get(cell.spec.transform)().make(job, lambda event: None).delta


def test_relearning_is_a_function_of_its_cell_and_leaves_the_base_as_it_was(run, weights) -> None:
    _, result = run
    deltas = {}
    for label in ("knowledge/rmu+relearn#0", "knowledge/base+relearn"):
        cell = find_cell(result.plan, result.store, label)
        found, kept = made(result, result.store, cell), delta(result, label)
        assert set(found) == set(kept)
        assert all(torch.equal(found[name], kept[name]) for name in kept)
        deltas[label] = kept
    assert any(not torch.equal(first, second) for first, second in zip(*map(dict.values, deltas.values()), strict=True))
    model, _ = base_model(result.plan.models["micro"], "cpu", "mixed")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.named_parameters() if name in weights)
    entry = result.store.entry("cells", cell.id)
    assert (entry.manifest() or {})["summary"]["steps"] == 20
    losses = [json.loads(line)["forget"] for line in entry.file("training.jsonl").read_text().splitlines()[1:]]
    assert len(losses) == 20
    assert sum(losses[-5:]) < sum(losses[:5]), "it learns"


def test_a_parent_that_comes_out_otherwise_has_other_derived_cells(run, tmp_path: Path) -> None:
    _, result = run
    shutil.copytree(result.store.root, tmp_path / "store")
    store, plan = Store.open(tmp_path / "store"), result.plan
    parent = find_cell(plan, store, "knowledge/rmu#0")
    before = find_cell(plan, store, "knowledge/rmu+quantise4#0")
    assert status_of(plan, before, store).finished
    entry = store.entry("cells", parent.id)
    changed = {name: tensor + 0.5 for name, tensor in delta(result, parent.id).items()}
    kept = entry.manifest()
    save_delta(entry.file("delta.safetensors"), changed)
    manifest = {**kept, "delta": file_sha256(entry.file("delta.safetensors"))}
    del manifest["files"]
    entry.commit({"delta.safetensors": lambda path: save_delta(path, changed)}, manifest)
    after = find_cell(plan, store, "knowledge/rmu+quantise4#0")
    assert after.id != before.id
    assert not status_of(plan, after, store).made
    assert find_cell(plan, store, "base+quantise4").id == find_cell(plan, result.store, "base+quantise4").id
    name = next(iter(changed))
    assert torch.equal(made(result, store, after)[name], round_to_nearest(changed[name], 4))
    with pytest.raises(UserError, match="changed while it was planned"):
        made(result, store, before)


def test_a_derived_cell_waits_until_its_parent_is_made(tmp_path: Path) -> None:
    class Later:
        """Runs jobs in a thread, one after the other, so that `submit` returns before they are done."""

        slots = 1

        def __init__(self) -> None:
            self.jobs, self.pool = [], ThreadPoolExecutor(1)

        def submit(self, job):
            self.jobs.append(job)
            return self.pool.submit(run_job, job, lambda event: None)

    store, executor = Store.create(tmp_path), Later()
    plan = make_plan(Request(methods=("rmu",), stress=("quantise8",), **QUICK), store)
    with executor.pool:
        assert not Runner(plan, store, executor, RunConfig(store=store.root, device="cpu", threads=1)).run()
    made = [job.cell.variant for job in executor.jobs if isinstance(job, BuildJob)]
    assert sorted(made) == ["base+quantise8", "noise(rmu)", "rmu", "rmu+quantise8"]
    assert made.index("rmu") < min(made.index("rmu+quantise8"), made.index("noise(rmu)"))


def test_a_parent_that_fails_is_named_and_the_rest_is_stressed(tmp_path: Path) -> None:
    class Breaks(RMU):
        def losses(self, batch):
            raise RuntimeError("the plugin broke")

    with methods.temporary("breaks", Breaks):
        asked = Request(methods=("rmu", "breaks"), stress=("quantise8",), **QUICK)
        result = evaluate(asked, output=tmp_path, executor="inline")
    assert set(result.failures) == {"knowledge/breaks#0", "knowledge/breaks+quantise8#0"}
    cause = result.failures["knowledge/breaks+quantise8#0"]
    assert "knowledge/breaks#0 failed" in cause
    assert "the plugin broke" in cause
    rows = {row["variant"]: row["stress"] for row in json.loads(result.board.to_json())["rows"]}
    assert rows["breaks"]["quantise8"]["note"].startswith("failed: knowledge/breaks#0 failed")
    assert rows["rmu"]["quantise8"]["finished"] == rows["base"]["quantise8"]["finished"] == 1


def test_an_imported_checkpoint_is_rounded_from_its_folder(root: Path, weights, tmp_path: Path) -> None:
    folder = shutil.copytree(root / "harness" / "suites" / "micro" / "model", tmp_path / "mine")
    name = next(name for name in weights if name.endswith("down_proj.weight"))
    save_file({**weights, name: weights[name] * 2}, folder / "model.safetensors", {"format": "pt"})
    asked = Request(methods=("none",), checkpoints={"mine": folder}, stress=("quantise4",), **QUICK)
    result = evaluate(asked, output=tmp_path / "store", executor="inline")
    assert not result.failures
    assert torch.equal(delta(result, "mine+quantise4")[name], round_to_nearest(weights[name] * 2, 4))
    row = next(row for row in json.loads(result.board.to_json())["rows"] if row["variant"] == "mine")
    assert row["stress"]["quantise4"]["finished"] == 1


def test_a_plan_says_what_it_cannot_do() -> None:
    with pytest.raises(UserError, match="Did you mean 'quantise8'"):
        make_plan(Request(stress=("quantize8",), **QUICK), None)
    with pytest.raises(UserError, match=r"needs forget text that no method saw.*toxicity"):
        make_plan(Request(suite="real", stress=("relearn",)), None, SourceReader(lenient=True))


def test_a_method_that_changes_no_weights_has_no_derived_cells() -> None:
    class Wraps(RMU):
        changes = "decoding"

    with methods.temporary("wraps", Wraps):
        plan = make_plan(Request(methods=("rmu", "wraps"), stress=ALL, **QUICK), None)
    assert {cell.spec.method for cell in plan.cells if cell.spec.stress} == {"base", "rmu"}


def test_a_suite_may_have_stresses_of_its_own() -> None:
    suite = load_suite("micro")
    mine = StressSpec(transform="relearn", settings={"rank": 2, "training": {"steps": 2}})
    plan = make_plan(Request(suite=suite.model_copy(update={"stress": {"brief": mine}}), stress=("brief",)), None)
    cells = [cell.spec for cell in plan.cells if cell.spec.stress]
    assert {spec.settings["training"]["steps"] for spec in cells} == {2}
    assert {spec.settings["settings"]["rank"] for spec in cells} == {2}
    wrong = suite.model_copy(update={"stress": {"brief": StressSpec(transform="noise")}})
    with pytest.raises(UserError, match="no stress"):
        make_plan(Request(suite=wrong, stress=("brief",)), None)


def test_relearning_a_low_rank_change_touches_matrices_only(tmp_path: Path, weights) -> None:
    mine = StressSpec(transform="relearn", settings={"rank": 2, "training": {"steps": 2}})
    suite = load_suite("micro").model_copy(update={"stress": {"brief": mine}})
    result = evaluate(
        Request(suite=suite, methods=("none",), stress=("brief",), **QUICK), output=tmp_path, executor="inline"
    )
    assert not result.failures
    change = {name: tensor - weights[name] for name, tensor in delta(result, "knowledge/base+brief").items()}
    assert change
    assert all(".layers." in name and torch.linalg.matrix_rank(by, rtol=1e-4) <= 2 for name, by in change.items())


def test_the_dry_run_shows_derived_cells_with_an_id_once_their_parent_is_made(run) -> None:
    from unlearn_bench.harness.planning.dry_run import dry_run

    asked, result = run
    cells = {cell.name: cell for cell in dry_run(asked, result.store.root, 64).cells}
    assert cells["knowledge/rmu+relearn#0"].state == "finished"
    fresh = {cell.name: cell for cell in dry_run(asked, result.store.root / "none", 64).cells}
    assert fresh["knowledge/rmu+relearn#0"].cell is None
    assert fresh["knowledge/rmu+relearn#0"].remains[0] == "make"
    assert fresh["base+quantise8"].cell == cells["base+quantise8"].cell


@pytest.mark.parametrize("track", ["knowledge", "toxicity"])
def test_no_method_saw_the_text_for_relearning_and_no_reported_item_asks_for_it(root: Path, track: str) -> None:
    suite, folder = load_suite("micro"), root / "harness" / "suites" / "micro"
    corpora = suite.tracks[track].corpora
    seen = {
        row["text"] for source in (*corpora.forget.values(), corpora.retain) for row in load_rows(source, folder).rows
    }
    asked = {row["question"] for row in load_rows(suite.tasks["wmdp"].data, folder).rows}
    for source in corpora.relearn.values():
        texts = [row["text"] for row in load_rows(source, folder).rows]
        assert len(texts) == len(set(texts)) == 100
        assert not seen & set(texts)
        if track == "knowledge":
            names = {word.strip("?,") for question in asked for word in question.split()} - {"has", "known", "is"}
            subjects = {
                line.split(" of ")[1].split(" ")[0] for text in texts for line in text.split(". ") if " of " in line
            }
            assert subjects
            assert not subjects & names


def test_parts_of_a_corpus_are_disjoint_and_whole(root: Path) -> None:
    folder, path = root / "harness" / "suites" / "micro" / "data", "forget_alchemy.jsonl"
    whole, kept, rest = (
        [row["text"] for row in load_rows(SourceSpec(path=path, part=part), folder).rows]
        for part in (None, "0/20", "1-19/20")
    )
    assert 0 < len(kept) < len(rest) / 10
    assert not set(kept) & set(rest)
    assert sorted(kept + rest) == sorted(whole)
