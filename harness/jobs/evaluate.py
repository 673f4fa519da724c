"""The evaluator: a checkpoint answers a task's requests (outcomes), and the answers are scored (records)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from ...methods.base import DecodingMethod, build_method
from ...tasks.base import ChoiceRequest, GenerationRequest, ModelRequest, Scorer, Task, load_scorer, tasks
from ..engines.base import Engine, engines
from ..errors import EntryLocked, UserError
from ..models.load import MODEL_FILES, ModelSpec, load_tokenizer
from ..planning.nulls import TEXT, constant_answers
from ..planning.plan import PlannedTask
from ..planning.status import delta_of
from ..records import Choices, Generations, Item, to_row
from ..runtime import Event, OnEvent, RunConfig, environment_facts, recorded_facts
from ..specs import digest
from ..store.delta import decoding_of, load_delta, load_tensors
from ..store.entries import Entry, Store
from ..store.files import folder_digest, read_jsonl, write_jsonl
from ..store.identity import CONSTANT, UNMADE, OutcomeSpec
from ..store.partial import PartialResults
from ..suite import ScorerSpec
from .job import EvalJob

logger = logging.getLogger(__name__)

PART = 1000
"""Items that are answered together, and texts that are judged together; an interrupted job goes on after a part."""


def evaluate_checkpoint(job: EvalJob, report: OnEvent) -> None:
    """Answer and score every task of the job; what is finished in the store is not done again.

    Raises:
        EntryLocked: another process is at some of it and the job does not wait; the rest is done.
    """
    store = Store.open(job.config.store)
    delta = delta_of(job.cell, store)
    if delta is None:
        raise UserError(f"{job.cell.label} is not finished, so it cannot be measured; run the same command again.")
    busy = None
    for planned in job.tasks:
        outcome = planned.outcome(job.model, delta, job.engine)
        try:
            with store.entry("outcomes", outcome.id).claim(wait=job.wait):
                _evaluate(job, planned, outcome, store, report)
        except EntryLocked as error:
            busy = error
    if busy is not None:
        raise busy


def _evaluate(job: EvalJob, planned: PlannedTask, outcome: OutcomeSpec, store: Store, report: OnEvent) -> None:
    record, entry = planned.record(outcome), store.entry("outcomes", outcome.id)
    answered = entry.manifest() is not None
    if answered and store.entry("records", record.id).manifest() is not None:
        logger.debug("%s: %s is in the store", job.cell.label, planned.name)
        return

    task, items = built_task(planned)
    started = time.perf_counter()
    if not answered:
        rows, before = _answered(job, planned.name, task, items, entry, report)
        entry.commit(
            {"outcomes.jsonl": partial(write_jsonl, rows=rows)},
            {
                "outcome": outcome.model_dump(mode="json"),
                "cell": job.cell.label,
                "recorded": {**recorded_facts(job.config, started - before), **_engine_facts(job)},
            },
        )
        logger.debug("%s: %s answered in %.1f s", job.cell.label, planned.name, time.perf_counter() - started)
    kind = Choices if task.needs == "choices" else Generations
    answers = [kind(**row) for row in read_jsonl(entry.file("outcomes.jsonl"))]
    scored = store.entry("records", record.id)
    judge = _judge(job, planned, scored, report) if task.judged else None
    records = [to_row(record) for record in task.score(items, answers, judge)]
    scored.commit(
        {"records.jsonl": partial(write_jsonl, rows=records)},
        {"record": record.model_dump(mode="json"), "cell": job.cell.label},
    )
    seconds = time.perf_counter() - started
    logger.info("%s: %s measured, %d items in %.1f s", job.cell.label, planned.name, len(items), seconds)


def _counted(report: Callable[[int, int], None], total: int) -> Callable[[int], None]:
    """Return what is told how many more are done, and reports how many are done of the total."""
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        report(done, total)

    return progress


class PartialScorer(Scorer):
    """A judge that keeps the judgements of each part of many texts beside the records that they are for."""

    def __init__(self, judge: Scorer, record: Entry, config: RunConfig, report: Callable[[int, int], None]) -> None:
        self.judge, self.record, self.report = judge, record, report
        self.maker = {**environment_facts(config), "scikit-learn": version("scikit-learn")}

    def score(self, texts: Sequence[str]) -> list[float | None]:
        """Return what the judge says of each text."""
        progress = _counted(self.report, len(texts))

        def judged(part: Sequence[str]) -> list[float | None]:
            values = [None if value is None else float(value) for value in self.judge.score(part)]
            progress(len(part))
            return values

        partials = PartialResults(self.record, "judged", {**self.maker, "texts": digest(list(texts))})
        return partials.rows(texts, PART, judged, progress)[0]


def _judge(job: EvalJob, planned: PlannedTask, record: Entry, report: OnEvent) -> Scorer:

    if planned.scorer is None:
        raise UserError("This task needs a scorer of texts; pass one with --scorer FOLDER.")
    return PartialScorer(
        loaded_scorer(planned.scorer, job.config.device),
        record,
        job.config,
        lambda done, total: report(Event(job.cell.label, f"{planned.name}, judged", done, total)),
    )


def _engine(job: EvalJob, model: ModelSpec) -> Engine:
    from ..models.cache import engine

    config = job.config
    return engine(engines.get(job.engine), model, config.device, config.batch_size, config.engine_options)


def _engine_facts(job: EvalJob) -> dict[str, Any]:
    return {} if job.cell.transform == CONSTANT else _engine(job, job.model).recorded()


def _answered(
    job: EvalJob, name: str, task: Task, items: Sequence[Item], entry: Entry, report: OnEvent
) -> tuple[list[dict[str, Any]], float]:
    """Let the checkpoint answer, part by part; return the answers' rows, and the seconds of parts that were kept."""
    progress = _counted(lambda done, total: report(Event(job.cell.label, name, done, total)), len(items))

    def answered(part: Sequence[Item]) -> list[dict[str, Any]]:
        return [to_row(outcome) for outcome in answer(job, task, part, progress)]

    return PartialResults(entry, "answers", environment_facts(job.config)).rows(items, PART, answered, progress)


