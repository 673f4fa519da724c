"""MMLU and WMDP: lm-eval's own prompts and metric, and nothing scored that was not measured."""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
import yaml
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.records import Choices, to_row
from unlearn_bench.harness.store.files import read_jsonl, write_jsonl
from unlearn_bench.tasks.base import ChoiceRequest, Task, tasks
from unlearn_bench.tasks.testing import check_task


def build(name: str, examples: Sequence[dict] = (), **settings) -> Task:
    kind = tasks.get(name)
    return kind(kind.Settings.parse(settings, name), examples)


def row(number: int, subject: str, **more) -> dict:
    choices = [f"one {number}", f"two {{{{ {number} }}}}", "it's “three”", "four\\n"]
    return {"question": f"  Question {number}?\n", "choices": choices, "answer": number % 4, "subject": subject, **more}


@cache
def lm_eval_folder() -> Path:
    import lm_eval

    return Path(lm_eval.__file__).parent / "tasks"


def lm_eval_requests(file: str, docs: list[dict], dev: Sequence[dict] = (), shots: int = 0) -> list[ChoiceRequest]:
    """Build the requests of a task of lm-eval from the YAML that it ships, on our rows."""
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    path = lm_eval_folder() / file
    own = yaml.safe_load(path.read_text())
    config = yaml.safe_load((path.parent / own.pop("include")).read_text()) | own
    for key in ("dataset_path", "dataset_name", "tag", "task_alias"):
        config.pop(key, None)
    columns = ("question", "choices", "answer", "subject")
    splits = {
        split: Dataset.from_list([{key: row[key] for key in columns} for row in rows])
        for split, rows in (("test", docs), ("dev", dev or docs))
    }
    task = ConfigurableTask(config={**config, "custom_dataset": lambda **_: splits, "num_fewshot": shots})
    task.build_all_requests()
    asked: dict[int, list] = {}
    for instance in task.instances:
        asked.setdefault(instance.doc_id, []).append(instance.args)
    return [ChoiceRequest("", args[0][0], tuple(choice for _, choice in args)) for args in asked.values()]


def asked(name: str, rows: list[dict], **settings) -> list[tuple]:
    task = build(name, **settings)
    return [(r.context, r.choices) for r in task.requests(task.items(rows))]


@pytest.mark.parametrize("topic", ["bio", "cyber", "chem"])
def test_wmdp_prompts_are_lm_evals(topic):
    rows = [row(number, topic) for number in range(3)]
    expected = lm_eval_requests(f"wmdp/wmdp_{topic}.yaml", rows)
    assert asked("wmdp", rows, topics=[topic]) == [(r.context, r.choices) for r in expected]


def test_mmlu_prompts_are_lm_evals_for_every_subject():
    files = sorted((lm_eval_folder() / "mmlu" / "default").glob("mmlu_*.yaml"))
    assert len(files) == 57
    for file in files:
        rows = [row(1, file.stem.removeprefix("mmlu_"))]
        [expected] = lm_eval_requests(f"mmlu/default/{file.name}", rows)
        assert asked("mmlu", rows) == [(expected.context, expected.choices)]


def test_the_continuation_form_is_lm_evals_mmlu_continuation():
    rows = [row(number, "anatomy") for number in range(3)]
    rows[0]["choices"][3] = "four"
    expected = lm_eval_requests("mmlu/continuation/mmlu_anatomy.yaml", rows)
    assert asked("mmlu", rows, form="continuation", describe=True) == [(r.context, r.choices) for r in expected]
    context, choices = asked("mmlu", rows, form="continuation")[1]
    assert context == "Question: Question 1?\nAnswer:"
    assert choices == tuple(" " + choice for choice in rows[1]["choices"])


@pytest.mark.parametrize(("form", "folder"), [("letters", "default"), ("continuation", "continuation")])
def test_few_shot_prompts_are_lm_evals_with_the_items_own_subject(form, folder):
    subjects = ("anatomy", "virology")
    rows = [row(number, subjects[number % 2]) for number in range(4)]
    dev = [row(number, subjects[number % 2]) for number in range(10, 18)]
    for data in (*rows, *dev):
        data["choices"] = [choice.replace("\\", "/").replace("{{", "(").replace("'", "") for choice in data["choices"]]
    expected = {}
    for subject in subjects:
        own = [[data for data in source if data["subject"] == subject] for source in (rows, dev)]
        requests = lm_eval_requests(f"mmlu/{folder}/mmlu_{subject}.yaml", *own, shots=3)
        expected |= {data["question"]: request for data, request in zip(own[0], requests, strict=True)}
    task = build("mmlu", dev, form=form, describe=True, num_fewshot=3)
    for data, request in zip(rows, task.requests(task.items(rows)), strict=True):
        wanted = expected[data["question"]]
        assert (request.context, request.choices) == (wanted.context, wanted.choices)
        assert request.context.startswith(request.system)
        shown = [example for example in dev if example["question"].strip() in request.context]
        assert shown == [example for example in dev if example["subject"] == data["subject"]][:3]


