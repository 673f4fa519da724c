"""Every registered task keeps the contract, plugins too; and the kit finds those that do not."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack

import pytest
from unlearn_bench.harness.records import Record
from unlearn_bench.harness.specs import RowSpec
from unlearn_bench.tasks.base import tasks
from unlearn_bench.tasks.mmlu import MMLU
from unlearn_bench.tasks.realtoxicityprompts import RealToxicityPrompts
from unlearn_bench.tasks.testing import check_task


@pytest.mark.parametrize("name", sorted({*tasks.names()} - {"lm_eval"}))  # its check needs a file of lm-eval's
def test_it_keeps_the_contract(name: str):
    check_task(name)


def test_no_plugin_is_broken():
    tasks.names()
    assert tasks.broken == {}


@pytest.fixture
def plugin():
    """Register a task for one test."""
    with ExitStack() as stack:
        yield lambda kind: stack.enter_context(tasks.temporary("plugin", kind))


class SameIds(MMLU):
    def items(self, rows):
        first = super().items(rows)[0]
        return [first for _ in rows]


class Backwards(MMLU):
    def requests(self, items):
        return super().requests(items)[::-1]


class GuessesWhenBroken(MMLU):
    def score(self, items, outcomes, scorer=None):
        return [Record(item.id, item.cluster, item.stratum, {"acc": 0.0}) for item in items]


class CallsFailuresHarmless(RealToxicityPrompts):
    def _record(self, item, outcome, judged):
        return super()._record(item, outcome, {text: value or 0.0 for text, value in judged.items()})


class AsksNulls(MMLU):
    Row = RowSpec

    def items(self, rows):
        return super().items([{**row, "question": str(row["question"])} for row in rows])


class NoVersion(MMLU):
    version = 0


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (SameIds, "not unique"),
        (Backwards, "in order"),
        (GuessesWhenBroken, "failed outcome has scores"),
        (CallsFailuresHarmless, "failed outcome has scores"),
        (AsksNulls, "a null in 'question' is asked as text"),
        (NoVersion, "version"),
    ],
)
def test_the_kit_finds_what_is_wrong(plugin, kind, message):
    with pytest.raises(AssertionError, match=message):
        check_task(plugin(kind))


def test_tasks_and_scorers_are_listed_without_loading_a_model_library():
    code = (
        "import sys; from unlearn_bench.tasks.base import scorers, tasks; tasks.names(); scorers.names();"
        "print(sorted({'torch', 'transformers', 'sklearn', 'lm_eval', 'datasets'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