def answer(
    job: EvalJob, task: Task, items: Sequence[Item], progress: Callable[[int], None]
) -> Sequence[Choices | Generations]:
    """Let the checkpoint answer; the engine holds the base model again afterwards."""
    requests: Any = task.requests(items)
    if job.cell.transform == CONSTANT:
        answers = _constant(job, task, requests)
        progress(len(items))
    else:
        answers = _answers(job, task, requests, progress)
    if task.needs == "choices" or not task.reference:
        return answers
    return with_reference(_engine(job, job.model), requests, answers)


def _constant(job: EvalJob, task: Task, requests: Sequence[ModelRequest]) -> list[Any]:
    if task.needs == "choices":
        return constant_answers(requests, 0, 0)
    tokens = load_tokenizer(job.model).encode(TEXT, add_special_tokens=False)
    return constant_answers(requests, task.settings.decoding.samples, len(tokens))


def _answers(job: EvalJob, task: Task, requests: Any, progress: Callable[[int], None]) -> list[Any]:
    """Let the engine answer as the checkpoint does."""
    store = Store.open(job.config.store)
    entry = store.entry("cells", job.cell.id)
    if job.cell.elsewhere:
        folder = job.folder or Path((entry.manifest() or {})["pointer"])
        if folder_digest(folder, MODEL_FILES, store.digests) != job.cell.settings["digest"]:
            raise UserError(f"{folder} changed after {job.cell.label} was planned; run again.")
        engine = _engine(job, job.model.model_copy(update={"path": str(folder), "hub": None}))
    else:
        engine = _engine(job, job.model)
    try:
        if job.cell.transform not in UNMADE and not job.cell.elsewhere:
            _put(engine, entry)
        if task.needs == "choices":
            return engine.score_choices(requests, progress)
        return engine.generate(requests, task.settings.decoding, progress)
    finally:
        engine.restore()


def _put(engine: Engine, entry: Entry) -> None:
    """Let the engine answer as a finished cell does, by its weights or at decoding time."""
    decoding = decoding_of(entry)
    if decoding is None:
        engine.apply(load_delta(entry))
    else:
        method = cast("DecodingMethod", build_method(decoding["kind"], decoding["settings"]))
        engine.wrap(load_tensors(entry), method)


def with_reference(
    engine: Engine, requests: Sequence[GenerationRequest], answers: list[Generations]
) -> list[Generations]:
    """Add the log-probability that the engine's base model gives to each continuation after its prompt."""
    texts = [
        ChoiceRequest(f"{request.item}/{number}", request.prompt, (text,))
        for request, answer in zip(requests, answers, strict=True)
        for number, text in enumerate(answer.texts)
        if text.strip()
    ]
    scores = {choice.item: choice for choice in engine.score_choices(texts)}
    return [
        replace(
            answer,
            reference=[
                scores[key].logprobs[0] if (key := f"{answer.item}/{number}") in scores else 0.0
                for number in range(len(answer.texts))
            ],
        )
        for answer in answers
    ]


_tasks: dict[tuple[type[Task], str], tuple[Task, list[Item]]] = {}


def built_task(planned: PlannedTask) -> tuple[Task, list[Item]]:
    """Return a task and its items; its data are read, and held against the plan, once."""
    key = tasks.get(planned.spec.task), repr(planned)
    if key not in _tasks:
        _tasks[key] = planned.build()
    return _tasks[key]


def loaded_scorer(spec: ScorerSpec, device: str) -> Scorer:
    """Return a loaded scorer; one of another digest or with other settings is another."""
    return _loaded(spec.model_dump_json(), device)


@lru_cache(maxsize=2)
def _loaded(values: str, device: str) -> Scorer:
    spec = ScorerSpec.model_validate_json(values)
    return load_scorer(spec.kind, spec.path or "", device, spec.settings)
