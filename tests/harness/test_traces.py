"""Traces of given texts: what a plain forward pass says of each token, through the store and back, in every row."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from unlearn_bench.harness import Request, evaluate
from unlearn_bench.harness.data import Question
from unlearn_bench.harness.engines.base import Engine, engines
from unlearn_bench.harness.engines.transformers import TransformersEngine
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.jobs import evaluate as jobs
from unlearn_bench.harness.models.load import ModelSpec
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.planning.nulls import constant_answers
from unlearn_bench.harness.records import Trace, outcome_of, to_row
from unlearn_bench.harness.store.files import read_jsonl
from unlearn_bench.harness.suite import TemplateSpec, load_suite
from unlearn_bench.harness.training.encoding import TextEncoder
from unlearn_bench.methods.uld import ULD
from unlearn_bench.tasks.base import ChoiceRequest, TraceRequest
from unlearn_bench.tasks.qa import QASettings, QuestionAnswers

TEXTS = (" the dog", " a farmer likes bread and the quick brown fox", " it")
CONTEXTS = ("the farmer", "the doctor likes", "the quick brown fox jumps over the lazy", "")
SUITE = """
extends: micro
name: micro-qa
tasks:
  qa_forget:
    task: qa
    data: {path: data/qa_forget.jsonl}
    settings: {moments: true}
tracks:
  knowledge: {controls: [qa_forget]}
  toxicity: null
variants: {toxicity: null}
"""


def requests(**options) -> list[TraceRequest]:
    return [TraceRequest(f"i{n}", context, TEXTS[: 1 + n % 3], **options) for n, context in enumerate(CONTEXTS)]


@pytest.fixture(scope="module")
def micro() -> ModelSpec:
    suite = load_suite("micro")
    return ModelSpec(name="micro", path=str(Path(suite.folder) / (suite.models["micro"].path or "")))


@pytest.fixture(scope="module")
def held(micro) -> TransformersEngine:
    return TransformersEngine(micro)


@pytest.fixture
def engine(held) -> TransformersEngine:
    held.restore()
    return held


@torch.no_grad()
def plainly(engine: TransformersEngine, head: list[int], tail: list[int]) -> Trace:
    """Return a trace by one forward pass of one sequence, in float64, by the formulas of its fields."""
    logits = engine.model(torch.tensor([head + tail])).logits[0, len(head) - 1 : -1].double()
    logprobs, tokens = logits.log_softmax(-1), torch.tensor(tail)
    weights = logprobs.exp()
    means = (weights * logprobs).sum(-1)
    return Trace(
        logprobs[range(len(tail)), tokens].tolist(),
        (logits.argmax(-1) == tokens).int().tolist(),
        means.tolist(),
        ((weights * logprobs**2).sum(-1) - means**2).tolist(),
    )


def test_each_token_has_what_one_forward_pass_says_of_it(engine):
    asked = requests(end=True, moments=True)
    for request, outcome in zip(asked, engine.trace(asked), strict=True):
        pairs = engine.tokens.pairs(request.context, request.texts)
        assert len(outcome.traces) == len(request.texts)
        for (head, tail), trace in zip(pairs, outcome.traces, strict=True):
            expected = plainly(engine, head, [*tail, engine.tokens.end])
            assert trace.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
            assert trace.hits == expected.hits
            assert trace.means == pytest.approx(expected.means, rel=1e-4, abs=1e-4)
            assert trace.variances == pytest.approx(expected.variances, rel=1e-3, abs=1e-4)
            assert trace.ended


def test_without_the_end_token_a_trace_sums_up_to_what_a_choice_scores(engine):
    choices = engine.score_choices([ChoiceRequest(r.item, r.context, r.texts) for r in requests()])
    for outcome, choice in zip(engine.trace(requests()), choices, strict=True):
        assert [sum(trace.logprobs) for trace in outcome.traces] == pytest.approx(choice.logprobs, abs=1e-3)
        assert [all(trace.hits) for trace in outcome.traces] == choice.greedy
        assert [len(trace.hits) for trace in outcome.traces] == choice.tokens
        assert {(trace.means, trace.variances, trace.ended) for trace in outcome.traces} == {(None, None, False)}


def test_what_it_is_batched_with_changes_nothing(engine):
    asked = requests(end=True, moments=True)
    together = engine.trace(asked)
    for request, outcome in zip(asked, together, strict=True):
        [alone] = engine.trace([request])
        for one, other in zip(alone.traces, outcome.traces, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
            assert one.hits == other.hits


def test_a_row_of_the_store_is_the_same_traces(engine):
    for outcome in [*engine.trace(requests(moments=True)), *engine.trace(requests(end=True))]:
        assert outcome_of(json.loads(json.dumps(to_row(outcome)))) == outcome


@pytest.mark.parametrize("chat", [False, True])
def test_the_tokens_of_an_answer_are_those_that_training_counts(engine, monkeypatch, chat):
    template = "{% for m in messages %}{{ m.role }} : {{ m.content }} {% endfor %} assistant : "
    monkeypatch.setattr(engine.tokens.tokenizer, "chat_template", template)
    encoder = replace(engine.tokens, wrapped=chat)
    task = QuestionAnswers(QASettings(prompt="{question}" if chat else "Question: {question}\nAnswer:"))
    items = task.items([{"question": "who likes the farmer?", "answer": "the doctor."}])
    [request] = task.requests(items)
    [(head, tail)] = encoder.given(request)  # pyright: ignore[reportArgumentType]
    settings = {"form": "chat", "prompt": "{prompt}", "answer": "{answer}"} if chat else {}
    trained = TextEncoder(encoder.tokenizer, TemplateSpec(**settings), 64).encode(
        Question("who likes the farmer?", "the doctor.")
    )
    assert (trained.ids.tolist(), trained.first) == (head + tail, len(head))


def test_a_text_without_a_token_has_an_empty_trace_and_is_counted_as_done(engine):
    done: list[int] = []
    [outcome] = engine.trace([TraceRequest("i", "the farmer", ("",))], done.append)
    assert outcome.traces == [Trace([], [])]
    [outcome] = engine.trace([TraceRequest("i", "the farmer", ("",), end=True)], done.append)
    assert len(outcome.traces[0].logprobs) == 1
    assert sum(done) == 2


def test_long_contexts_are_cut_from_the_left_and_texts_that_do_not_fit_are_told(engine):
    limit = engine.tokens.max_length
    long = "the quick brown fox " * limit
    request = TraceRequest("i", long, TEXTS[:1], end=True)
    [outcome] = engine.trace([request])
    [(head, tail)] = engine.tokens.given(request)
    assert outcome.truncated == len(head) + len(tail) - limit
    cut = plainly(engine, head[outcome.truncated :], tail)
    assert outcome.traces[0].logprobs == pytest.approx(cut.logprobs, abs=1e-4)
    with pytest.raises(UserError, match=r"A text of item i has .* tokens, more than the"):
        engine.trace([TraceRequest("i", "the", (long,))])


def test_a_prefill_stands_before_the_texts(engine):
    [filled] = engine.trace([TraceRequest("i", "the farmer", (" bread",), prefill=" likes")])
    [plain] = engine.trace([TraceRequest("i", "the farmer likes", (" bread",))])
    assert filled == plain


def test_a_method_at_decoding_time_is_traced_too(engine):
    choice = ChoiceRequest("i", "the farmer", (" likes bread",))
    [before] = engine.trace([TraceRequest("i", choice.context, choice.choices)])
    engine.wrap({}, ULD(ULD.Settings(depth=2)))
    [after] = engine.trace([TraceRequest("i", choice.context, choice.choices)])
    [scored] = engine.score_choices([choice])
    assert sum(after.traces[0].logprobs) == pytest.approx(scored.logprobs[0], abs=1e-4)
    assert after != before


def test_the_null_that_looks_at_nothing_has_no_log_probabilities():
    answers = constant_answers(requests(end=True), 0, 0)
    rows = [outcome_of(json.loads(json.dumps(to_row(answer)))) for answer in answers]
    assert {tuple(trace.logprobs) for row in rows for trace in row.traces} == {(None,)}


def test_an_engine_without_traces_is_told_while_planning(tmp_path, monkeypatch):
    (tmp_path / "qa.yaml").write_text(SUITE)
    asked = Request(suite=str(tmp_path / "qa.yaml"), methods=("rmu",), limit=8)
    monkeypatch.setattr(engines.get("transformers"), "moments", False)
    with pytest.raises(UserError, match="cannot trace given texts with moments, which task qa_forget needs"):
        make_plan(asked, None)
    with pytest.raises(UserError, match="cannot trace given texts; pass --engine transformers"):
        Engine.trace(replace, [])  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with traces as a control, all nulls and an attack."""
    folder = tmp_path_factory.mktemp("traces")
    (folder / "qa.yaml").write_text(SUITE)
    asked = Request(
        suite=str(folder / "qa.yaml"),
        methods=("rmu",),
        limit=24,
        settings=("training.steps=4",),
        nulls=("constant", "shuffled"),
    )
    result = evaluate(asked, output=folder / "out", executor="inline")
    assert not result.failures
    return result


