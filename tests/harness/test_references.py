"""References: a checkpoint, a training or stored values that stand as `retain` or `original` of a track."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from unlearn_bench.harness import Request, Result, evaluate, load_records
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.maintenance.export import export_cell
from unlearn_bench.harness.maintenance.garbage import garbage
from unlearn_bench.harness.maintenance.merge import merge
from unlearn_bench.harness.maintenance.verify import verify
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.planning.dry_run import dry_run
from unlearn_bench.harness.planning.estimate import estimates
from unlearn_bench.harness.planning.plan import PlannedCell
from unlearn_bench.harness.results.board import board_of
from unlearn_bench.harness.results.items import cell_items
from unlearn_bench.harness.results.report import report
from unlearn_bench.harness.store.entries import Store
from unlearn_bench.harness.store.files import read_jsonl

TASKS = ("wmdp", "mmlu")
QUICK: dict[str, Any] = {"tracks": ("knowledge",), "tasks": TASKS, "limit": 8, "settings": ("training.steps=2",)}
FORGET = [{"path": "data/forget_alchemy.jsonl"}, {"path": "data/forget_lockcraft.jsonl"}]
ORIGINAL = {"finetune": {"text": FORGET, "training": {"steps": 3}}}
RETAIN = {"finetune": {"text": {"path": "data/retain.jsonl"}, "training": {"steps": 2}, "seed": 5}}


@pytest.fixture(scope="module")
def retrained(root: Path) -> Path:
    """The folder of micro's model that never saw the forget topics."""
    return root / "harness" / "suites" / "micro" / "reference"


COMPOSITES = {
    "quality": {"statistic": "ks", "of": {"unlearned": "wmdp.probability", "retain": "wmdp.probability"}},
    "kept": {"statistic": "quotient", "of": ["mmlu.acc", "mmlu.acc@retain"]},
}


def suite(folder: Path, more: Mapping[str, Any] | None = None, **references: Any) -> str:
    """Write a suite that extends micro with references of its track `knowledge`, and `more`; return its file."""
    file = folder / "mine.yaml"
    tracks = {"knowledge": {"references": references}}
    file.write_text(yaml.safe_dump({"extends": "micro", "name": "mine", "tracks": tracks, **(more or {})}))
    return str(file)


def planned(**asked: Any) -> dict[str, PlannedCell]:
    """Return the cells of a plan by label."""
    plan = make_plan(Request(**{"methods": ("rmu",), "engine": "transformers", **QUICK, **asked}), None)
    return {cell.spec.label: cell for cell in plan.cells}


def refused(**asked: Any) -> str:
    """Return why a request is refused before anything runs."""
    with pytest.raises(UserError) as error:
        planned(**asked)
    return str(error.value)


def row_of(result: Result, variant: str) -> dict[str, Any]:
    return next(dict(row) for row in result.board.rows if row["variant"] == variant)


def deltas(result: Result) -> dict[str, dict[str, torch.Tensor]]:
    """Return the changed tensors of a run's cells by label."""
    files = {state.cell.spec.label: result.store.root / "cells" / state.cell.id for state in result.cells}
    made = {label: folder / "delta.safetensors" for label, folder in files.items()}
    return {label: load_file(file) for label, file in made.items() if file.is_file()}


@pytest.fixture(scope="module")
def by_folder(retrained: Path, tmp_path_factory) -> Result:
    """A finished run beside a folder as `retain`, with composites that need it; never written to."""
    folder = tmp_path_factory.mktemp("folder")
    file = suite(folder, {"composites": COMPOSITES})
    asked = Request(suite=file, methods=("rmu",), references={"retain": retrained}, **QUICK)
    return evaluate(asked, output=folder / "store", executor="inline")


@pytest.fixture(scope="module")
def from_original(retrained: Path, tmp_path_factory) -> Result:
    """A finished run whose methods start from a fine-tuned original; never written to."""
    folder = tmp_path_factory.mktemp("original")
    asked = Request(
        suite=suite(folder, original=ORIGINAL, retain=RETAIN),
        methods=("rmu", "grad_ascent"),
        replicate=True,
        stress=("quantise8", "relearn"),
        nulls=("unrelated",),
        checkpoints={"mine": retrained},
        **QUICK,
    )
    return evaluate(asked, output=folder / "store", executor="inline")


