"""Tasks of lm-eval by name: item by item what its `simple_evaluate` gives, or a clear refusal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import pytest
from unlearn_bench.harness.engines.transformers import TransformersEngine
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.planning.request import Request
from unlearn_bench.harness.planning.sources import SourceReader
from unlearn_bench.harness.records import Choices, Record
from unlearn_bench.tasks.base import tasks
from unlearn_bench.tasks.lm_eval import LMEval
from unlearn_bench.tasks.testing import check_task

MEAN = {"aggregation": "mean", "higher_is_better": True}
TASKS: dict[str, dict[str, Any]] = {
    "local_choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "FUNCTION",
        "doc_to_choice": "choices",
        "doc_to_target": 0,
        "num_fewshot": 1,
        "fewshot_split": "test",
        "metric_list": [{"metric": "acc", **MEAN}, {"metric": "acc_norm", **MEAN}],
    },
    "local_likely": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{question}}",
        "doc_to_target": " {{answer}}",
        "metric_list": [
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            {"metric": "acc", **MEAN},
        ],
    },
    "local_text": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}} {{answer}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "byte_perplexity"}, {"metric": "bits_per_byte"}],
    },
    "local_answer": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["."], "max_gen_toks": 12, "do_sample": False},
        "filter_list": [
            {"name": "as_is", "filter": [{"function": "take_first"}]},
            {"name": "lower", "filter": [{"function": "lowercase"}, {"function": "take_first"}]},
        ],
        "metric_list": [{"metric": "exact_match", **MEAN, "regexes_to_ignore": ["\\."]}],
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A folder of lm-eval tasks on questions of the embedded world."""
    place = tmp_path_factory.mktemp("lm_eval")
    lines = (root / "harness/suites/micro/data/qa_forget.jsonl").read_text().splitlines()[:10]
    rows = [json.loads(line) for line in lines]
    docs = [{**row, "choices": [row["answer"], *row["perturbed_answers"]]} for row in rows]
    keys = ("question", "answer", "choices")
    text = "\n".join(json.dumps({key: doc[key] for key in keys}) for doc in docs)
    (place / "docs.jsonl").write_text(text)
    (place / "ask.py").write_text("def ask(doc):\n    return doc['question']\n")
    for name, config in TASKS.items():
        write_task(place, name, config)
    write_task(place, "local_group", {"task": ["local_choice", "local_answer"]}, kind="group")
    return place


def write_task(place: Path, name: str, config: Mapping[str, Any], kind: str = "task", file: str = "docs.jsonl") -> None:
    """Write a YAML file of lm-eval."""
    own = {kind: name, **config, "metadata": {"version": 1.0}}
    if kind == "task":
        own |= {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(place / file)}}}
        own |= {"test_split": "test"}
    text = json.dumps(own).replace('"FUNCTION"', "!function ask.ask")
    (place / f"{name}.yaml").write_text(text)


@pytest.fixture
def datasets_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)


def planned(folder: Path, name: str, **settings: Any) -> LMEval:
    """Return a task with the settings that planning completes."""
    kind = tasks.get("lm_eval")
    given = kind.Settings.parse({"name": name, "include_path": str(folder), **settings}, "lm_eval")
    task = kind(kind.Settings.parse(kind.completed(given), "lm_eval"))
    assert isinstance(task, LMEval)
    return task


def ours(engine: TransformersEngine, task: LMEval) -> list[Record]:
    items = task.items(task.own_rows())
    requests: Any = task.requests(items)
    if task.needs == "generations":
        return task.score(items, engine.generate(requests, task.settings.decoding))
    return task.score(items, engine.score_choices(requests))