def test_traces_stand_on_a_board_beside_every_row(run):
    rows = {row["variant"]: row for row in json.loads(run.board.to_json())["rows"]}
    parts = {name: part for name, row in rows.items() for part in row["controls"] if part["task"] == "qa_forget"}
    assert parts["shuffled"]["value"] == parts["base"]["value"]
    assert 0 < parts["base"]["value"] < 1
    assert parts["rmu"]["value"] != parts["base"]["value"]
    assert "min_k_plus_plus" in parts["rmu"]["also"]
    assert "constant" not in parts, "a text has no probability where nothing is looked at"
    assert "qa_forget" in run.board.to_markdown()


def test_interrupted_traces_go_on_where_they_were(run, monkeypatch, tmp_path):
    """Parts are kept beside the outcomes and end in the same bytes: a row is what its items alone say."""
    whole = {path.parent.name: read_jsonl(path) for path in (run.store.root / "outcomes").rglob("outcomes.jsonl")}
    monkeypatch.setattr(jobs, "PART", 10)
    (tmp_path / "qa.yaml").write_text(SUITE)
    asked = Request(suite=str(tmp_path / "qa.yaml"), methods=(), limit=24)
    seen: list[int] = []
    trace = TransformersEngine.trace

    def failing(self, asked, progress=None):
        seen.append(len(asked))
        if len(seen) == 3:
            raise RuntimeError("killed")
        return trace(self, asked, progress)

    monkeypatch.setattr(TransformersEngine, "trace", failing)
    first = evaluate(asked, output=tmp_path / "out", executor="inline")
    assert first.failures
    second = evaluate(asked, output=tmp_path / "out", executor="inline")
    assert not second.failures
    assert seen == [10, 10, 4, 4]
    again = {path.parent.name: read_jsonl(path) for path in (second.store.root / "outcomes").rglob("outcomes.jsonl")}
    assert all(whole[name] == rows for name, rows in again.items() if name in whole)
    assert any("traces" in rows[0] for name, rows in again.items() if name in whole)