def log_of(result: Result, label: str, folder: Path) -> dict[str, str]:
    """Copy the records of a cell of a run to a folder; return the files by task."""
    state = next(state for state in result.cells if state.cell.spec.label == label)
    return {
        task: str(shutil.copyfile(entry.file("records.jsonl"), folder / f"{task}.jsonl"))
        for task, entry in state.records.items()
    }


def test_a_folder_is_the_cell_that_it_is_as_a_checkpoint_and_leaves_all_others_alone(retrained: Path) -> None:
    plain, cells = planned(), planned(references={"retain": retrained})
    retain = cells.pop("retain")
    assert cells == plain
    assert retain.id == planned(checkpoints={"theirs": retrained})["theirs"].id, "its answers are shared"
    assert (retain.role, retain.serves, retain.spec.track) == ("retain", ("knowledge",), None)
    assert not any("retain" in label for label in cells), "no noise stands beside it"


def test_one_cell_serves_all_tracks_that_name_the_same_and_others_have_their_own(retrained: Path, root: Path) -> None:
    other = root / "harness" / "suites" / "micro" / "model"
    both = {"tracks": ("knowledge", "toxicity"), "tasks": None}
    cells = planned(references={"retain": retrained}, **both)
    assert cells["retain"].serves == ("knowledge", "toxicity")
    cells = planned(references={"retain": retrained, "toxicity/retain": other}, **both)
    assert {label: cell.serves for label, cell in cells.items() if cell.role} == {
        "knowledge/retain": ("knowledge",),
        "toxicity/retain": ("toxicity",),
    }


def test_methods_start_from_the_original_and_so_does_their_noise(tmp_path: Path) -> None:
    file = suite(tmp_path, original=ORIGINAL)
    cells = planned(suite=file, replicate=True, stress=("quantise8",), nulls=("unrelated",))
    original, method = cells["original#0"], cells["knowledge/rmu#0"]
    assert method.spec.parents == (original.id,)
    assert method.id != planned()["knowledge/rmu#0"].id
    for label in ("knowledge/noise(rmu)#0", "knowledge/replica(rmu)#0"):
        assert cells[label].spec.parents == (method.id, original.id)
        assert (cells[label].spec.start, cells[label].spec.beside is None) == (original.id, False)
    assert cells["knowledge/unrelated#0"].spec.start == original.id
    assert cells["original+quantise8#0"].role == "original"
    toxicity = planned(suite=file, tracks=("toxicity",), tasks=None)
    assert toxicity.keys() == {"base", "toxicity/rmu#0", "toxicity/noise(rmu)#0"}, "that track names none"


def test_what_cannot_be_is_refused_before_anything_runs(retrained: Path, by_folder: Result, tmp_path: Path) -> None:
    said = refused(references={"retian": retrained})
    assert said == "Unknown role 'retian' of a reference. Did you mean 'retain'? Known: original, retain."
    assert "unknown track 'knowlege'. Did you mean 'knowledge'?" in refused(references={"knowlege/retain": retrained})
    assert "does not exist" in refused(references={"retain": tmp_path / "none"})
    assert "'retain' is the name of the reference's row" in refused(
        references={"retain": retrained}, checkpoints={"retain": retrained}
    )
    files = log_of(by_folder, "retain", tmp_path)
    assert "methods start from `original`" in refused(references={"original": files["wmdp"]})
    assert "path, hub, finetune and records, here path and hub is given" in refused(
        suite=suite(tmp_path, retain={"path": "reference", "hub": "owner/name"})
    )
    assert "stored records stand for `retain` alone" in refused(suite=suite(tmp_path, original={"records": files}))
    wrong = suite(tmp_path, retain={"records": {"wmpd": files["wmdp"]}})
    assert "unknown task 'wmpd'. Did you mean 'wmdp'?" in refused(suite=wrong)
    other = suite(tmp_path, retain={"records": {"mmlu": files["wmdp"]}})
    assert "is none of the task's 648 items" in refused(suite=other)
    gone = suite(tmp_path, retain={"records": {"wmdp": "gone.jsonl"}})
    assert "The values of retain: 'gone.jsonl' is not there; looked for" in refused(suite=gone)
    bad = suite(tmp_path, retain={"finetune": {"text": FORGET, "training": {"stepz": 3}}})
    assert "unknown key 'stepz'. Did you mean 'steps'?" in refused(suite=bad)


