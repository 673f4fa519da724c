"""Questions with their answers as data: what is refused, counted and planned, what stands beside them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer
from unlearn_bench.harness.corpora import TemplateSpec
from unlearn_bench.harness.data import Question, load_rows, texts
from unlearn_bench.harness.errors import DataError, UserError
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.planning.dry_run import dry_run
from unlearn_bench.harness.planning.request import Request
from unlearn_bench.harness.store.entries import Store
from unlearn_bench.harness.suite import CorporaSpec, SourceSpec, SuiteSpec, TrainingSpec, load_suite
from unlearn_bench.harness.training.batches import Batches, Corpora
from unlearn_bench.methods.base import methods
from unlearn_bench.methods.grad_diff import GradDiff
from unlearn_bench.methods.testing import tiny_corpora, tiny_questions, tiny_tokenizer, tiny_trainer

torch.set_num_threads(1)
CPU = torch.device("cpu")
MICRO = Path(load_suite("micro").folder)
COLUMNS = {"prompt": "question", "answer": "answer"}


def test_batches_mix_no_kinds_and_documents_stay_as_they_were():
    spec = TrainingSpec(batch_size=3, max_length=16)
    documents = Batches(tiny_corpora(), tiny_tokenizer(), spec, 0, CPU).batch(0)
    assert documents.forget.targets is None
    both = Corpora(tiny_questions().forget, tiny_corpora().retain, template=tiny_questions().template)
    batch = Batches(both, tiny_tokenizer(), spec, 0, CPU).batch(1)
    assert batch.forget.targets is not None
    assert batch.retain.targets is None
    texts_, labels = zip(*Batches(both, tiny_tokenizer(), spec, 0, CPU).labelled(), strict=True)
    assert set(np.concatenate(labels).tolist()) == {0, 1}
    assert sum(len(tokens.ids) for tokens in texts_) == 9 + 12 + 15


def test_answers_that_the_cut_takes_are_counted():
    spec = TrainingSpec(batch_size=3, max_length=16)
    cut = Batches(tiny_questions(), tiny_tokenizer(), spec, 0, CPU).cut
    assert cut == {"forget 'bio'": {"answers": 9, "cut": 1, "lost": 1}}
    assert tiny_trainer("npo", corpora=tiny_questions()).cut == {"answers_cut": cut}
    assert Batches(tiny_corpora(), tiny_tokenizer(), spec, 0, CPU).cut == {}
    assert Batches(tiny_questions(), tiny_tokenizer(), TrainingSpec(max_length=64), 0, CPU).cut == {}


def test_a_corpus_all_of_whose_answers_are_cut_away_is_an_error():
    lost = [Question(" ".join(["bab"] * 20), "deb")] * 3
    corpora = Corpora({"one": lost}, ["bab"], template=TemplateSpec(end=False))
    with pytest.raises(UserError, match="forget 'one' text has no answer within its first 16 tokens: 3 prompts fill"):
        Batches(corpora, tiny_tokenizer(), TrainingSpec(max_length=16), 0, CPU)


def written(folder, rows, name="rows.jsonl"):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return SourceSpec(path=name, columns=COLUMNS)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "Who?", "answer": " "}, r"row 2 \(line 2\): 'answer' is blank; write its text, or leave the row"),
        ({"question": "Who?", "answer": None}, "'answer' is null"),
        ({"question": "", "answer": "He."}, "'prompt' is blank"),
        ({"question": "Who?"}, "has no column 'answer'"),
    ],
)
def test_empty_questions_and_answers_are_named(row, message, tmp_path):
    source = written(tmp_path, [{"question": "Who?", "answer": "She."}, row])
    with pytest.raises(DataError, match=message):
        load_rows(source, tmp_path, source.text_row)


def test_a_source_holds_documents_or_questions(tmp_path):
    plain = SourceSpec(path="a.jsonl")
    with pytest.raises(UserError, match="maps `text` beside `prompt` and `answer`"):
        CorporaSpec.parse(
            {"forget": {"a": {"path": "a.jsonl", "columns": {**COLUMNS, "text": "body"}}}, "retain": plain}, "suite"
        )
    with pytest.raises(UserError, match="its stand-in `otherwise` does not"):
        CorporaSpec.parse(
            {"forget": {"a": plain}, "retain": {"path": "a", "columns": COLUMNS, "otherwise": plain}}, "s"
        )


def suite(folder, **corpora):
    """Return the embedded suite with one track on questions below a folder."""
    values = load_suite("micro").model_dump(mode="json", exclude_unset=True)
    values["tracks"] = {"knowledge": {"forget_task": "wmdp", "retain_task": "mmlu", "corpora": corpora}}
    return SuiteSpec.parse({**values, "variants": {}, "tuned": {}}, "suite")


QUESTIONS = {
    "forget": {"facts": {"path": "data/qa_forget.jsonl", "columns": COLUMNS}},
    "retain": {"path": "data/qa_retain.jsonl", "columns": COLUMNS},
}
DOCUMENTS = {"forget": {"alchemy": {"path": "data/forget_alchemy.jsonl"}}, "retain": {"path": "data/retain.jsonl"}}


def planned(tmp_path, method="npo", **corpora):
    """Return the cell of a method, planned on these corpora."""
    request = Request(suite=suite(tmp_path, **corpora), methods=(method,), limit=4)
    plan = make_plan(request, Store(tmp_path / "store"))
    return next(cell for cell in plan.cells if cell.spec.transform == "train")


def test_the_template_is_part_of_what_a_training_is_only_where_there_are_questions(tmp_path):
    llama = {"prompt": "[INST] {prompt} [/INST]", "answer": "{answer}"}
    ids = {planned(tmp_path, **QUESTIONS, template=template).id for template in ({}, llama, {"end": False})}
    assert len(ids) == 3
    assert planned(tmp_path, **QUESTIONS).spec.settings["data"]["template"] == TemplateSpec().identity()
    assert planned(tmp_path, **DOCUMENTS).id == planned(tmp_path, **DOCUMENTS, template=llama).id
    assert "template" not in planned(tmp_path, **DOCUMENTS).spec.settings["data"]


class Refusing(GradDiff):
    """A method that reads a refusal beside each forget row."""

    version = 1
    auxiliary = ("refusal",)

    def losses(self, batch):
        """Return the NLL of the refusals in place of the forget loss."""
        from unlearn_bench.methods.likelihood import nll

        return {"forget": nll(self.context, batch.auxiliary["refusal"]), "retain": nll(self.context, batch.retain)}


POOL = {"refusal": {"path": "data/refusals.jsonl"}}


def test_what_a_method_reads_beside_its_rows_is_planned_with_it(tmp_path):
    with methods.temporary("refusing", Refusing):
        column = planned(tmp_path, "refusing", **QUESTIONS)
        pool = planned(tmp_path, "refusing", **QUESTIONS, pools=POOL)
        assert "pools" not in column.spec.settings["data"]
        assert pool.spec.settings["data"]["pools"].keys() == {"refusal"}
        assert pool.id != column.id
        with pytest.raises(UserError, match=r"holds documents, and a method .* trains on 'refusal' text .*\(`pools:"):
            planned(tmp_path, "refusing", **DOCUMENTS)
        without = {
            **QUESTIONS,
            "forget": {"f": {"path": "data/aliases.jsonl", "columns": {"prompt": "question", "answer": "id"}}},
        }
        with pytest.raises(UserError, match=r"aliases.jsonl, row 1 \(line 1\) has no 'refusal'"):
            planned(tmp_path, "refusing", **without)
    assert planned(tmp_path, **QUESTIONS, pools=POOL).id == planned(tmp_path, **QUESTIONS).id, "npo asks for none"


def test_all_leaves_out_what_a_track_has_no_text_for_and_says_so_before_anything_runs(tmp_path):
    with methods.temporary("refusing", Refusing):
        plan = make_plan(Request(tracks=("knowledge", "toxicity"), limit=4), None)
        run = dry_run(Request(tracks=("knowledge",), limit=4), tmp_path, 1)
        there = make_plan(Request(suite=suite(tmp_path, **QUESTIONS), limit=4), None)
        with pytest.raises(UserError, match="holds documents, and a method of this run trains on 'refusal' text"):
            make_plan(Request(methods=("all", "refusing"), tracks=("knowledge",), limit=4), None)
    assert {"refusing", "idk_dpo"} <= {cell.spec.method for cell in there.cells}
    trained = {cell.spec.method for cell in plan.cells}
    assert "npo" in trained
    assert not trained & {"refusing", "idk_dpo"}
    for track in ("knowledge", "toxicity"):
        (note,) = [note for note in plan.notes if f"left out of {track}, which has no 'refusal' text" in note]
        assert "idk_dpo" in note
        assert "refusing" in note
    assert "Note: left out of knowledge, which has no 'refusal' text beside forget rows: " in run.to_text()


def test_a_family_is_chosen_by_its_name(tmp_path):
    def trained(*names, **corpora):
        plan = make_plan(Request(suite=suite(tmp_path, **(corpora or DOCUMENTS)), methods=names, limit=4), None)
        return {cell.spec.method for cell in plan.cells if cell.spec.transform == "train"}

    kinds = {name: methods.get(name) for name in methods.names()}
    preference = {name for name, kind in kinds.items() if kind.family == "preference"}
    assert trained("family:preference", "rmu") == {*(n for n in preference if not kinds[n].auxiliary), "rmu"}
    assert "idk_dpo" in trained("family:preference", **QUESTIONS)
    with pytest.raises(UserError, match=r"No method is of the family 'prefer'\. Did you mean 'preference'\?$"):
        trained("family:prefer")
    with pytest.raises(UserError, match="'refusal' text"):
        trained("family:preference", "idk_dpo")


def beside(rows, seed=0, pools=None, name="other"):
    corpora = Corpora({"one": rows}, ["bab"], template=TemplateSpec(prompt="{prompt}", end=False), pools=pools or {})
    spec = TrainingSpec(batch_size=2, max_length=16)
    return Batches(corpora, tiny_tokenizer(), spec, seed, CPU, (name,))


def test_texts_beside_rows_have_their_prompts_and_are_drawn_by_seed_step_and_row():
    words = ["bad", "bag", "bak", "bal", "bam"]
    rows = [Question(f"de{c}", "bab", (("other", tuple(words)),)) for c in "bdgklmnprst"]
    made = beside(rows)
    drawn = [made.batch(step).auxiliary["other"] for step in range(30)]
    for step in reversed(range(30)):
        batch = made.batch(step)
        assert torch.equal(batch.auxiliary["other"].ids, drawn[step].ids), "whatever was drawn before"
        assert torch.equal(batch.auxiliary["other"].ids[:, :2], batch.forget.ids[:, :2]), "the same prompts, in order"
        assert torch.equal(batch.auxiliary["other"].counted, torch.tensor([[0, 1], [0, 1]]))
    answers = torch.cat([tokens.ids[:, 2] for tokens in drawn])
    assert set(answers.tolist()) == set(tiny_tokenizer().convert_tokens_to_ids(words))
    assert any((tokens.ids[0, 2] != tokens.ids[1, 2]) for tokens in drawn), "each row by itself"
    other = [beside(rows, seed=1).batch(step).auxiliary["other"].ids for step in range(30)]
    assert any(not torch.equal(a.ids, b) for a, b in zip(drawn, other, strict=True))
    pooled = [beside(rows, pools={"other": ["bap"]}).batch(step).auxiliary["other"] for step in range(3)]
    assert all((tokens.ids[:, 2] == tiny_tokenizer().convert_tokens_to_ids("bap")).all() for tokens in pooled)


def test_a_resumed_training_draws_the_same(tmp_path):
    with methods.temporary("refusing", Refusing):
        corpora = tiny_questions()
        whole = tiny_trainer("refusing", corpora=corpora)
        whole.run()
        broken = tiny_trainer("refusing", corpora=corpora)
        broken.run(until=2)
        torch.save(broken.state_dict(), tmp_path / "state")
        resumed = tiny_trainer("refusing", corpora=corpora)
        resumed.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
        resumed.run()
    assert resumed.log == whole.log
    ours, theirs = resumed.delta(), whole.delta()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_columns_beside_questions_are_texts_or_lists_of_them(tmp_path):
    rows = [
        {"question": "Who?", "answer": "She.", "wrong": ["He.", "It."]},
        {"question": "Why?", "answer": "So.", "wrong": "No."},
    ]
    source = written(tmp_path, rows)
    own = texts(load_rows(source, tmp_path, source.text_row).rows, source, ["wrong"])
    assert [dict(question.auxiliary)["wrong"] for question in own] == [("He.", "It."), ("No.",)]
    for wrong in ([], None, ["He.", ""], 1.5):
        source = written(tmp_path, [{**rows[0], "wrong": wrong}])
        with pytest.raises(DataError, match=r"'wrong' is .*; write a text, or a list of texts"):
            texts(load_rows(source, tmp_path, source.text_row).rows, source, ["wrong"])


def test_tofus_rows_train_with_perturbed_answers_beside_them():
    data = os.environ.get("UNLEARN_BENCH_DATA", "")
    folder = Path(data) / "tofu"
    if not data or not folder.is_dir():
        pytest.skip("UNLEARN_BENCH_DATA has no tofu")
    source = SourceSpec(path="forget01_perturbed.json", columns={"prompt": "question"})
    source = source.model_copy(update={"columns": {**COLUMNS, "other": "perturbed_answer"}})
    rows = texts(load_rows(source, folder, source.text_row).rows, source, ["other"])
    assert len(rows) == 40
    tokenizer = AutoTokenizer.from_pretrained(MICRO / "model")
    spec = TrainingSpec(batch_size=8, max_length=512)
    made = Batches(Corpora({"authors": rows}, rows), tokenizer, spec, 0, CPU, ("other",))
    batch = made.batch(0)
    for name, tokens in (("answer", batch.forget), ("other", batch.auxiliary["other"])):
        for row in range(8):
            ids, counts = tokens.ids[row], torch.cat([torch.zeros(1), tokens.counted[row]]).bool()
            prompt = tokenizer.decode(ids[tokens.mask[row].bool() & ~counts])
            answer = tokenizer.decode(ids[counts])
            own = next(q for q in rows if f"Question: {q.prompt}\nAnswer:" in prompt)
            known = [own.answer] if name == "answer" else dict(own.auxiliary)["other"]
            assert answer.removesuffix("<eos>").strip() in known
    assert made.cut == {}