def theirs(engine: TransformersEngine, folder: Path, name: str, **options: Any) -> list[dict[str, Any]]:
    """Return lm-eval's own samples, in the order of its documents and filters."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    evaluation, wrapper = cast("Any", simple_evaluate), cast("Any", HFLM)
    results = evaluation(
        model=wrapper(pretrained=engine.model, tokenizer=engine.tokens.tokenizer, batch_size=4, **options),
        tasks=[name],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
    )
    return sorted(results["samples"][name], key=lambda sample: sample["doc_id"])


@pytest.fixture(scope="module")
def micro_engine(root: Path) -> TransformersEngine:
    """The embedded model."""
    from unlearn_bench.harness.models.load import ModelSpec

    spec = ModelSpec(name="micro", path=str(root / "harness/suites/micro/model"), digest="x")
    return TransformersEngine(spec)


@pytest.mark.usefixtures("datasets_here")
@pytest.mark.parametrize(
    ("name", "metric"), [("local_choice", "acc"), ("local_choice", "acc_norm"), ("local_likely", "acc")]
)
def test_choices_and_texts_score_as_under_lm_eval(
    micro_engine: TransformersEngine, folder: Path, name: str, metric: str
) -> None:
    task = planned(folder, name, metric=metric)
    samples = theirs(micro_engine, folder, name)
    records = ours(micro_engine, task)
    assert [record.scores[metric] for record in records if record.scores] == [s[metric] for s in samples]
    assert len(samples) == 10


@pytest.mark.usefixtures("datasets_here")
def test_log_probabilities_are_lm_evals(micro_engine: TransformersEngine, folder: Path) -> None:
    samples = theirs(micro_engine, folder, "local_likely")
    records = ours(micro_engine, planned(folder, "local_likely"))
    assert [r.scores["perplexity"] for r in records if r.scores] == pytest.approx(
        [s["perplexity"] for s in samples], abs=1e-4
    )


@pytest.mark.usefixtures("datasets_here")
def test_whole_texts_are_lm_evals(micro_engine: TransformersEngine, folder: Path) -> None:
    """Without lm-eval's second begin token: its HFLM puts one before a text that its tokenizer gave one already."""
    samples = theirs(micro_engine, folder, "local_text", add_bos_token=False)
    records = ours(micro_engine, planned(folder, "local_text"))
    for record, sample in zip(records, samples, strict=True):
        assert record.scores is not None
        assert (-record.scores["nll"], record.scores["words"]) == pytest.approx(sample["word_perplexity"], abs=1e-4)
        assert record.scores["bytes"] == sample["byte_perplexity"][1]


@pytest.mark.usefixtures("datasets_here")
@pytest.mark.parametrize("kept", ["as_is", "lower"])
def test_answers_are_cut_filtered_and_scored_as_under_lm_eval(
    micro_engine: TransformersEngine, folder: Path, kept: str
) -> None:
    task = planned(folder, "local_answer", filter=kept)
    samples = [s for s in theirs(micro_engine, folder, "local_answer") if s["filter"] == kept]
    items = task.items(task.own_rows())
    requests: Any = task.requests(items)
    outcomes = micro_engine.generate(requests, task.settings.decoding)
    assert [outcome.texts for outcome in outcomes] == [s["resps"][0] for s in samples]
    records = task.score(items, outcomes)
    assert [r.scores["exact_match"] for r in records if r.scores] == [s["exact_match"] for s in samples]


def test_it_keeps_the_contract(folder: Path) -> None:
    check_task("lm_eval", {"name": "local_choice", "include_path": str(folder), "filter": "none"})


def test_an_answer_that_is_not_finite_is_missing(folder: Path) -> None:
    task = planned(folder, "local_choice")
    [item, *_] = task.items(task.own_rows())
    count = len(item.doc["texts"])
    [record] = task.score([item], [Choices(item.id, [float("nan")] * count, [1] * count, [False] * count)])
    assert record.scores is None
    assert record.missing == "a log-probability is not finite"


