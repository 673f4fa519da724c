"""What stands beside a checkpoint: noise of its own norm, whoever else runs, and a training once more."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from unlearn_bench.harness import Request, evaluate
from unlearn_bench.harness.cli import main
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.maintenance.garbage import garbage
from unlearn_bench.harness.maintenance.merge import join, merge
from unlearn_bench.harness.maintenance.verify import verify
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.planning.dry_run import dry_run
from unlearn_bench.harness.planning.plan import Plan, PlannedCell
from unlearn_bench.harness.planning.status import settle, status_of
from unlearn_bench.harness.results.board import board_of
from unlearn_bench.harness.store.entries import Store
from unlearn_bench.harness.store.identity import CellSpec
from unlearn_bench.harness.transforms.noise import with_noise
from unlearn_bench.methods.base import methods
from unlearn_bench.methods.rmu import RMU
from unlearn_bench.methods.testing import tiny_trainer

QUICK = {"tracks": ("knowledge",), "tasks": ("wmdp", "mmlu"), "limit": 4, "settings": ("training.steps=2",)}
TWO = ("rmu", "grad_ascent")


def planned(*names: str, **more) -> dict[str, PlannedCell]:
    """Return the cells of a plan by label."""
    asked = {"methods": names, "tracks": ("knowledge",), "limit": 4, "engine": "transformers", **more}
    return {cell.spec.label: cell for cell in make_plan(Request(**asked), None).cells}


def shared(cells: dict[str, PlannedCell], *names: str) -> CellSpec:
    """Return the one noise cell that older runs of these methods had."""
    parents = [cells[f"knowledge/{name}#0"] for name in names]
    return CellSpec(
        model=parents[0].spec.model,
        transform="noise",
        track="knowledge",
        seed=0,
        parents=tuple(sorted(cell.id for cell in parents)),
        settings={"version": 1},
        method="noise",
        variant="noise",
    )


@pytest.fixture(scope="module")
def base() -> dict[str, torch.Tensor]:
    model = next(iter(make_plan(Request(methods=("none",)), None).models.values()))
    return load_file(Path(model.path or "") / "model.safetensors")


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A finished run of two methods, each with a replica; never written to."""
    asked = Request(methods=TWO, replicate=True, **QUICK)
    return evaluate(asked, output=tmp_path_factory.mktemp("run") / "store", executor="inline")


def deltas(result) -> dict[str, dict[str, torch.Tensor]]:
    """Return the changed tensors of a run's cells by label."""
    files = {cell.spec.label: result.store.root / "cells" / cell.id / "delta.safetensors" for cell in result.plan.cells}
    return {label: load_file(file) for label, file in files.items() if file.is_file()}


def test_each_checkpoint_has_its_own_whoever_else_runs() -> None:
    both, alone = planned(*TWO, "uld"), planned("rmu")
    assert list(both) == [
        "base",
        *("knowledge/grad_ascent#0", "knowledge/noise(grad_ascent)#0"),
        *("knowledge/rmu#0", "knowledge/noise(rmu)#0"),
        "knowledge/uld#0",
    ], "what works at decoding time has none"
    assert both["knowledge/noise(rmu)#0"] == alone["knowledge/noise(rmu)#0"]
    assert both["knowledge/noise(rmu)#0"].spec.parents == (both["knowledge/rmu#0"].id,)
    assert alone["knowledge/noise(rmu)#0"].id == shared(alone, "rmu").id, "what runs of one method had stays finished"
    assert not any("noise" in label for label in planned("rmu", noise=False))


def test_a_replica_is_of_the_first_seed_and_leaves_other_ids_alone() -> None:
    plain, cells = planned("rmu", "uld", seeds=(3, 0)), planned("rmu", "uld", seeds=(3, 0), replicate=True)
    assert cells.keys() - plain.keys() == {"knowledge/replica(rmu)#3", "knowledge/replica(uld)#3"}
    assert all(cells[label] == cell for label, cell in plain.items())
    spec, parent = cells["knowledge/replica(rmu)#3"].spec, cells["knowledge/rmu#3"].spec
    assert (spec.beside, spec.parents) == ("replica", (parent.id,))
    assert spec.settings == {**parent.settings, "replica": 1}
    with pytest.raises(UserError, match="trains methods once more"):
        planned("none", replicate=True)


