"""Any task of lm-eval by its name: documents, prompts, filters and scores are lm-eval's, the answers our engine's.

lm-eval (Gao et al., github.com/EleutherAI/lm-evaluation-harness, 0.4.13) loads the documents, builds the requests
(`build_all_requests`), filters the answers (`apply_filters`) and scores each document (`process_results`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ..harness.errors import UserError
from ..harness.records import Choices, Generations, Item, Mark, Outcome, Preview, Record
from ..harness.specs import RowSpec, identity, runtime
from . import _lm_eval_source as source
from ._rows import identities
from .base import (
    ChoiceRequest,
    Decoding,
    GenerationRequest,
    ItemWorkload,
    Metric,
    ModelRequest,
    Needs,
    Scorer,
    Task,
    TaskSettings,
    check_answered,
    register,
)

SHARES = ("acc", "acc_norm", "acc_bytes", "exact_match")
"""Metrics of lm-eval that cannot exceed 1; of others nothing is assumed."""


class DocumentRow(RowSpec):
    """A document of lm-eval with the requests that it makes of it."""

    doc: dict[str, Any]
    context: str
    texts: tuple[str, ...]
    system: str = ""


class LMEvalSettings(TaskSettings):
    """Which task of lm-eval, and which of its numbers; planning fills in the rest from lm-eval itself."""

    name: str = identity("", description="what lm-eval calls it")
    include_path: str | None = runtime(None, description="folder of further YAML files, as lm-eval's --include_path")
    num_fewshot: int | None = identity(None, ge=0, description="None: as lm-eval's task has it")
    metric: str | None = identity(None, description="a mean of documents; None: the task's first one")
    filter: str | None = identity(None, description="whose answers count; None: the task's first one")
    output_type: str = identity("multiple_choice", description="set by the plan")
    better: str = identity("higher", description="set by the plan: whether higher values of the metric are better")
    chance: float = identity(0.0, description="set by the plan: of acc 1/choices, in the mean; else 0")
    decoding: Decoding = identity(Decoding(samples=1, temperature=0), description="set by the plan")
    version: str = identity("", description="set by the plan: of the task")
    config: str = identity("", description="set by the plan: digest of the task's configuration")
    lm_eval: str = identity("", description="set by the plan: version of lm-eval")


@register("lm_eval")
class LMEval(Task):
    """Documents of a task of lm-eval with its requests; see `_lm_eval_source.rows`.

    Record scores: lm-eval's own of each document that are numbers. Of whole texts (`loglikelihood_rolling`): `nll`
    (nats a text), `words` and `bytes`, whose quotients are lm-eval's perplexities. Mark: `truncated`.

    A whole text stands after one begin token, where lm-eval's HFLM has two if the tokenizer puts one there itself; one
    that is longer than the model reads is missing, where lm-eval reads it in windows.
    """

    Settings: ClassVar[type[TaskSettings]] = LMEvalSettings
    Row: ClassVar[type[RowSpec]] = DocumentRow
    version = 1
    summary = "any task of lm-eval by its name: lm_eval:arc_easy"
    citation = "Gao et al. 2024, The language model evaluation harness, github.com/EleutherAI/lm-evaluation-harness"
    needs: ClassVar[Needs] = "choices"
    scoring = frozenset({"metric", "filter", "better", "chance"})
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("acc", chance=0.0, better="higher"),)
    marks: ClassVar[Mapping[str, Mark]] = {}

    def __init__(self, settings: Any, examples: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(settings, examples)
        if settings.output_type == "generate_until":
            self.needs = "generations"  # pyright: ignore[reportAttributeAccessIssue]

    @classmethod
    def example_rows(cls) -> list[dict[str, Any]]:
        """Return two documents with choices, as rows of this task stand; the check needs a task of lm-eval for them."""
        known = [("Vienna lies on", [" the Danube", " the Rhine"]), ("Bees make", [" honey", " silk"])]
        return [{"doc": {"question": q, "choices": c}, "context": q, "texts": c} for q, c in known]

    @classmethod
    def named(cls, name: str, include_path: str | None = None) -> dict[str, dict[str, Any]]:
        """Return the settings of the tasks that a name of lm-eval stands for, by their names."""
        own = {} if include_path is None else {"include_path": include_path}
        return {one: {"name": one, **own} for one in source.known_names(name, include_path)}

    @classmethod
    def completed(cls, settings: Any) -> dict[str, Any]:
        """Return the settings with what lm-eval's task says: type, metric, filter, decoding, chance, versions."""
        name = settings.name
        if not name:
            raise UserError("lm_eval: which task? Write its `name` under `settings:`, or --tasks lm_eval:NAME.")
        task = source.one(name, settings.include_path, settings.num_fewshot)
        metric, higher = source.metric_of(task, name, settings.metric)
        values = settings.model_dump() | source.config_of(task)
        values |= {"metric": metric, "filter": source.filter_of(task, name, settings.filter)}
        values |= {"output_type": task.OUTPUT_TYPE, "better": "higher" if higher else "lower"}
        if task.OUTPUT_TYPE == "generate_until":
            values["decoding"] = source.decoding_of(task, name)
        if task.OUTPUT_TYPE == "multiple_choice" and metric in ("acc", "acc_norm"):
            rows = source.rows(name, settings.include_path, settings.num_fewshot)
            values["chance"] = sum(1 / len(row["texts"]) for row in rows) / len(rows)
        return values

    def own_rows(self) -> list[dict[str, Any]]:
        """Return lm-eval's documents with its requests."""
        return source.rows(self.settings.name, self.settings.include_path, self.settings.num_fewshot)

    @property
    def metric(self) -> Metric:
        """The metric that the settings name."""
        name = self.settings.metric or "acc"
        largest = 1.0 if name in SHARES else None
        return Metric(name, self.settings.chance, self.settings.better, largest)

    def items(self, rows: Sequence[Mapping[str, Any]]) -> list[Item]:
        """Return an item a document; equal ones form a cluster."""
        read = DocumentRow.read_all(rows, "lm_eval")
        names = identities(rows, [[row.doc, row.context, row.texts] for row in read], "lm_eval")
        docs = [row.model_dump(mode="json") for row in read]
        return [Item(name, shared, "all", doc) for doc, (name, shared) in zip(docs, names, strict=True)]

    def requests(self, items: Sequence[Item]) -> list[ModelRequest]:
        """Return lm-eval's requests, one an item."""
        return [self._request(item.id, item.doc) for item in items]

    def _request(self, name: str, doc: Mapping[str, Any]) -> ModelRequest:
        if self.needs == "generations":
            return GenerationRequest(name, doc["context"], system=doc["system"])
        return ChoiceRequest(name, doc["context"], tuple(doc["texts"]), system=doc["system"])

    def preview(self, item: Item) -> Preview:
        """Return the prompt and what is compared after it."""
        return Preview(item.doc["context"] or item.doc["texts"][0], item.doc["texts"])

    def workload(self) -> ItemWorkload:
        """Return the lengths of a question of ARC with four choices, or of GSM8K with its examples."""
        if self.needs == "generations":
            return ItemWorkload(1, tokens=1000, longest=2048, sampled=self.settings.decoding.max_new_tokens)
        return ItemWorkload(4, tokens=60, longest=512, logits=24)

    def score(self, items: Sequence[Item], outcomes: Sequence[Outcome], scorer: Scorer | None = None) -> list[Record]:
        """Return lm-eval's scores of each document; one without a finite answer is missing."""
        if not items:
            return []
        task = source.one(self.settings.name, self.settings.include_path, self.settings.num_fewshot)
        return [self._record(task, item, outcome) for item, outcome in zip(items, outcomes, strict=True)]

    def _record(self, task: Any, item: Item, outcome: Any) -> Record:
        check_answered(item, outcome)
        place = (item.id, item.cluster, item.stratum)
        whole = self.settings.output_type == "loglikelihood_rolling"
        missing = _unusable(outcome, whole)
        if missing:
            return Record(*place, None, missing)
        results = self._results(task, item.doc, outcome)
        if whole:
            (value, words), (_, size) = results["word_perplexity"], results["byte_perplexity"]
            results = {"nll": -value, "words": words, "bytes": size}
        scores = {key: float(value) for key, value in results.items() if isinstance(value, bool | int | float)}
        return Record(*place, scores, None, {"truncated": float(outcome.truncated > 0)})

    def _results(self, task: Any, doc: Mapping[str, Any], outcome: Any) -> dict[str, Any]:
        """Return what lm-eval makes of a document's answers: filtered, then scored."""
        from lm_eval.api.instance import Instance

        kind = self.settings.output_type
        if isinstance(outcome, Generations):
            answers: list[Any] = outcome.texts
        elif kind == "loglikelihood_rolling":
            answers = outcome.logprobs
        else:
            answers = list(zip(outcome.logprobs, outcome.greedy, strict=True))
        asked = "loglikelihood" if kind == "multiple_choice" else kind
        instances = [
            Instance(asked, doc["doc"], (doc["context"],), place, (task.config.task, 0, 1), resps=[answer])
            for place, answer in enumerate(answers)
        ]
        task._instances = instances
        task.apply_filters()
        chosen = [instance.filtered_resps[self.settings.filter] for instance in instances]
        return task.process_results(doc["doc"], chosen)


def _unusable(outcome: Choices | Generations, whole: bool) -> str | None:
    """Say why an outcome cannot be scored, or None where it can."""
    if isinstance(outcome, Generations):
        return None if outcome.texts and (outcome.stopped[0] or outcome.tokens[0]) else "no answer was given"
    if any(value is None or math.isnan(value) or value == math.inf for value in outcome.logprobs):
        return "a log-probability is not finite"
    if max(outcome.logprobs) == -math.inf:
        return "no text has a finite log-probability"
    if whole and outcome.truncated:
        return "the text is longer than the model reads at once"
    return None