def test_a_name_is_a_control_of_every_track_and_a_group_its_tasks(folder: Path) -> None:
    request = Request(suite="micro", methods=("none",), tasks=("lm_eval:local_group",), include_path=folder, limit=4)
    plan = make_plan(request, None)
    own = {name: task for name, task in plan.tasks.items() if name.startswith("lm_eval:")}
    assert set(own) == {"lm_eval:local_choice", "lm_eval:local_answer"}
    assert len(plan.tasks) > 2
    assert all(set(own) <= set(track.controls) for track in plan.suite.tracks.values())
    choice = own["lm_eval:local_choice"]
    assert choice.count == 4
    assert choice.without_data().metric.chance == pytest.approx(1 / choice_count(folder))
    assert choice.settings["version"] == "1.0"
    assert choice.settings["lm_eval"] == version("lm-eval")
    assert len(choice.settings["config"]) == 16
    assert own["lm_eval:local_answer"].without_data().needs == "generations"


def choice_count(folder: Path) -> float:
    docs = [json.loads(line) for line in (folder / "docs.jsonl").read_text().splitlines()]
    return len(docs) / sum(1 / len(doc["choices"]) for doc in docs)


def test_the_configuration_is_part_of_the_identity_and_its_place_is_not(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    for name in ("local_likely", "local_choice"):
        write_task(tmp_path, name, TASKS[name])
    for name in ("local_likely", "local_choice"):
        same = planned(tmp_path, name).settings.identity()
        assert same == planned(folder, name).settings.identity()
    (tmp_path / "ask.py").write_text("def ask(doc):\n    return doc['question'] + '?'\n")
    write_task(tmp_path, "local_choice2", TASKS["local_choice"])
    assert planned(tmp_path, "local_choice2").settings.config != planned(folder, "local_choice").settings.config
    write_task(tmp_path, "local_likely2", {**TASKS["local_likely"], "doc_to_target": "{{answer}}"})
    assert planned(tmp_path, "local_likely2").settings.config != planned(folder, "local_likely").settings.config


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("local_text", {"metric": "word_perplexity"}, "no mean of documents"),
        ("local_likely", {"metric": "perplexity"}, "no mean of documents"),
        ("local_choice", {"metric": "acc_nrm"}, "no metric 'acc_nrm'. Did you mean 'acc_norm'"),
        ("local_answer", {"filter": "upper"}, "it has as_is, lower"),
        ("local_group", {}, "is a group of lm-eval"),
    ],
)
def test_what_cannot_be_measured_is_refused_while_planning(
    folder: Path, name: str, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        planned(folder, name, **settings)


def test_an_unknown_name_is_refused_with_near_ones(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unlearn_bench.tasks import _lm_eval_source as source

    own = source.manager(str(folder), False)
    monkeypatch.setattr(source, "manager", lambda *_: own)
    with pytest.raises(UserError, match=r"no task 'local_chioce'\. Did you mean 'local_choice'"):
        source.known_names("local_chioce", str(folder))


def test_a_data_set_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    write_task(tmp_path, "local_gone", TASKS["local_likely"], file="gone.jsonl")
    with pytest.raises(UserError, match=r"local_gone' cannot be loaded.*HF_HOME"):
        planned(tmp_path, "local_gone")


def test_a_sketch_goes_on_where_the_data_cannot_be_had(tmp_path: Path) -> None:
    write_task(tmp_path, "local_gone", TASKS["local_likely"], file="gone.jsonl")
    request = Request(suite="micro", methods=("none",), tasks=("lm_eval:local_gone",), include_path=tmp_path)
    plan = make_plan(request, None, SourceReader(lenient=True))
    assert "local_gone" in " ".join(plan.unreached)


def test_contexts_that_differ_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_bytes((folder / "docs.jsonl").read_bytes())
    (tmp_path / "ask.py").write_text((folder / "ask.py").read_text())
    config = {
        **TASKS["local_choice"],
        "metric_list": [{"metric": "acc", **MEAN}, {"metric": "acc_mutual_info", **MEAN}],
    }
    write_task(tmp_path, "local_mutual", config)
    with pytest.raises(UserError, match="compares contexts"):
        planned(tmp_path, "local_mutual")