def test_they_are_asked_what_s_is_made_of_and_put_through_no_stress() -> None:
    asked = Request(methods=("rmu",), tracks=("knowledge",), stress=("quantise8",), replicate=True)
    plan = make_plan(asked, None)
    attached = [cell for cell in plan.cells if cell.spec.beside]
    assert [cell.spec.label for cell in attached] == ["knowledge/noise(rmu)#0", "knowledge/replica(rmu)#0"]
    assert all(list(plan.tasks_of(cell)) == ["wmdp", "mmlu"] for cell in attached)
    assert {"form_shift", "perplexity"} <= set(plan.tasks)
    stressed = {cell.spec.variant for cell in plan.cells if cell.spec.stress}
    assert stressed == {"base+quantise8", "rmu+quantise8"}


def test_a_name_that_would_stand_twice_is_refused(root: Path) -> None:
    folder = root / "harness" / "suites" / "micro" / "model"
    for name, more in (("noise(rmu)", {}), ("replica(rmu)", {"replicate": True})):
        with pytest.raises(UserError, match="is the name of what stands beside 'rmu'; rename"):
            planned("rmu", checkpoints={name: folder}, **more)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("spread", [1e-6, 1e-5, 1e-3, 1.0])
def test_noise_keeps_its_norm_in_the_models_own_dtype(dtype: torch.dtype, spread: float) -> None:
    """A change of a few elements may be far below the last bit of each: rounding would take such noise away."""
    draw = torch.Generator().manual_seed(0)
    base = (0.02 * torch.randn(256, 256, generator=draw)).to(dtype)
    noise = spread * torch.randn(256, 256, generator=draw)
    kept = with_noise(base, noise, float(noise.norm()))
    assert kept.dtype == dtype
    assert float((kept.double() - base.double()).norm()) == pytest.approx(float(noise.norm()), rel=0.02)


def test_noise_has_the_norm_of_its_own_checkpoints_change_tensor_by_tensor(result, base) -> None:
    changes = {
        label: {name: float((tensor - base[name]).norm()) for name, tensor in delta.items()}
        for label, delta in deltas(result).items()
    }
    for name in TWO:
        noise, own = (changes[f"knowledge/{label}#0"] for label in (f"noise({name})", name))
        assert noise == pytest.approx(own, rel=1e-3)
    rmu, ascent = (changes[f"knowledge/noise({name})#0"] for name in TWO)
    assert rmu.keys() < ascent.keys(), "nothing where the method left a tensor alone"