def test_a_method_at_decoding_time_cannot_start_from_an_original(tmp_path: Path) -> None:
    file = suite(tmp_path, original=ORIGINAL)
    assert "Method uld works at decoding time on the base's logits" in refused(suite=file, methods=("uld",))
    plan = make_plan(Request(suite=file, **QUICK), None)
    assert not any(cell.spec.method == "uld" for cell in plan.cells)
    assert any("uld is left out" in note for note in plan.notes)


def test_an_original_of_another_architecture_is_refused_with_what_to_do(folder: Path) -> None:
    said = refused(references={"original": folder})
    assert "The original model is of another size than base" in said
    assert f"--models {folder}" in said


def test_a_folder_and_its_own_stored_log_give_the_same_numbers(by_folder: Result, tmp_path: Path) -> None:
    files = log_of(by_folder, "retain", tmp_path)
    file = suite(tmp_path, {"composites": COMPOSITES}, retain={"records": files})
    asked = Request(suite=file, methods=("rmu",), **QUICK)
    stored = evaluate(asked, output=tmp_path / "store", executor="inline")
    assert not stored.failures
    assert not any(cell.role for cell in stored.plan.cells), "nothing is made or measured"
    ours, theirs = row_of(stored, "retain"), row_of(by_folder, "retain")
    apart = {key for key in ours if ours[key] != theirs[key]}
    assert apart <= {"method", "cells", "warnings"}, "the same numbers and intervals"
    assert (ours["kind"], ours["rank"], ours["claims"]) == ("reference", None, None)
    assert stored.board.verdicts == by_folder.board.verdicts
    assert row_of(stored, "rmu") == row_of(by_folder, "rmu")
    assert stored.board.composites == by_folder.board.composites
    assert all(value["value"] for row in stored.board.composites[0]["rows"] for value in row["values"].values())
    said = dry_run(asked, tmp_path / "store", 8)
    assert "Nothing to make: retain of knowledge is stored values of mmlu (mmlu.jsonl), wmdp" in said.to_text()
    for file in files.values():
        Path(file).unlink()
    assert verify(stored.store).whole, "the plan holds the values"
    merged = merge((stored.store.root,), tmp_path / "merged")
    assert merged.plans == ["mine"]
    assert board_of(stored.plan, Store.open(tmp_path / "merged")).rows == stored.board.rows


def test_a_stored_log_lacks_what_it_lacks_and_says_so(by_folder: Result, tmp_path: Path) -> None:
    files = log_of(by_folder, "retain", tmp_path)
    rows = [json.loads(line) for line in Path(files["wmdp"]).read_text().splitlines()]
    Path(files["wmdp"]).write_text("".join(json.dumps(row) + "\n" for row in rows[:5]))
    asked = Request(methods=("rmu",), references={"retain": Path(files["wmdp"])}, **QUICK)
    result = evaluate(asked, output=tmp_path / "store", executor="inline")
    row = row_of(result, "retain")
    assert (row["s_unlearning"], row["retain"], row["forget"]["n"]) == (None, None, 5)
    said = " ".join(row["warnings"])
    assert "has no score of mmlu: a stored log has no items of it" in said
    assert "wmdp.jsonl has values of 5 of the 8 items of wmdp" in said
    assert "not stored" in result.board.to_markdown()
    assert not result.failures


def test_a_log_that_serves_no_composite_is_refused(by_folder: Result, tmp_path: Path) -> None:
    files = log_of(by_folder, "retain", tmp_path)
    more = {"composites": {"quality": COMPOSITES["quality"]}}
    asked = Request(suite=suite(tmp_path, more, retain={"records": {"mmlu": files["mmlu"]}}), **QUICK)
    with pytest.raises(UserError, match=r"serve no composite \(quality\): quality needs wmdp.probability of them"):
        evaluate(asked, output=tmp_path / "store", executor="inline")
    assert not list((tmp_path / "store" / "cells").iterdir()), "nothing ran"