def test_other_examples_make_other_requests():
    rows, dev = [row(0, "anatomy")], [row(number, "anatomy") for number in range(1, 4)]
    first, second = (build("mmlu", examples, num_fewshot=2) for examples in (dev, dev[::-1]))
    assert first.requests(first.items(rows)) != second.requests(second.items(rows))
    assert asked("mmlu", rows) == [(r.context, r.choices) for r in build("mmlu", dev).requests(first.items(rows))]


def test_wmdp_shows_examples_of_the_items_topic():
    rows, dev = [row(0, "wmdp-bio"), row(1, "cyber")], [row(2, "biology"), row(3, "wmdp_cyber"), row(4, "chem")]
    task = build("wmdp", dev, num_fewshot=1)
    bio, cyber = (request.context for request in task.requests(task.items(rows)))
    assert ("Question 2?" in bio, "Question 3?" in bio) == (True, False)
    assert ("Question 2?" in cyber, "Question 3?" in cyber) == (False, True)


def test_examples_that_cannot_be_shown_are_said():
    rows, dev = [row(0, "anatomy"), row(1, "virology")], [row(2, "anatomy"), row(3, "anatomy"), row(4, "virology")]
    with pytest.raises(UserError, match="num_fewshot is 2, but there are no examples: name their data as `fewshot:`"):
        build("mmlu", num_fewshot=2).items(rows)
    with pytest.raises(UserError, match="`fewshot:` has 1 examples of 'virology'"):
        build("mmlu", dev, num_fewshot=2).items(rows)
    with pytest.raises(UserError, match=r"Few-shot examples of mmlu: row 2: 'answer' needs an answer from 0 to 3"):
        build("mmlu", [dev[0], {**dev[1], "answer": 9}], num_fewshot=1).items(rows)
    with pytest.raises(UserError, match="few-shot example of 'anatomy' is also asked"):
        build("mmlu", [rows[0], *dev], num_fewshot=1).items(rows)
    with pytest.raises(UserError, match="num_fewshot"):
        build("mmlu", num_fewshot=-1)
    assert len(build("mmlu", dev, num_fewshot=1).items(rows)) == 2


def test_items_are_stable_unique_and_clustered():
    task = build("mmlu")
    rows = [
        row(0, "anatomy"),
        row(1, "anatomy", id="own", fact="f1"),
        row(0, "virology"),
        row(2, "virology", fact="f1"),
    ]
    items = task.items(rows)
    first = items[0].id
    assert [item.id for item in items] == [first, "own", f"{first}-2", items[3].id]
    assert [item.cluster for item in items] == [first, "f1", first, "f1"]
    assert [item.stratum for item in items] == ["anatomy", "anatomy", "virology", "virology"]
    assert task.items(rows[2:])[1].id == items[3].id
    with pytest.raises(UserError, match="more than once in the data, the first is 'own'"):
        task.items([rows[1], rows[1]])


def test_rows_that_are_no_question_are_named():
    task = build("mmlu")
    for change, message in [
        ({"choices": ["a", "b"]}, "row 2: 'choices' needs a list of four choices, not .* name the four columns"),
        ({"choices": "['a' 'b' 'c' 'd']"}, "row 2: 'choices' needs a list of four choices"),
        ({"choices": ["a", None, "c", "d"]}, "row 2: entry 2 of 'choices' is null; write its text, or leave the row"),
        ({"choices": ["a", "b", " ", "d"]}, "row 2: entry 3 of 'choices' is blank"),
        ({"choices": ["a", "b", "c", 1.5]}, "row 2: entry 4 of 'choices' is 1.5, not text; write it in quotes"),
        ({"choices": [True, "b", "c", "d"]}, "row 2: entry 1 of 'choices' is True, not text"),
        ({"question": None}, "row 2: 'question' is null"),
        ({"question": "  "}, "row 2: 'question' is blank"),
        ({"question": ["Q?"]}, "row 2: 'question' is .* not text"),
        ({"subject": None}, "row 2: 'subject' is null"),
        ({"subject": ""}, "row 2: 'subject' is blank"),
        ({"fact": 1.0}, "row 2: 'fact' is 1.0, which is no name; write text or a whole number"),
        ({"id": True}, "row 2: 'id' is True, which is no name"),
        *(
            ({"answer": wrong}, rf"row 2: 'answer' needs an answer from 0 to 3 .* or from A to D, not {said}")
            for wrong, said in [
                (4, "4"),
                (-1, "-1"),
                ("E", "'E'"),
                ("b", "'b'"),
                ("4", "'4'"),
                (1.5, "1.5"),
                ("1.5", "'1.5'"),
                (True, "True"),
                (None, "null"),
                ("", "blank"),
                ([1], r"\[1\]"),
            ]
        ),
    ]:
        with pytest.raises(UserError, match=message):
            task.items([row(0, "a"), {**row(1, "a"), **change}])
    with pytest.raises(UserError, match="row 1 has no 'subject'; it has 'question'"):
        task.items([{"question": "?", "choices": list("abcd"), "answer": 0}])


