"""The command line as a user meets it: its output, its messages, its exit status; what a process adds in one run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from unlearn_bench.harness.cli import main

SMALL = ("--methods", "rmu", "--tracks", "knowledge", "--limit", 24, "--set", "training.steps=4", "--workers", 1)


@pytest.fixture(scope="module")
def store(process, tmp_path_factory) -> Path:
    """A small finished run by the installed command and a worker, made once."""
    output = tmp_path_factory.mktemp("run") / "results"
    done = process("evaluate", *SMALL, "--output", output)
    assert done.returncode == 0, done.stderr
    assert "unlearn-bench leaderboard --output" in done.stdout
    return output


def test_a_run_leaves_a_board_in_the_stable_format(store: Path) -> None:
    board = json.loads((store / "leaderboards" / "micro.json").read_text())
    assert board["schema"] == 1
    assert board["suite"] == "micro"
    rows = {row["method"]: row for row in board["rows"]}
    assert set(rows) >= {"base", "rmu"}
    row = rows["rmu"]
    assert row["status"] == "ok"
    assert row["seeds"] == [0]
    assert set(row["s_unlearning"]) >= {"value", "low", "high"}
    assert row["forget"]["task"] == "wmdp"
    assert row["forget"]["n"] == 24
    assert row["forget"]["missing"] == 0
    assert row["delta_noise"] is not None
    assert (store / "leaderboards" / "micro.md").read_text().count("rmu")


def test_the_board_names_no_place_and_no_time(store: Path) -> None:
    for file in (store / "leaderboards").iterdir():
        assert str(store.parent) not in file.read_text()
        assert str(Path.home()) not in file.read_text()


def test_a_second_run_makes_nothing_and_writes_the_same_board(cli, store: Path) -> None:
    boards = {file: file.read_bytes() for file in (store / "leaderboards").iterdir()}
    made = {file: file.stat().st_mtime_ns for file in store.glob("*/*/manifest.json")}
    done = cli("evaluate", *SMALL, "--output", store)
    assert done.returncode == 0, done.stderr
    assert {file: file.read_bytes() for file in boards} == boards
    assert {file: file.stat().st_mtime_ns for file in store.glob("*/*/manifest.json")} == made


def test_damage_is_found_and_redone_with_the_same_board(cli, store: Path) -> None:
    board = (store / "leaderboards" / "micro.json").read_bytes()
    delta = next(store.glob("cells/*/delta.safetensors"))
    content = bytearray(delta.read_bytes())
    content[-1] ^= 1
    delta.write_bytes(content)
    records = next(store.glob("records/*/records.jsonl"))
    records.write_text(records.read_text()[:-20])
    assert "to do" in cli("evaluate", *SMALL, "--output", store, "--dry-run").stdout
    done = cli("evaluate", *SMALL, "--output", store)
    assert done.returncode == 0, done.stderr
    assert (store / "leaderboards" / "micro.json").read_bytes() == board


def test_a_dry_run_says_what_remains_and_writes_nothing(cli, store: Path, tmp_path: Path) -> None:
    fresh = cli("evaluate", *SMALL, "--output", tmp_path / "new", "--dry-run", "--json")
    cells = json.loads(fresh.stdout)["cells"]
    assert [cell["name"] for cell in cells] == ["base", "knowledge/rmu#0", "knowledge/noise(rmu)#0"]
    assert all(cell["state"] == "to do" for cell in cells)
    assert not (tmp_path / "new").exists()
    again = cli("evaluate", *SMALL, "--output", store, "--dry-run", "--json")
    assert {cell["state"] for cell in json.loads(again.stdout)["cells"]} == {"finished"}


def test_the_board_can_be_printed_in_every_format(cli, store: Path) -> None:
    assert "rmu" in cli("leaderboard", "--output", store).stdout
    assert json.loads(cli("leaderboard", "--output", store, "--format", "json").stdout)["suite"] == "micro"
    assert cli("leaderboard", "--output", store, "--format", "csv").stdout.count("\n") == 3, "head, base, rmu"
    tidy = cli("leaderboard", "--output", store, "--format", "csv", "--tidy", "--track", "knowledge").stdout
    assert tidy.startswith("model,track,method,variant,kind,seeds,stress,quantity,")
    assert "add --format csv" in cli("leaderboard", "--output", store, "--tidy").stderr
    details = cli("leaderboard", "--output", store, "--details").stdout
    assert len(details) > len(cli("leaderboard", "--output", store).stdout)


def test_a_number_can_be_traced_to_items(cli, store: Path) -> None:
    rows = json.loads(cli("items", "rmu", "wmdp", "--output", store, "--most", 0, "--json").stdout)
    board = json.loads((store / "leaderboards" / "micro.json").read_text())
    value = next(row for row in board["rows"] if row["method"] == "rmu")["forget"]["value"]
    assert len(rows) == 24
    assert sum(row["scores"]["acc"] for row in rows) / 24 == pytest.approx(value, abs=1e-6)
    for row in rows:
        best = max(range(4), key=row["answer"]["logprobs"].__getitem__)
        assert row["scores"]["acc"] == float(best == row["asked"]["answer"])


def test_show_describes_methods_tasks_suites_and_cells(cli, store: Path) -> None:
    method = json.loads(cli("show", "rmu", "--json").stdout)
    assert method["settings"]["alpha"]["default"] == 1200
    assert "2605.26454" in method["citation"] + method["about"]
    assert json.loads(cli("show", "wmdp", "--json").stdout)["kind"] == "task"
    assert json.loads(cli("show", "micro", "--json").stdout)["tracks"]["knowledge"]["forget_task"] == "wmdp"
    cell = json.loads(cli("show", "knowledge/rmu#0", "--output", store, "--json").stdout)
    assert cell["state"] == "finished"
    assert cell["recorded"]["threads"] == 1
    assert cell["id"] in cli("show", cell["id"][:8], "--output", store).stdout


def test_list_names_what_is_registered(cli) -> None:
    methods = json.loads(cli("list", "methods", "--json").stdout)["rows"]
    assert {"rmu", "adap_rmu", "cosine_meta_rmu", "multi_layer_probe"} <= {row["name"] for row in methods}
    for what in ("tasks", "suites", "models", "engines", "executors", "scorers"):
        assert cli("list", what).returncode == 0
    statistics = {row["name"]: row for row in json.loads(cli("list", "statistics", "--json").stdout)["rows"]}
    assert statistics["ks"]["needs"] == "unlearned (items), retain (items)"
    assert statistics["harmonic_mean"]["needs"] == "*parts"
    assert statistics["quotient"]["about"].startswith("value / reference")
    assert statistics["auc"]["from"] == "unlearn_bench.leaderboards.stats.two_sample.auc"


def test_an_exported_cell_loads_and_scores_as_the_cell(cli, store: Path, tmp_path: Path) -> None:
    done = cli("export", "rmu", tmp_path / "model", "--output", store)
    assert done.returncode == 0, done.stderr
    done = cli(
        "evaluate", *SMALL[2:], "--methods", "rmu", "--checkpoint", f"mine={tmp_path / 'model'}", "--output", store
    )
    assert done.returncode == 0, done.stderr
    rows = {row["variant"]: row for row in json.loads((store / "leaderboards" / "micro.json").read_text())["rows"]}
    assert rows["mine"]["forget"]["value"] == rows["rmu"]["forget"]["value"]
    assert rows["mine"]["s_unlearning"] == rows["rmu"]["s_unlearning"]
    again = cli("export", "rmu", tmp_path / "model", "--output", store)
    assert again.returncode == 2
    assert "not an empty folder" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "rmu,npe"), "Unknown method 'npe'"),
        (("--methods", "rmuu"), "Did you mean 'rmu'"),
        (("--set", "rmu.alhpa=3"), "unknown key 'alhpa'. Did you mean 'alpha'?"),
        (("--set", "rmu"), "METHOD.KEY=VALUE"),
        (("--set", "training.lerning_rate=1"), "'learning_rate'"),
        (("--tracks", "toxcity"), "Did you mean 'toxicity'"),
        (("--suite", "mircro"), "Did you mean 'micro'"),
        (("--tasks", "wmpd"), "Did you mean 'wmdp'"),
        (("--models", "nowhere"), "neither a model of suite micro, nor a folder, nor a hub id"),
        (("--checkpoint", "mine"), "NAME=FOLDER"),
        (("--checkpoint", "mine=nowhere"), "no config.json"),
        (("--data-root", "nowhere", "--models", "nowhere"), "Data folder nowhere does not exist"),
        (("--seeds", "a"), "whole numbers"),
        (("--seeds", "-1"), "whole numbers"),
        (("--engine", "vlm"), "Unknown engine"),
        (("--scorer", "nowhere", "--tracks", "toxicity"), "Scorer folder nowhere does not exist"),
    ],
)
def test_bad_input_gets_one_clear_message_and_status_2(tmp_path: Path, arguments, message: str) -> None:
    done = CliRunner().invoke(main, ["evaluate", *arguments, "--output", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out").glob("cells/*"))


def test_a_message_comes_without_a_traceback_from_the_command_itself(process, tmp_path: Path) -> None:
    done = process("evaluate", "--methods", "rmu,npe", "--output", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: Unknown method 'npe'")
    assert done.stdout == ""


def test_an_unreadable_model_is_named(cli, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    empty = CliRunner().invoke(main, ["evaluate", "--models", str(folder), "--output", str(tmp_path / "out")])
    assert empty.exit_code == 2
    assert "holds no weights" in empty.stderr
    (folder / "model.safetensors").write_bytes(b"not a tensor")
    done = cli("evaluate", *SMALL, "--models", folder, "--output", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: Model folder {folder}: model.safetensors is cut off or damaged")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_output_is_named(cli, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    done = cli("evaluate", *SMALL, "--output", tmp_path / "out")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr


def test_an_output_that_is_no_folder_is_named(cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = cli("evaluate", *SMALL, "--output", tmp_path / "file" / "out")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr


def test_environment_variables_stand_in_for_options(cli, tmp_path: Path) -> None:
    done = cli(
        "evaluate", "--dry-run", "--json", env={"UNLEARN_BENCH_METHODS": "none", "UNLEARN_BENCH_OUTPUT": str(tmp_path)}
    )
    assert [cell["name"] for cell in json.loads(done.stdout)["cells"]] == ["base"]
    micro = cli("evaluate", "--methods", "none", "--dry-run", "--json", env={"UNLEARN_BENCH_DATA": str(tmp_path)})
    assert json.loads(micro.stdout)["suite"] == "micro"


def test_the_doctor_finds_this_machine_fit(cli, tmp_path: Path) -> None:
    done = cli("doctor", "--output", tmp_path / "out", "--json")
    found = {check["what"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 0
    assert found["suite micro"]["ok"]
    assert not found["hub"]["ok"]
