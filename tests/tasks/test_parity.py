"""Item by item, our engine on our prompts gives the numbers of lm-eval's own `simple_evaluate` on the same questions.

lm-eval's side is built from the YAML files that it ships, on raw rows, so that a drift of our prompts shows. On more
questions of a real model, with the figures printed:

    UNLEARN_BENCH_PARITY=200 pytest tests/tasks/test_parity.py -k real -s
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from unlearn_bench.harness.engines.transformers import TransformersEngine
from unlearn_bench.harness.models.load import ModelSpec
from unlearn_bench.harness.store.files import read_jsonl
from unlearn_bench.tasks.base import ChoiceRequest, tasks

SUBJECTS = ("anatomy", "astronomy", "college_biology", "virology")
QUESTIONS = int(os.environ.get("UNLEARN_BENCH_PARITY") or 24)
TOLERANCE = 1e-3
"""Nats: both sides pad and batch in their own way."""


@dataclass
class Form:
    """A way to ask: the task and its settings, lm-eval's file for a subject, and how few questions are enough."""

    task: str
    file: str
    settings: dict[str, Any] = field(default_factory=dict)
    subjects: tuple[str, ...] = SUBJECTS
    divisor: int = 1
    chat: bool = False

    @property
    def shots(self) -> int:
        return self.settings.get("num_fewshot", 0)


CONTINUATION = "mmlu/continuation/mmlu_{}.yaml"
FORMS = {
    "letters": Form("mmlu", "mmlu/default/mmlu_{}.yaml"),
    "letters, five shots": Form("mmlu", "mmlu/default/mmlu_{}.yaml", {"num_fewshot": 5}, divisor=3),
    "continuation": Form("mmlu", CONTINUATION, {"form": "continuation", "describe": True}),
    "continuation, two shots": Form(
        "mmlu", CONTINUATION, {"form": "continuation", "describe": True, "num_fewshot": 2}, divisor=3
    ),
    "wmdp": Form("wmdp", "wmdp/wmdp_{}.yaml", {"topics": ("bio", "cyber", "chem")}, ("bio", "cyber", "chem"), 2),
}
CHATS = {
    "letters": Form("mmlu", "mmlu/default/mmlu_{}.yaml", divisor=2, chat=True),
    "letters, two shots": Form("mmlu", "mmlu/default/mmlu_{}.yaml", {"num_fewshot": 2}, divisor=3, chat=True),
}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    """lm-eval lists every package of the environment after each evaluation: seconds, and no part of a result."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)


def lm_eval_task(file: str, test: list[dict], dev: list[dict]) -> Any:
    """Return a task from a YAML file that lm-eval ships, with our rows instead of the hub's."""
    import lm_eval
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    path = Path(lm_eval.__file__).parent / "tasks" / file
    own = yaml.safe_load(path.read_text())
    config = yaml.safe_load((path.parent / own.pop("include")).read_text()) | own
    for key in ("dataset_path", "dataset_name", "tag", "task_alias"):
        config.pop(key, None)
    splits = {"test": Dataset.from_list(test), "dev": Dataset.from_list(dev)}
    return ConfigurableTask(config={**config, "custom_dataset": lambda **_: splits})


