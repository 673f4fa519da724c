"""Tuning: one budget for all, validation items only, the same outcome whatever the workers, nothing run twice."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from unlearn_bench.harness import Request, evaluate
from unlearn_bench.harness.cli import main
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.planning.plan import build_task, chosen_items
from unlearn_bench.harness.records import MANY, LogRole
from unlearn_bench.harness.results.provenance import tuned_facts
from unlearn_bench.harness.runtime import BOARD_SEED, TUNING_SEED, RunOptions
from unlearn_bench.harness.store.entries import Store
from unlearn_bench.harness.store.files import read_jsonl
from unlearn_bench.harness.suite import RangeSpec, load_suite
from unlearn_bench.harness.tuning.divergence import replicas_part, runaway
from unlearn_bench.harness.tuning.finals import final_of, winners
from unlearn_bench.harness.tuning.progress import Progress
from unlearn_bench.harness.tuning.space import STARTUP, Sampler, space_of
from unlearn_bench.harness.tuning.study import best_trials, plan_study, tune
from unlearn_bench.harness.tuning.suite_file import summary
from unlearn_bench.harness.tuning.trial import Trial
from unlearn_bench.methods.base import methods
from unlearn_bench.methods.rmu import RMU

BUDGET = 7
SUITE = {
    "extends": "micro",
    "search": {
        "rmu": {"layer": {"low": 2, "high": 8, "log": False}},
        "explodes": {"alpha": {"low": 1.0, "high": 10.0}},
    },
}


class Explodes(RMU):
    """A method whose loss is not a number unless its layer is the default."""

    def losses(self, batch):
        return {name: loss * float("nan") for name, loss in super().losses(batch).items()}


@pytest.fixture(scope="module")
def explodes():
    with methods.temporary("explodes", Explodes):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    (folder / "mine.yaml").write_text(yaml.safe_dump({**SUITE, "search": {"rmu": SUITE["search"]["rmu"]}}))
    return folder


def arguments(folder: Path, budget: int, name: str) -> list[str]:
    asked = ["tune", "--suite", str(folder / "mine.yaml"), "--methods", "rmu", "--tracks", "knowledge"]
    asked += ["--limit", "8", "--set", "training.steps=1", "--set", "rmu.alpha=30", "--budget", str(budget)]
    asked += ["--output", str(folder / f"store-{name}"), "--out", str(folder / f"{name}.yaml")]
    return [*asked, "--json"]


@pytest.fixture(scope="module")
def alone(cli, folder: Path) -> dict:
    """A search without workers, first a short one; what was made by then must not be made again."""
    done = cli(*arguments(folder, 3, "alone"))
    assert done.returncode == 0, done.stderr
    short = json.loads((folder / "alone.json").read_text())["trials"]
    made = {file: file.stat().st_mtime_ns for file in folder.glob("store-alone/*/*/manifest.json")}
    done = cli(*arguments(folder, BUDGET, "alone"))
    assert done.returncode == 0, done.stderr
    return {
        "short": short,
        "made": made,
        "said": json.loads(done.stdout),
        **json.loads((folder / "alone.json").read_text()),
    }


def test_a_longer_search_begins_with_the_shorter_and_makes_nothing_twice(alone, cli, folder: Path) -> None:
    assert len(alone["made"]) > 3
    assert {file: file.stat().st_mtime_ns for file in alone["made"]} == alone["made"]
    assert alone["trials"][:3] == alone["short"]
    now = {file: file.stat().st_mtime_ns for file in folder.glob("store-alone/*/*/manifest.json")}
    assert len(now) > len(alone["made"])
    done = cli(*arguments(folder, BUDGET, "alone"))
    assert done.returncode == 0, done.stderr
    assert {file: file.stat().st_mtime_ns for file in folder.glob("store-alone/*/*/manifest.json")} == now


def test_workers_have_no_say_in_what_is_found(alone, cli, folder: Path) -> None:
    done = cli(*arguments(folder, BUDGET, "pair"), "--executor", "local", "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "pair.json").read_text())["trials"] == alone["trials"]
    assert (folder / "pair.yaml").read_text().splitlines()[1:] == (folder / "alone.yaml").read_text().splitlines()[1:]


def test_every_trial_is_recorded_and_scored_and_the_first_has_the_defaults(alone) -> None:
    trials = alone["trials"]
    assert [trial["trial"] for trial in trials] == [f"rmu-{number:03d}" for number in range(BUDGET)]
    assert {trial["status"] for trial in trials} == {"ok"}
    assert all(0 <= trial["s_unlearning"] <= 1 and len(trial["cells"]) == 1 for trial in trials)
    first = {**trials[0]["settings"], **trials[0]["training"]}
    assert first["learning_rate"] == load_suite("micro").training.learning_rate
    assert first["layer"] == RMU.Settings().layer
    assert {trial["settings"]["alpha"] for trial in trials} == {30}, "what the user set is kept"
    assert len({json.dumps(trial["training"]) for trial in trials}) == BUDGET


def test_only_validation_items_are_asked(alone, folder: Path) -> None:
    suite = load_suite("micro")
    ids = {"reported": set(), "validation": set()}
    for name in ("wmdp", "mmlu"):
        spec = suite.tasks[name]
        for part, source in (("reported", spec.data), ("validation", spec.validation)):
            asked = spec.model_copy(update={"data": source})
            ids[part] |= {item.id for item in chosen_items(build_task(asked), asked, Path(suite.folder), None)}
    asked = {row["item"] for file in folder.glob("store-alone/outcomes/*/outcomes.jsonl") for row in read_jsonl(file)}
    assert len(asked) == 16
    assert asked <= ids["validation"]
    assert not asked & ids["reported"]


def test_what_is_written_is_a_suite_with_the_best_trial_alone(alone, folder: Path) -> None:
    trials, finals = ([Trial(**values) for values in alone[key]] for key in ("trials", "finals"))
    best = winners(trials, finals)["knowledge"]["rmu"]
    suite = load_suite(str(folder / "alone.yaml"))
    variant = suite.variants["knowledge"]["rmu"]
    assert variant.identity() == {"method": "rmu", "settings": best.settings, "training": best.training}
    assert suite.training.steps == 1
    assert suite.tuned["knowledge"]["rmu"].trials == BUDGET
    assert suite.tuned["knowledge"]["rmu"].found.keys() == alone["space"]["rmu"].keys()
    assert suite.variants["toxicity"] == load_suite("micro").variants["toxicity"]
    assert f"{BUDGET} trials" in suite.tuning
    assert str(folder) not in (folder / "alone.yaml").read_text() + (folder / "alone.json").read_text()
    (row,) = alone["said"]["rows"]
    assert (row["trial"], row["s_best"], row["failed"]) == (best.trial, best.s_unlearning, 0)


def test_a_board_says_which_rows_were_tuned_and_which_were_not(alone, explodes, folder: Path) -> None:
    own, micro = str(folder / "alone.yaml"), ("knowledge",)
    asked = Request(suite=own, methods=("rmu", "cosine_meta_rmu", "explodes"), tracks=micro, limit=12)
    facts = tuned_facts(make_plan(asked, None))
    assert facts["tuning"] == load_suite(own).tuning
    assert f"tuned in {BUDGET} trials a track: rmu (layer," in facts["settings"]
    assert "not tuned, by default: explodes" in facts["settings"]
    for changed in ("rmu.alpha=3", "training.learning_rate=0.1"):
        by_hand = tuned_facts(make_plan(replace(asked, methods=("rmu",), settings=(changed,)), None))["settings"]
        assert "tuned in" not in by_hand, changed
        assert "set by hand: rmu" in by_hand, changed
    assert tuned_facts(make_plan(replace(asked, suite="micro"), None))["settings"].count("tuned in") == 1


def test_a_failed_trial_counts_in_the_budget_and_says_why(explodes, folder: Path, tmp_path: Path) -> None:
    (folder / "both.yaml").write_text(yaml.safe_dump(SUITE))
    asked = Request(
        suite=str(folder / "both.yaml"),
        methods=("explodes",),
        tracks=("knowledge",),
        limit=8,
        seeds=(5,),
        settings=("training.steps=1", "training.learning_rate=0.001", "explodes.layer=3"),
    )
    trials = tune(plan_study(asked, 3), tmp_path, RunOptions(executor="inline"))
    assert [trial.status for trial in trials] == ["failed"] * 3
    assert all(trial.s_unlearning is None and trial.failure for trial in trials)
    assert best_trials(trials) == {}


def test_settings_that_were_tried_before_are_not_trained_again(tmp_path: Path, folder: Path) -> None:
    (folder / "two.yaml").write_text(
        yaml.safe_dump({"extends": "micro", "search": {"rmu": {"layer": {"low": 3, "high": 4, "log": False}}}})
    )
    fixed = tuple(f"rmu.{key}=30" for key in {*RMU.search, "alpha"} - {"layer"})
    asked = Request(
        suite=str(folder / "two.yaml"),
        methods=("rmu",),
        tracks=("knowledge",),
        limit=8,
        seeds=(BOARD_SEED,),
        settings=("training.steps=1", "training.learning_rate=0.001", *fixed),
    )
    lines: list[str] = []
    trials = tune(plan_study(asked, STARTUP), tmp_path, RunOptions(executor="inline"), lines.append)
    assert "seed 0 is also that of boards" in lines[0]
    tried = {trial.settings["layer"]: trial.cells for trial in trials}
    assert len(trials) == STARTUP
    assert len(list(tmp_path.glob("cells/*/manifest.json"))) == len(tried) < STARTUP
    assert all(trial.cells == tried[trial.settings["layer"]] for trial in trials)


def test_trials_have_a_seed_that_boards_have_not_unless_it_is_asked_for() -> None:
    asked = Request(methods=("rmu",))
    done = CliRunner().invoke(main, ["tune", "--methods", "rmu", "--dry-run", "--json"])
    assert json.loads(done.stdout)["training_seeds"] == plan_study(asked, 2).facts()["training_seeds"] == [TUNING_SEED]
    assert make_plan(asked, None).seeds == (BOARD_SEED,)
    assert plan_study(replace(asked, seeds=(BOARD_SEED,)), 2).facts()["training_seeds"] == [BOARD_SEED]


# Search


def drive(score, budget: int, seed: int = 0, excess=lambda values: 0.0) -> list[dict]:
    """Search for the greatest score; return the points that were tried."""
    suite = load_suite("micro").model_copy(update={"search": {"rmu": {"alpha": RangeSpec(low=1.0, high=100.0)}}})
    space = space_of("rmu", suite, 12, {"rmu": dict.fromkeys({*RMU.search} - {"alpha"}), "training": {"steps": 1}})
    search, tried = Sampler(space, {"alpha": 1200.0, "training.learning_rate": 1e-4}, seed), []
    for _ in range(budget):
        point = search.ask()
        tried.append(point.values)
        search.tell(point, score(point.values), excess(point.values))
    return tried


def share_of_late(kept, score, excess=lambda values: 0.0) -> float:
    """Return the share of the last points, of several searches, that `kept` is true of."""
    late = [values for seed in range(12) for values in drive(score, 30, seed, excess)[-10:]]
    return sum(map(kept, late)) / len(late)


def near_ten(values: dict) -> float:
    return -abs(values["alpha"] - 10) / 10


def test_a_search_is_a_function_of_its_seed_and_begins_with_the_defaults() -> None:
    assert drive(near_ten, 12) == drive(near_ten, 12)
    assert drive(near_ten, 12) != drive(near_ten, 12, seed=1)
    assert drive(near_ten, 12)[0] == {"alpha": 1200.0, "training.learning_rate": 1e-4}
    assert all(1 <= values["alpha"] <= 100 for values in drive(near_ten, 12)[1:])


def test_a_search_learns_from_scores_not_from_failures() -> None:
    """On a logarithmic scale, 5 to 20 is less than a third of 1 to 100."""
    assert share_of_late(lambda values: 5 <= values["alpha"] <= 20, near_ten) > 0.45
    assert share_of_late(lambda values: 5 <= values["alpha"] <= 20, lambda values: None) < 0.4


def test_a_search_keeps_away_from_broken_answers_however_high_their_score() -> None:
    def excess(values: dict) -> float:
        return 0.9 if values["alpha"] > 10 else -MANY

    assert share_of_late(lambda values: values["alpha"] <= 10, lambda values: values["alpha"], excess) > 0.5
    assert share_of_late(lambda values: values["alpha"] <= 10, lambda values: values["alpha"]) < 0.3


def trial(number: int, s: float | None = 0.5, broken: float = 0.0, retain: float = 0.5, **more) -> Trial:
    status = "failed" if s is None else "ok"
    return Trial("t", "rmu", f"rmu-{number}", {"alpha": number}, {}, status, s, 0.5, retain, broken, **more)


def best_of(*trials: Trial) -> str:
    return best_trials(trials)["t"]["rmu"].trial


def test_the_best_trial_is_not_a_broken_one() -> None:
    trials = [trial(0, 0.9, 0.5), trial(1, 0.4), trial(2, 0.6, 0.1), trial(3, None), trial(4, 0.6)]
    assert best_of(*trials) == "rmu-2"
    assert best_of(trials[0], trials[3]) == "rmu-0"
    assert best_trials([trials[3]]) == {}


def test_where_no_trial_speaks_the_least_broken_wins_and_never_the_highest_s() -> None:
    assert best_of(trial(0, 0.6, 0.86), trial(1, 0.57, 0.15), trial(2, 0.9, 1.0)) == "rmu-1"
    assert best_of(trial(0, 0.9, 1.0, 0.3), trial(1, 0.1, 1.0, 0.6)) == "rmu-1", "of equal ones, the most utility"
    assert best_of(trial(0, 0.9, 0.11), trial(1, 0.1, 0.10)) == "rmu-1", "a tenth is no more than a tenth"
    assert best_of(trial(0, None), trial(1, 0.0, 1.0)) == "rmu-1"


def test_a_trial_at_the_edge_of_divergence_does_not_win() -> None:
    edge = trial(0, 0.9, edge="it ran away")
    assert best_of(edge, trial(1, 0.2)) == "rmu-1"
    assert best_of(edge, trial(1, 0.2, 0.5)) == "rmu-1"
    assert best_of(edge, trial(1, None)) == "rmu-0"
    assert edge.excess > trial(1, broken=0.5).excess > 0 > trial(2).excess, "and the sampler keeps away from it"


def test_a_best_trial_that_costs_utility_is_doubted() -> None:
    study = plan_study(Request(methods=("rmu",), tracks=("knowledge",)), 1)

    def doubt(loss: float | None, **more) -> str | None:
        best = replace(trial(0, loss=loss, **more), track="knowledge")
        return summary(Path("own.yaml"), study, [best], {"knowledge": {"rmu": best}}).rows[0].doubt

    assert doubt(0.05) is doubt(-0.1) is doubt(None) is None
    assert (
        doubt(0.06) == "the utility of rmu-0 lies 0.060 below base, past the margin of 0.05: a board may find it lost"
    )
    assert "the least broken" in (doubt(0.06, broken=0.2) or "")


LOSSES: dict[str, LogRole] = {"forget": "loss", "retain": "loss", "total": "total", "reward": "other"}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"forget": -1.0 - step} for step in range(20)], "ascent without a bound"),
        ([{"forget": -6.0}] * 20, None),
        ([{"forget": -1.0}, {"forget": -8.0}, {"forget": -1.0}], "fell to -8.0 nats, past -ln |V| = -7.6"),
        ([{"reward": -100.0}] * 20, None),
        ([{"forget": 100.0, "total": 100.0 - step} for step in range(20)], None),
        ([{"total": 3.0 + step / 2} for step in range(20)], "rose to 12.5"),
        ([{"total": 5.0}] * 15 + [{"total": 10.5}] + [{"total": 5.0}] * 4, "rose to 10.5"),
        ([{"total": 5.0}] * 15 + [{"total": 9.5}] + [{"total": 5.0}] * 4, None),
        ([{"total": 1.0}, {"total": 9.0}], None),
        ([{"total": -1.0 - step / 100} for step in range(20)], None),
        ([], None),
        ([{"grad_norm": 1e9}] * 20, None),
    ],
)
def test_a_log_tells_a_training_that_ran_away(rows, words) -> None:
    found = runaway([{"step": step, **row} for step, row in enumerate(rows)], LOSSES, 1936)
    assert found is None if words is None else words in (found or "")


def test_seeds_that_lie_far_apart_are_the_edge() -> None:
    assert replicas_part({"0": 0.0, "1": 0.245, "2": 0.627})
    assert replicas_part({"0": 0.458, "1": 0.369, "2": 0.300}) is None
    assert replicas_part({"0": 0.0, "1": 0.0, "2": 0.0}) is None


def test_finalists_are_decided_by_their_seeds_and_the_worst_of_them() -> None:
    def decided(number: int, *results: Trial) -> Trial:
        return final_of(trial(number, 0.9), dict(enumerate(results)))

    lucky = decided(0, trial(0, 0.6), trial(0, 0.3), trial(0, 0.4))
    steady = decided(1, trial(1, 0.5), trial(1, 0.5), trial(1, 0.5))
    assert lucky.seeds == {"0": 0.6, "1": 0.3, "2": 0.4}
    assert lucky.edge is not None
    assert (steady.s_unlearning, steady.edge) == (0.5, None)
    assert decided(2, trial(2), trial(2, broken=0.9), trial(2)).broken == 0.9
    assert "seed 1" in (decided(3, trial(3), trial(3, None, failure="no"), trial(3)).edge or "")
    assert decided(4, trial(4), trial(4, edge="ran away"), trial(4)).edge == "ran away"
    gone = decided(5, trial(5, None, failure="no"), trial(5, None, failure="no"))
    assert (gone.s_unlearning, gone.failure) == (None, "failed with seed 0: no")
    searched = [trial(0, 0.9), trial(1, 0.8), trial(2, 0.1)]
    assert winners(searched, [lucky, steady])["t"]["rmu"].trial == "rmu-1"
    assert winners(searched, [])["t"]["rmu"].trial == "rmu-0"
    assert winners(searched, [gone])["t"]["rmu"].trial == "rmu-0"


def test_finals_of_a_search_are_trained_with_seeds_of_no_board(alone, folder: Path) -> None:
    finals = alone["finals"]
    assert len(finals) == 3
    assert all(list(final["seeds"]) == ["1000", "1001", "1002"] for final in finals)
    assert all(len(final["cells"]) == 3 for final in finals)
    by_name = {each["trial"]: each for each in alone["trials"]}
    for final in finals:
        assert final["seeds"]["1000"] == by_name[final["trial"]]["s_unlearning"]
        assert final["s_unlearning"] == pytest.approx(sum(final["seeds"].values()) / 3, abs=1e-6)
    (row,) = alone["said"]["rows"]
    assert row["s_search"] == by_name[row["trial"]]["s_unlearning"]
    tuned = load_suite(str(folder / "alone.yaml")).tuned["knowledge"]["rmu"]
    assert tuned.validation == {"s": row["s_best"], "gain": row["gain"], "seeds": 3}
    assert "decided on training seeds 1000, 1001, 1002" in load_suite(str(folder / "alone.yaml")).tuning


def test_a_board_shows_the_optimism_of_a_search(folder: Path, alone, tmp_path: Path) -> None:
    asked = Request(suite=str(folder / "alone.yaml"), methods=("rmu",), tracks=("knowledge",), limit=8)
    result = evaluate(asked, output=tmp_path, executor="inline")
    told = result.board.spec.facts["tuning optimism"]
    (row,) = alone["said"]["rows"]
    gain = next(each["delta_base"]["value"] for each in result.board.rows if each["variant"] == "rmu")
    assert f"knowledge rmu {row['gain']:+.3f} → {gain:+.3f}" in told
    by_hand = evaluate(replace(asked, settings=("rmu.alpha=3",)), output=tmp_path, executor="inline")
    assert "tuning optimism" not in by_hand.board.spec.facts
    retrained = replace(asked, suite="micro", settings=("training.steps=1",))
    other = evaluate(retrained, output=tmp_path, executor="inline")
    assert "knowledge rmu" in other.board.spec.facts["tuning optimism"], "of the suite that was run"


def test_layers_are_searched_by_the_models_depth(monkeypatch) -> None:
    from unlearn_bench.methods.base import Depth

    monkeypatch.setattr(RMU, "search", {"layer": Depth(0.15, 0.7)})
    suite = load_suite("paper")
    for depth, ends in ((12, (2, 8)), (32, (5, 22)), (2, (1, 1))):
        layer = space_of("rmu", suite, depth, {})["layer"]
        assert (layer.low, layer.high) == ends
    assert "layer" not in space_of("rmu", suite, 12, {"rmu": {"layer": 3}})


# Refusals


@pytest.mark.parametrize(
    ("changes", "asked", "words"),
    [
        ({"tasks": {"mmlu": {"validation": None}}}, {}, "mmlu of suite micro has no validation items"),
        ({"tasks": {"mmlu": {"validation": {"path": "data/mmlu.jsonl"}}}}, {}, "are also reported"),
        ({"search": {"rmu": {"layr": {"low": 1, "high": 2}}}}, {}, "unknown setting 'layr'. Did you mean 'layer'"),
        ({"search": {"rmv": {"layer": {"low": 1, "high": 2}}}}, {}, "Unknown method 'rmv'"),
        ({"search": {"rmu": {"layer": {"low": 3, "high": 2}}}}, {}, "low <= high"),
        ({}, {"methods": ("rmz",)}, "Unknown method 'rmz'"),
        ({}, {"tracks": ("knowlege",)}, "Unknown track 'knowlege'. Did you mean 'knowledge'"),
        ({}, {"settings": ("adap_rmu.layer=3",)}, "adap_rmu is not among the methods that are tuned"),
        ({}, {"suite": "paper", "models": None}, "on one model; choose it with --models (Llama-3.1-8B, "),
    ],
)
def test_what_cannot_be_tuned_is_refused_before_anything_runs(changes, asked, words, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"extends": "micro", **changes}))
    usual = {"suite": str(tmp_path / "own.yaml"), "methods": ("rmu",), "tracks": ("knowledge",)}
    with pytest.raises(UserError, match=words.replace("(", r"\(")):
        plan_study(Request(**{**usual, **asked}), 4)


def test_a_dry_run_tells_the_time_by_the_store(alone, folder: Path) -> None:
    done = CliRunner().invoke(main, [*arguments(folder, BUDGET, "alone"), "--workers", "2", "--dry-run"])
    said = json.loads(done.stdout)
    assert (said["trainings"], said["time"]["workers"]) == (BUDGET + 3 * 2, 2)
    assert said["time"]["known"] >= said["trainings"], "the shorter search had finalists of its own"
    assert said["time"]["minutes"] == pytest.approx(said["trainings"] * said["time"]["seconds"] / 2 / 60, abs=0.1)


def test_progress_goes_by_what_ran_and_not_by_what_was_there(tmp_path: Path) -> None:
    store, (old, new) = Store.create(tmp_path), ("0" * 16, "1" * 16)
    for cell, made in ((old, 1000), (new, 3000)):
        store.entry("cells", cell).make()
        store.entry("cells", cell).file("manifest.json").write_text("{}")
        os.utime(store.entry("cells", cell).file("manifest.json"), (made, made))
    progress = Progress(10, tmp_path)
    progress.began = 2000
    assert progress.after([trial(0, cells=[old, old, old])]) == "3 of 10 trainings"
    progress.began = time.time() - 120
    os.utime(store.entry("cells", new).file("manifest.json"))
    assert progress.after([trial(1, cells=[new])]) == "4 of 10 trainings, about 12 minutes left"


def test_the_suite_itself_is_never_overwritten(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump({"extends": "micro"}))
    asked = ("tune", "--suite", str(own), "--methods", "rmu", "--dry-run")
    done = CliRunner().invoke(main, [*asked, "--out", str(own)])
    assert done.exit_code == 2
    assert "is the suite file itself" in done.stderr
    assert not [*tmp_path.glob("*-tuned.yaml"), *tmp_path.glob("*.json")]


def test_a_data_folder_of_the_environment_selects_no_suite(tmp_path: Path) -> None:
    asked = ["tune", "--methods", "rmu", "--dry-run", "--json"]
    done = CliRunner().invoke(main, asked, env={"UNLEARN_BENCH_DATA": str(tmp_path)})
    assert json.loads(done.stdout)["suite"] == "micro"


def test_a_dry_run_counts_trainings_and_runs_nothing(tmp_path: Path) -> None:
    output = str(tmp_path / "store")
    asked = ["tune", "--suite", "micro", "--methods", "rmu,cosine_meta_rmu", "--budget", "5", "--seeds", "1,2"]
    asked += ["--output", output]
    said = json.loads(CliRunner().invoke(main, [*asked, "--dry-run", "--json"]).stdout)
    assert said["trainings"] == 2 * 2 * 5 * 2 + 2 * 2 * 3 * 1, "three finalists have one more seed each"
    assert (said["finalists"], said["final_seeds"]) == (3, [1, 2, TUNING_SEED])
    assert (said["time"]["known"], said["time"]["minutes"]) == (0, None)
    assert said["space"]["rmu"]["training.learning_rate"] == {"low": 3e-5, "high": 2e-2, "log": True, "whole": False}
    assert not (tmp_path / "store").exists()
    text = CliRunner().invoke(main, [*asked, "--dry-run"]).stdout
    assert "= 40 trainings" in text
    assert "decided on the seeds 1, 2, 1000: at most 12 more, 52 in all" in text
    alone = CliRunner().invoke(main, [*asked, "--dry-run", "--budget", "1"]).stdout
    assert "decided" not in alone, "one trial is no choice"
    many = CliRunner().invoke(main, [*asked, "--dry-run", "--seeds", "1,2,3"]).stdout
    assert "decided" not in many, "three seeds are three seeds"


def test_what_a_track_has_no_text_for_is_not_tuned_and_the_dry_run_says_so(tmp_path: Path) -> None:
    asked = ["tune", "--suite", "micro", "--tracks", "knowledge", "--output", str(tmp_path / "store"), "--dry-run"]
    said = json.loads(CliRunner().invoke(main, [*asked, "--methods", "family:preference", "--json"]).stdout)
    assert "npo" in said["methods"]
    assert "idk_dpo" not in said["methods"]
    assert any("no 'refusal' text" in note and "idk_dpo" in note for note in said["notes"])
    assert "no 'refusal' text beside forget rows: " in CliRunner().invoke(main, asked).stdout
    assert "'refusal' text" in CliRunner().invoke(main, [*asked, "--methods", "idk_dpo"]).output
