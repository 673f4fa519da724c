"""Questions end to end: trained, attacked and shown from a user's suite file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from unlearn_bench.harness import Request, evaluate
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.planning.dry_run import dry_run
from unlearn_bench.harness.planning.status import find_cell
from unlearn_bench.harness.store.files import read_jsonl

SUITE = """
extends: micro
name: questions
tracks:
  toxicity: null
  knowledge:
    corpora:
      forget:
        alchemy: null
        lockcraft: null
        facts: {path: data/qa_forget.jsonl, columns: {prompt: question, answer: answer}}
      retain: {path: data/qa_retain.jsonl, columns: {prompt: question, answer: answer}}
      relearn:
        alchemy: null
        lockcraft: null
        facts: {path: data/qa_holdout.jsonl, columns: {prompt: question, answer: answer}}
variants: {knowledge: null, toxicity: null}
"""
LENGTH = 20
"""Tokens with which every answer loses its end."""


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("suite") / "questions.yaml"
    file.write_text(SUITE, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def result(suite: Path, tmp_path_factory):
    asked = Request(
        suite=str(suite),
        methods=("npo", "grad_diff"),
        limit=8,
        tasks=("wmdp", "mmlu"),
        settings=("training.steps=3", f"training.max_length={LENGTH}"),
        nulls=("unrelated",),
        stress=("relearn",),
    )
    done = evaluate(asked, output=tmp_path_factory.mktemp("questions"), executor="inline")
    assert not done.failures
    return done


def log_of(result, label: str) -> list[dict]:
    cell = find_cell(result.plan, result.store, label)
    return read_jsonl(result.store.entry("cells", cell.id).file("training.jsonl"))


def test_methods_a_null_and_an_attack_train_on_questions(result) -> None:
    for label in ("knowledge/npo#0", "knowledge/grad_diff#0", "knowledge/unrelated#0", "knowledge/npo+relearn#0"):
        rows = [row for row in log_of(result, label) if row["step"] >= 0]
        assert len(rows) == (20 if "relearn" in label else 3)
    assert 0.5 < log_of(result, "knowledge/grad_diff#0")[1]["retain"] < 10


def test_the_board_tells_the_template_and_what_the_cut_took(result) -> None:
    text = " ".join(result.board.to_markdown().split())
    assert "template form 'plain', prompt 'Question: {prompt}\\nAnswer:', answer ' {answer}', end True" in text
    assert re.search(r"`max_length` cut [\d-]+ of [\d-]+ answers of its forget 'facts' text, 0 wholly", text)


def test_running_again_does_nothing_and_another_template_is_another_checkpoint(result, suite: Path) -> None:
    def planned(**changes):
        from unlearn_bench.harness.planning.build import make_plan

        file = suite.with_name("other.yaml")
        lines = SUITE.replace("    corpora:\n", f"    corpora:\n      template: {json.dumps(changes)}\n")
        file.write_text(lines, encoding="utf-8")
        asked = Request(suite=str(file), methods=("npo",), limit=8, settings=("training.steps=3",))
        return {cell.id for cell in make_plan(asked, result.store).cells if cell.spec.transform == "train"}

    assert planned() == planned(form="plain")
    assert planned().isdisjoint(planned(end=False))


def test_a_training_through_another_process_gives_the_same_bits(result, suite: Path, tmp_path: Path) -> None:
    asked = Request(
        suite=str(suite),
        methods=("npo",),
        limit=8,
        tasks=("wmdp", "mmlu"),
        noise=False,
        settings=("training.steps=3", f"training.max_length={LENGTH}"),
    )
    again = evaluate(asked, output=tmp_path, executor="local", workers=1)
    cells = [find_cell(run.plan, run.store, "knowledge/npo#0") for run in (result, again)]
    assert cells[0].id == cells[1].id
    one, other = (load_file(run.store.entry("cells", cells[0].id).file("delta.safetensors")) for run in (result, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("template", "settings", "cause"),
    [
        ({}, ("training.max_length=8",), "forget 'facts' text has no answer within its first 8 tokens: 268 prompts"),
        ({"form": "chat"}, (), "no chat template; take `form: plain`"),
        ({"end_token": "<end_of_turn>"}, (), "no end token '<end_of_turn>'"),
    ],
)
def test_questions_without_answers_are_told_before_anything_runs(suite: Path, tmp_path, template, settings, cause):
    file = suite.with_name("wrong.yaml")
    file.write_text(SUITE.replace("    corpora:\n", f"    corpora:\n      template: {json.dumps(template)}\n"))
    asked = Request(suite=str(file), methods=("npo", "rmu"), limit=8, settings=settings)
    with pytest.raises(UserError, match=f"Nothing was run.*knowledge/npo.*{re.escape(cause)}"):
        dry_run(asked, tmp_path, 8)