def test_stored_values_stand_as_rows(by_folder: Result, tmp_path: Path) -> None:
    files = log_of(by_folder, "knowledge/rmu#0", tmp_path)
    asked = Request(
        suite=suite(tmp_path, {"logs": {"theirs": files}}),
        methods=("none",),
        checkpoints={"some": Path(files["wmdp"])},
        **QUICK,
    )
    result = evaluate(asked, output=tmp_path / "store", executor="inline")
    row, rmu = row_of(result, "theirs"), row_of(by_folder, "rmu")
    assert (row["kind"], row["method"], row["rank"]["low"]) == ("import", "log", 1)
    assert row["s_unlearning"] == rmu["s_unlearning"]
    assert row["delta_base"] == rmu["delta_base"]
    assert row_of(result, "some")["s_unlearning"] is None
    assert "has no score of mmlu: a stored log has no items of it" in row_of(result, "some")["warnings"]
    assert [state.cell.spec.label for state in result.cells] == ["base"]
    records = load_records(result.store.root)
    theirs = records[records["variant"] == "theirs"].set_index(["task", "item"])
    given = {(task, row["item"]): row for task, file in files.items() for row in read_jsonl(Path(file))}
    assert set(theirs.index) == set(given)
    assert all(theirs.loc[key, "acc"] == row["scores"]["acc"] for key, row in given.items())
    assert {tuple(row) for row in theirs[["model", "track", "method"]].to_numpy()} == {("micro", "knowledge", "log")}
    assert "The checkpoint 'rmu' is called like" in refused(checkpoints={"rmu": Path(files["wmdp"])})


def test_values_without_ids_are_matched_by_place(tmp_path: Path) -> None:
    count = len(make_plan(Request(methods=("none",), **{**QUICK, "limit": None}), None).tasks["wmdp"].build()[1])
    values = {"avg_gt_loss": {str(place): place / count for place in range(count)}}
    (tmp_path / "log.json").write_text(json.dumps({"eval_log_forget.json": values}))
    asked = Request(methods=("none",), references={"retain": tmp_path / "log.json"}, **{**QUICK, "limit": None})
    plan = make_plan(asked, None)
    (log,) = plan.logs
    items = plan.tasks["wmdp"].build()[1]
    assert [row["item"] for row in log.records["wmdp"]] == [item.id for item in items]
    assert [row["scores"]["avg_gt_loss"] for row in log.records["wmdp"]][:2] == [0.0, 1 / count]
    assert "has no ids: matched to the items of wmdp by place" in log.words


def test_a_fine_tuned_retain_is_made_once_with_its_own_seed(from_original: Result) -> None:
    assert not from_original.failures
    retain = [state for state in from_original.cells if state.cell.role == "retain" and not state.cell.spec.stress]
    assert [(state.cell.spec.label, state.finished) for state in retain] == [("retain#5", True)]
    row = row_of(from_original, "retain")
    assert (row["kind"], row["rank"], row["seeds"], row["noise"]) == ("reference", None, [], None)
    assert row["s_unlearning"]
    assert "trained from base with seed 5" in from_original.board.spec.facts["retain of knowledge"]


def test_the_board_compares_with_the_original_and_shows_base(from_original: Result) -> None:
    rows = {row["variant"]: row for row in from_original.board.rows}
    assert rows.keys() == {"base", "original", "retain", "rmu", "grad_ascent", "mine", "unrelated"}
    assert rows["original"]["delta_base"] is None
    assert rows["base"]["delta_base"] is not None
    forget = {name: row["forget"] for name, row in rows.items()}
    for name in ("rmu", "base", "mine"):
        gap = forget[name]["value"] - forget["original"]["value"]
        assert forget[name]["delta_base"]["value"] == pytest.approx(gap, abs=1e-6)
    text = from_original.board.to_markdown()
    assert "Δ original" in text
    assert "**`original`** stands in base's place on knowledge" in " ".join(text.split())
    assert "base" not in from_original.board.verdicts[0]["sentence"]
    assert rows["rmu"]["stress"]["quantise8"]["s_unlearning"]
    assert rows["original"]["stress"]["relearn"]["s_unlearning"]
    assert json.loads(from_original.board.to_json())["tracks"]["knowledge"]["compared"] == "original"


def test_noise_has_the_norm_of_the_change_from_the_original(from_original: Result) -> None:
    found = deltas(from_original)
    original = found["original#0"]
    for name in ("rmu", "grad_ascent"):
        own, noise = found[f"knowledge/{name}#0"], found[f"knowledge/noise({name})#0"]
        assert own.keys() == noise.keys() == original.keys(), "all differ from base, as the original does"
        for key, before in original.items():
            moved, away = (float((delta[key] - before).norm()) for delta in (own, noise))
            assert moved == pytest.approx(away, rel=1e-3, abs=1e-7)
    assert any(not torch.equal(found["knowledge/rmu#0"][key], tensor) for key, tensor in original.items())