def lm_eval_answers(engine: TransformersEngine, form: Form, test: list[dict], dev: list[dict]) -> list[tuple]:
    """Return (context, choices, log-probabilities, greedy, acc) of each question, from `simple_evaluate`."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    def of(rows: list[dict], subject: str) -> list[dict]:
        return [row for row in rows if row["subject"] == subject]

    built = {s: lm_eval_task(form.file.format(s), of(test, s), of(dev, s)) for s in form.subjects}
    results = simple_evaluate(
        model=HFLM(pretrained=engine.model, tokenizer=engine.tokens.tokenizer, batch_size=8),
        tasks=list(built.values()),
        num_fewshot=form.shots,
        task_manager=TaskManager(include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
        apply_chat_template=form.chat,
        fewshot_as_multiturn=False,
    )
    assert results is not None
    found = {}
    for subject, task in built.items():
        for sample in results["samples"][task.config.task]:
            logprobs, greedy = zip(*sample["filtered_resps"], strict=True)
            contexts, choices = zip(*sample["arguments"], strict=True)
            assert len(set(contexts)) == 1
            found[subject, sample["doc_id"]] = (contexts[0], choices, logprobs, greedy, sample["acc"])
    places = [(row["subject"], sum(r["subject"] == row["subject"] for r in test[:n])) for n, row in enumerate(test)]
    return [found[place] for place in places]


def our_answers(engine: TransformersEngine, form: Form, test: list[dict], dev: list[dict]) -> list[tuple]:
    """Return the same from our task and engine, asked all at once."""
    kind = tasks.get(form.task)
    task = kind(kind.Settings.parse(form.settings, form.task), dev)
    items = task.items(test)
    requests = task.requests(items)
    outcomes = engine.score_choices(requests)
    records = task.score(items, outcomes)
    found = []
    for request, outcome, record in zip(requests, outcomes, records, strict=True):
        assert isinstance(request, ChoiceRequest)
        assert record.scores is not None
        context, choices = request.context, request.choices
        if form.chat:
            context = engine.tokens.chat(context.removeprefix(request.system), request.system)
            choices = tuple(choice.removeprefix(request.delimiter) for choice in choices)
        found.append((context, choices, outcome.logprobs, outcome.greedy, record.scores["acc"]))
    return found


def compare(name: str, engine: TransformersEngine, form: Form, test: list[dict], dev: list[dict]) -> None:
    ours, theirs = our_answers(engine, form, test, dev), lm_eval_answers(engine, form, test, dev)
    for one, other in zip(ours, theirs, strict=True):
        assert (one[0], one[1]) == (other[0], other[1])
    differences = np.abs(np.array([a[2] for a in ours]) - np.array([b[2] for b in theirs]))
    print(
        f"\n{name}: {len(ours)} questions, largest difference {differences.max():.1e} nats,"
        f" acc {np.mean([a[4] for a in ours]):.4f} and lm-eval's {np.mean([b[4] for b in theirs]):.4f}"
    )
    assert differences.max() <= TOLERANCE
    assert [list(a[3]) for a in ours] == [list(b[3]) for b in theirs]
    assert [a[4] for a in ours] == [b[4] for b in theirs]
    assert len({round(value, 4) for a in ours for value in a[2]}) > len(ours)


def spread(rows: list[dict], subjects: tuple[str, ...]) -> list[dict]:
    """Return the rows as questions of lm-eval's subjects, in turn."""
    columns = ("question", "choices", "answer")
    return [
        {**{key: row[key] for key in columns}, "subject": subjects[number % len(subjects)]}
        for number, row in enumerate(rows)
    ]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_embedded_model_answers_as_under_lm_eval(root: Path, form: Form):
    suite = root / "harness" / "suites" / "micro"
    engine = TransformersEngine(ModelSpec(name="micro", path=str(suite / "model")), batch_size=16)
    test = spread(read_jsonl(suite / "data" / f"{form.task}.jsonl")[:24], form.subjects)
    dev = spread(read_jsonl(suite / "data" / "mmlu_validation.jsonl")[:20], form.subjects)
    compare("micro", engine, form, test, dev)


@pytest.fixture(scope="module")
def real_engine(real_model: Path) -> TransformersEngine:
    return TransformersEngine(ModelSpec(name="real", path=str(real_model)), batch_size=16)


def mmlu_rows(data_root: Path, split: str, subjects: tuple[str, ...], each: int) -> list[dict]:
    """Return the first questions of some subjects of MMLU, the subjects in turn."""
    found = []
    for number, subject in enumerate(subjects):
        with (data_root / "mmlu" / split / f"{subject}_{split}.csv").open(encoding="utf-8", newline="") as lines:
            for place, line in zip(range(each), csv.DictReader(lines), strict=False):
                choices = [line[f"choice{index}"] for index in range(4)]
                row = {"question": line["question"], "choices": choices, "answer": int(line["answer"])}
                found.append((place, number, {**row, "subject": subject}))
    return [row for *_, row in sorted(found, key=lambda entry: entry[:2])]


def ask_real(name: str, engine: TransformersEngine, form: Form, data_root: Path) -> None:
    each = max(2, QUESTIONS // form.divisor // len(SUBJECTS))
    test, dev = (mmlu_rows(data_root, split, SUBJECTS, n) for split, n in (("test", each), ("dev", 5)))
    if form.subjects != SUBJECTS:
        test, dev = spread(test, form.subjects), spread(dev, form.subjects)
    compare(name, engine, form, test, dev)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_a_real_model_answers_real_questions_as_under_lm_eval(real_engine, data_root: Path, name: str):
    ask_real(f"real, {name}", real_engine, FORMS[name], data_root)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHATS)
def test_a_real_model_answers_in_a_chat_as_under_lm_eval(real_model: Path, data_root: Path, name: str):
    engine = TransformersEngine(ModelSpec(name="real", path=str(real_model), chat=True), batch_size=16)
    ask_real(f"real chat, {name}", engine, CHATS[name], data_root)