@pytest.mark.parametrize("answer", [2, "2", "C", 2.0, "2.0", " 2 "])
def test_an_answer_is_a_place_or_a_letter(answer):
    [item] = build("mmlu").items([{**row(0, "a"), "answer": answer}])
    assert item.doc["answer"] == 2


def test_zero_is_a_fact_and_an_id_and_other_kinds_of_one_are_none():
    rows = [row(0, "a", id=0, fact=0), row(1, "a", id="1", fact="0"), row(2, "a", id="", fact=None), row(3, "a")]
    items = build("mmlu").items(rows)
    assert [item.id for item in items[:2]] == ["0", "1"]
    assert [item.cluster for item in items] == ["0", "0", items[2].id, items[3].id]
    with pytest.raises(UserError, match=r"the first is '0' \(row 1; and row 3\); give each row its own"):
        build("mmlu").items([rows[0], rows[1], row(2, "a", id="0")])
    with pytest.raises(UserError, match="ids occur more than once"):
        build("mmlu").items([row(2, "a"), row(0, "a", id=items[3].id), row(3, "a"), row(3, "a", id=f"{items[3].id}-2")])


def test_a_choice_that_stands_twice_is_asked_and_ends_in_a_tie():
    task = build("mmlu", form="continuation")
    items = task.items([{**row(0, "a"), "choices": ["a", "a", "b", "c"]}])
    assert task.requests(items)[0].choices == (" a", " a", " b", " c")
    [record] = task.score(items, [Choices(items[0].id, [-1.0, -1.0, -2.0, -3.0], [1] * 4, [False] * 4)])
    assert record.marks["tie"] == 1.0


def test_whole_numbers_are_text_as_they_stand():
    [item] = build("mmlu").items([{**row(0, "a"), "question": 7, "choices": [4, 0, 10**20, "007"]}])
    assert (item.doc["question"], item.doc["choices"]) == ("7", ["4", "0", "1" + "0" * 20, "007"])


def test_wmdp_leaves_its_control_out_and_asks_it_alone():
    rows = [row(0, "wmdp-bio"), row(1, "cyber"), row(2, "chemistry"), row(3, "ruins")]
    assert [item.stratum for item in build("wmdp").items(rows)] == ["bio", "cyber", "ruins"]
    assert [item.stratum for item in build("wmdp", topics=["chem"]).items(rows)] == ["chem"]
    assert [item.stratum for item in build("wmdp", topics=["wmdp-cyber", "bio"]).items(rows)] == ["bio", "cyber"]
    with pytest.raises(UserError, match=r"no topic 'ruinz'\. Did you mean 'ruins'"):
        build("wmdp", topics=["ruinz"]).items(rows)


def score(logprobs, tokens=(1, 1, 1, 1), answer=1, truncated=0, **settings):
    task = build("mmlu", **settings)
    items = task.items([{**row(0, "anatomy"), "choices": list("abcd"), "answer": answer}])
    outcome = Choices(items[0].id, list(logprobs), list(tokens), [False] * 4, truncated)
    return task.score(items, [outcome])[0]


def test_accuracy_is_lm_evals():
    right, wrong = score([-3.0, -1.0, -2.0, -4.0]), score([-3.0, -1.0, -2.0, -4.0], answer=2)
    assert right.scores is not None
    assert wrong.scores is not None
    assert (right.scores["acc"], wrong.scores["acc"]) == (1.0, 0.0)
    assert (right.scores["position"], wrong.scores["position"]) == (1.0, 1.0)
    total = sum(math.exp(-value) for value in (3, 1, 2, 4))
    assert right.scores["probability"] == pytest.approx(math.exp(-1) / total)
    assert right.marks == {"tie": 0.0, "truncated": 0.0}


def test_normalised_accuracy_compares_log_probability_per_token():
    logprobs, tokens = [-3.0, -4.0, -5.0, -6.0], [1, 4, 1, 1]
    assert score(logprobs, tokens, form="continuation").scores["acc"] == 0.0
    assert score(logprobs, tokens, form="continuation", normalize="tokens").scores["acc"] == 1.0