def test_a_method_from_the_original_is_that_method_on_the_exported_original(from_original: Result, tmp_path) -> None:
    export_cell("original", tmp_path / "model", from_original.store.root)
    asked = Request(methods=("rmu",), models=(tmp_path / "model",), noise=False, **QUICK)
    alone = evaluate(asked, output=tmp_path / "store", executor="inline")
    export_cell("knowledge/rmu", tmp_path / "alone", alone.store.root)
    export_cell("knowledge/rmu", tmp_path / "from", from_original.store.root)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("from", "alone"))
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def test_the_store_is_whole_and_nothing_is_done_again(from_original: Result, tmp_path: Path) -> None:
    store = from_original.store
    assert verify(store).whole
    assert not garbage(store).sizes
    merged = merge((store.root,), tmp_path / "merged")
    assert (merged.plans, merged.apart) == (["mine"], [])
    assert not verify(Store.open(tmp_path / "merged")).lacking
    assert cell_items("original", "wmdp", store.root, None, most=1).items[0].base is not None
    content = report([store.root], tmp_path / "report.md")
    assert {cell.kind for cell in content.runs[0].cells if cell.label.startswith(("original", "retain"))} == {
        "reference"
    }
    rows = estimates(from_original.plan, 8).rows
    assert all(row.estimate and row.estimate.memory_bytes for row in rows)


def test_a_folder_is_an_original_that_methods_start_from(retrained: Path, tmp_path: Path) -> None:
    asked = Request(methods=("rmu",), references={"original": retrained}, **QUICK)
    result = evaluate(asked, output=tmp_path / "store", executor="inline")
    alone = evaluate(
        Request(methods=("rmu",), models=(retrained,), **QUICK), output=tmp_path / "alone", executor="inline"
    )
    export_cell("knowledge/rmu", tmp_path / "from", result.store.root)
    export_cell("knowledge/rmu", tmp_path / "on", alone.store.root)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("from", "on"))
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    assert row_of(result, "rmu")["s_unlearning"] == row_of(alone, "rmu")["s_unlearning"]
    assert row_of(result, "rmu")["delta_base"] == row_of(alone, "rmu")["delta_base"], "against the original"
    assert row_of(result, "rmu")["noise"] == row_of(alone, "rmu")["noise"]


def test_what_starts_from_an_original_that_failed_is_not_begun(tmp_path: Path) -> None:
    broken = {"finetune": {"text": FORGET, "training": {"steps": 2, "learning_rate": 1e30}}}
    file = suite(tmp_path, original=broken)
    asked = Request(suite=file, methods=("rmu",), **QUICK)
    result = evaluate(asked, output=tmp_path / "store", executor="inline")
    assert result.failures.keys() == {"original#0", "knowledge/rmu#0"}
    assert result.failures["knowledge/rmu#0"].startswith("original#0 failed (")
    assert "so there is nothing to train" in result.failures["knowledge/rmu#0"]
    row = row_of(result, "rmu")
    assert (row["status"], row["delta_base"]) == ("failed", None)
    suite(tmp_path, original=ORIGINAL)
    again = evaluate(asked, output=tmp_path / "store", executor="inline")
    assert not again.failures, "the mended suite makes all of it"
    labels = [cell.name for cell in dry_run(asked, tmp_path / "store", 8).cells]
    assert labels == ["base", "original#0", "knowledge/rmu#0", "knowledge/noise(rmu)#0"], "in the order of making"
    assert all(cell.state == "finished" for cell in dry_run(asked, tmp_path / "store", 8).cells)


def test_the_command_line_does_the_same(cli, retrained: Path, by_folder: Result, tmp_path: Path) -> None:
    line = ["evaluate", "--methods", "rmu", "--tracks", "knowledge", "--tasks", "wmdp,mmlu", "--limit", "8"]
    line += ["--set", "training.steps=2", "--reference", f"knowledge/retain={retrained}", "--output", tmp_path]
    done = cli(*line)
    assert done.returncode == 0, done.stderr
    board = json.loads((tmp_path / "leaderboards" / "micro.json").read_text())
    assert "--reference knowledge/retain=FOLDER" in board["command"]
    assert (
        next(row for row in board["rows"] if row["variant"] == "retain")["cells"]
        == row_of(by_folder, "retain")["cells"]
    )
    assert cli(*line[:-2], "--reference", "toxicity/retain=x", "--output", tmp_path).returncode == 2