def test_noise_of_an_import_is_matched_to_its_difference_from_the_base(root: Path, base, tmp_path: Path) -> None:
    source = root / "harness" / "suites" / "micro" / "model"
    moved, same = shutil.copytree(source, tmp_path / "moved"), shutil.copytree(source, tmp_path / "same")
    name = next(name for name in base if name.endswith("down_proj.weight"))
    save_file({**base, name: base[name] * 1.5}, moved / "model.safetensors", {"format": "pt"})
    wide = AutoModelForCausalLM.from_pretrained(moved)
    wide.resize_token_embeddings(wide.config.vocab_size + 8)
    wide.save_pretrained(tmp_path / "wide")
    for file in source.glob("*token*"):
        shutil.copyfile(file, tmp_path / "wide" / file.name)
    lora = LoraConfig(r=2, target_modules=["up_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(source), lora).save_pretrained(str(tmp_path / "tuned"))
    folders = {"moved": moved, "same": same, "tuned": tmp_path / "tuned", "wide": tmp_path / "wide"}
    asked = Request(methods=("none",), checkpoints=folders, seeds=(2, 0), **QUICK)
    result = evaluate(asked, output=tmp_path / "store", executor="inline")
    assert not result.failures
    assert all(state.finished for state in result.cells)
    found = deltas(result)
    assert found["noise(same)#2"] == {}, "there is nothing to match"
    for label in ("noise(moved)#2", "noise(wide)#2"):
        assert found[label].keys() == {name}, "other shapes are no change"
        assert float((found[label][name] - base[name]).norm()) == pytest.approx(float(base[name].norm()) / 2, rel=1e-3)
    assert found["tuned"], "an adapter's change is that of the model that it is merged into"
    for name, tensor in found["tuned"].items():
        noise, own = (float((changed - base[name]).norm()) for changed in (found["noise(tuned)#2"][name], tensor))
        assert noise == pytest.approx(own, rel=1e-3)
    rows = {row["variant"]: row["warnings"] for row in result.board.rows}
    said = "its weights are the base's: there is no change that noise could be matched to"
    assert said in rows["same"]
    assert said not in rows["moved"]


def test_beside_a_checkpoint_that_failed_nothing_stands_and_that_is_no_failure_of_its_own(tmp_path: Path) -> None:
    class Breaks(RMU):
        def losses(self, batch):
            raise RuntimeError("the plugin broke")

    with methods.temporary("breaks", Breaks):
        asked = Request(methods=("breaks", "rmu"), replicate=True, **QUICK)
        result = evaluate(asked, output=tmp_path, executor="inline")
        outlook = {cell.name: cell.state for cell in dry_run(asked, tmp_path, 8).cells}
    assert result.failures.keys() == {"knowledge/breaks#0"}
    states = {state.cell.spec.label: state for state in result.cells}
    replica = states["knowledge/replica(breaks)#0"].cell
    assert not result.store.entry("cells", replica.id).path.exists(), "it is not even begun"
    for name in ("noise", "replica"):
        assert states[f"knowledge/{name}(breaks)#0"].failure == "knowledge/breaks#0 failed"
        assert states[f"knowledge/{name}(rmu)#0"].finished
        assert outlook[f"knowledge/{name}(breaks)#0"] == "failed before"
    with methods.temporary("breaks", RMU):
        assert not evaluate(asked, output=tmp_path, executor="inline").failures, "the same command makes all of it"


def test_a_board_knows_what_stands_beside_what(result) -> None:
    from unlearn_bench.harness.results.board import checkpoint

    cells = {state.cell.spec.label: checkpoint(state, result.store, (), ()) for state in result.cells}
    beside = {label: (cell.kind, cell.beside, cell.of) for label, cell in cells.items()}
    rmu = cells["knowledge/rmu#0"].cell
    assert beside["base"] == ("base", None, None)
    assert beside["knowledge/rmu#0"] == ("method", None, None)
    assert beside["knowledge/noise(rmu)#0"] == ("noise", "noise", rmu)
    assert beside["knowledge/replica(rmu)#0"] == ("method", "replica", rmu)
    assert all(cell.status == "ok" for cell in cells.values())


def older(result, folder: Path) -> tuple[Store, Plan]:
    """Return a copy of a store as an older version left it: one noise cell, matched to all methods."""
    store = Store.open(Path(shutil.copytree(result.store.root, folder)))
    cells = {cell.spec.label: cell for cell in result.plan.cells}
    spec, own = shared(cells, *TWO), store.entry("cells", cells["knowledge/noise(rmu)#0"].id)
    manifest = {**(own.manifest() or {}), "cell": spec.model_dump(mode="json")}
    files = {name: (lambda path, name=name: shutil.copyfile(own.file(name), path)) for name in manifest.pop("files")}
    store.entry("cells", spec.id).commit(
        files, {key: manifest[key] for key in ("cell", "summary", "delta", "recorded")}
    )
    kept = [cell for cell in result.plan.cells if cell.spec.beside is None]
    plan = result.plan.model_copy(update={"cells": (*kept, PlannedCell(model="micro", spec=spec))})
    plan.save(store)
    return store, plan


def test_a_store_with_one_noise_for_all_methods_opens_and_is_whole(result, tmp_path: Path) -> None:
    store, plan = older(result, tmp_path / "old")
    loaded = Plan.load(store)
    assert {row["variant"]: row["kind"] for row in board_of(loaded, store).rows}.items() >= {
        ("base", "base"),
        ("noise", "noise"),
        ("rmu", "method"),
    }
    shutil.rmtree(store.root / "leaderboards")
    assert verify(store).whole
    noise = loaded.cells[-1]
    assert (noise.spec.beside, loaded.tasks_of(noise)) == (None, loaded.tasks)
    assert not {path.name for path in garbage(store).sizes} & {cell.id for cell in plan.cells}
    lost = next(cell for cell in loaded.cells if cell.spec.variant == "grad_ascent")
    shutil.rmtree(store.entry("cells", lost.id).path)
    store.entry("cells", lost.id).path.mkdir()
    store.entry("cells", lost.id).fail("it broke", "")
    settled = settle(loaded, noise, store)
    assert len(settled.spec.parents) == 1, "it was matched to those that did not fail"
    assert settled.spec.beside is None


def test_one_noise_for_all_methods_is_not_joined_with_that_of_others(result, tmp_path: Path) -> None:
    _, plan = older(result, tmp_path / "old")
    others = plan.model_copy(update={"cells": (*plan.cells[:-1], plan.cells[-1].model_copy())})
    assert join(plan, others) is not None
    spec = plan.cells[-1].spec
    alone = PlannedCell(model="micro", spec=spec.model_copy(update={"parents": spec.parents[:1]}))
    assert join(plan, plan.model_copy(update={"cells": (*plan.cells[:-1], alone)})) is None


def test_methods_of_two_machines_merge_into_the_board_of_one_run(result, tmp_path: Path) -> None:
    stores = []
    for name in TWO:
        stores.append(tmp_path / name)
        evaluate(Request(methods=(name,), replicate=True, **QUICK), output=stores[-1], executor="inline")
    merged = merge(stores, tmp_path / "merged")
    assert (merged.plans, merged.apart) == (["micro"], [])
    store = Store.open(tmp_path / "merged")
    found = verify(store)
    assert not found.lacking
    assert not found.damaged
    assert not garbage(store).sizes
    plan = Plan.load(store)
    assert board_of(plan, store).rows == result.board.rows
    other = Request(methods=("rmu",), **{**QUICK, "settings": ("training.steps=3",)})
    evaluate(other, output=tmp_path / "other", executor="inline")
    assert merge((stores[0], tmp_path / "other"), tmp_path / "apart").apart == ["micro"], "one name for two cells"


def test_workers_train_the_replica_that_this_process_trains(result, tmp_path: Path) -> None:
    line = ["evaluate", "--methods", "rmu", "--replicate", "--tracks", "knowledge", "--tasks", "wmdp,mmlu"]
    line += ["--limit", "4", "--set", "training.steps=2", "--workers", "1", "--output", str(tmp_path)]
    done = CliRunner().invoke(main, line)
    assert done.exit_code == 0, done.output
    board = json.loads((tmp_path / "leaderboards" / "micro.json").read_text())
    assert "--replicate" in board["command"]
    cell = next(cell for cell in result.plan.cells if cell.spec.variant == "replica(rmu)")
    files = [root / "cells" / cell.id / "delta.safetensors" for root in (tmp_path, result.store.root)]
    here, there = map(load_file, files)
    assert all(torch.equal(here[name], there[name]) for name in here.keys() | there.keys())
    assert status_of(result.plan, cell, Store.open(tmp_path)).finished


def test_a_replica_moves_a_little_from_its_method_and_keeps_the_rest(result) -> None:
    found = deltas(result)
    for name in TWO:
        own, replica = found[f"knowledge/{name}#0"], found[f"knowledge/replica({name})#0"]
        assert own.keys() <= replica.keys()
        apart = torch.cat([(replica[key] - own[key]).flatten() for key in own])
        assert 0 < apart.norm() < 1e-3 * torch.cat([tensor.flatten() for tensor in own.values()]).norm()


def test_unbounded_ascent_is_said_of_the_row(tmp_path: Path) -> None:
    wild = ("training.steps=6", "training.learning_rate=0.05")
    asked = Request(methods=("grad_ascent", "rmu"), noise=False, **{**QUICK, "settings": wild})
    rows = {row["variant"]: row for row in evaluate(asked, output=tmp_path, executor="inline").board.rows}
    assert "its forget loss passed ln|V| = 7.6 (it reached " in " ".join(rows["grad_ascent"]["warnings"])
    assert "ln|V|" not in " ".join(rows["rmu"]["warnings"])


def test_ascent_that_stays_above_uniform_guessing_and_losses_of_other_kinds_are_not_said(result) -> None:
    assert not any("ln|V|" in warning for row in result.board.rows for warning in row["warnings"])
    cell = next(cell for cell in result.plan.cells if cell.spec.variant == "grad_ascent")
    summary = (result.store.entry("cells", cell.id).manifest() or {})["summary"]
    assert 0 < summary["peak_nats"] < summary["uniform_nats"] == pytest.approx(math.log(2048))
    likelihoods = {name for name in methods.names() if "log_likelihood" in methods.get(name).log_schema.values()}
    assert likelihoods == {"grad_ascent", "grad_diff", "blur"}
    for forget in ("npo", "grad_ascent"):
        trainer = tiny_trainer("blur", {"forget": forget}, steps=2)
        trainer.run()
        assert all((row["forget"] < 0) == (forget == "grad_ascent") for row in trainer.log[1:]), (
            "NPO's is no likelihood"
        )