def test_ties_and_truncation_are_marked():
    assert score([-1.0, -1.0 - 1e-7, -2.0, -3.0]).marks["tie"] == 1.0
    assert score([-1.0, -1.0 - 1e-5, -2.0, -3.0]).marks["tie"] == 0.0
    assert score([-1.0, -2.0, -3.0, -3.0]).marks["tie"] == 0.0
    assert score([-1.0, -2.0, -3.0, -3.0], truncated=3).marks["truncated"] == 1.0


def test_a_choice_that_a_model_never_takes_is_an_answer_for_the_others():
    never = -math.inf
    for form, tokens in (("letters", (1, 1, 1, 1)), ("continuation", (2, 3, 4, 5))):
        for normalize in ("none", "tokens") if form == "continuation" else ("none",):
            given = {"tokens": tokens, "form": form, "normalize": normalize}
            wrong = score([never, -1.0, -2.0, never], **given)
            right_never = score([-1.0, never, never, -3.0], **given)
            assert (wrong.scores["acc"], wrong.marks["tie"], wrong.missing) == (1.0, 0.0, None)
            assert (right_never.scores["acc"], right_never.scores["probability"]) == (0.0, 0.0)
            assert right_never.scores["position"] == 0.0
            assert all(map(math.isfinite, wrong.scores.values()))
    assert score([never] * 4).missing == "no choice has a finite log-probability"


def test_what_a_model_never_says_survives_the_store(tmp_path):
    answer = Choices("q", [-1.0, -math.inf, math.nan, math.inf], [1] * 4, [False] * 4)
    write_jsonl(tmp_path / "outcomes.jsonl", [to_row(answer)])
    (row,) = read_jsonl(tmp_path / "outcomes.jsonl")
    assert Choices(**row).logprobs == [-1.0, -math.inf, None, None]


@pytest.mark.parametrize("bad", [math.nan, math.inf, None])
def test_what_is_not_finite_is_missing(bad):
    record = score([-1.0, -2.0, bad, -3.0])
    assert record.scores is None
    assert record.missing == "a log-probability is not finite"


def test_a_choice_that_was_not_measured_is_missing():
    assert score([-1.0, -2.0, 0.0, -3.0], tokens=(1, 1, 0, 1)).missing == "a choice has no token of its own"
    assert score([-1.0, -2.0]).missing == "2 choices were scored of 4"


def test_an_outcome_of_another_item_is_refused():
    task = build("mmlu")
    items = task.items([row(0, "anatomy")])
    with pytest.raises(ValueError, match="was given for"):
        task.score(items, [Choices("other", [-1.0] * 4, [1] * 4, [False] * 4)])


def test_lm_eval_is_quiet_and_leaves_the_random_state(capfd):
    before = random.getstate()
    asked("wmdp", [row(number, "bio") for number in range(40)])
    assert capfd.readouterr() == ("", "")
    assert random.getstate() == before


def test_real_mmlu_rows_become_requests(data_root):
    files = sorted((data_root / "mmlu" / "test").glob("*.csv"))
    assert len(files) == 57
    rows = []
    for file in files:
        with file.open(encoding="utf-8", newline="") as lines:
            for number, line in enumerate(csv.DictReader(lines)):
                if number % 40 == 0:
                    choices = [line[f"choice{index}"] for index in range(4)]
                    subject = file.stem.removesuffix("_test")
                    answer = int(line["answer"])
                    rows.append(
                        {"question": line["question"], "choices": choices, "answer": answer, "subject": subject}
                    )
    for settings in ({}, {"form": "continuation"}):
        task = build("mmlu", **settings)
        items = task.items(rows)
        requests = task.requests(items)
        assert len(requests) == len(rows)
        for data, request in zip(rows, requests, strict=True):
            assert isinstance(request, ChoiceRequest)
            assert data["question"].strip() in request.context
            expected = data["choices"] if settings else list("ABCD")
            assert request.choices == tuple(" " + choice for choice in expected)
        answers = [
            Choices(i.id, [0.0 if n == i.doc["answer"] else -1.0 for n in range(4)], [1] * 4, [False] * 4)
            for i in items
        ]
        assert all(record.scores and record.scores["acc"] == 1.0 for record in task.score(items, answers))


@pytest.mark.parametrize("form", ["letters", "continuation"])
def test_few_shot_prompts_keep_the_contract_of_a_task(form):
    dev = [row(number, subject) for number in range(4) for subject in ("elementary_mathematics", "astronomy")]
    check_task("mmlu", {"num_fewshot": 2, "form": form}, dev)
