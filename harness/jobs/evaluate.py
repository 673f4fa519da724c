"""The evaluator: a checkpoint answers a task's requests (outcomes), and the answers are scored (records)."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from ...methods.base import DecodingMethod, build_method
from ...tasks.base import ChoiceRequest, GenerationRequest, ModelRequest, Scorer, Task, load_scorer, scorers, tasks
from ..engines.base import Engine, engines
from ..errors import EntryLocked, JobError, UserError
from ..models.content import check_model, digests_of, stamps
from ..models.load import ModelSpec, load_tokenizer
from ..planning.nulls import TEXT, constant_answers
from ..planning.plan import PlannedTask
from ..planning.scorers import SCORER_FILES, check_scorer
from ..planning.status import delta_of
from ..records import Generations, Item, Outcome, Record, outcome_of, to_row, why_missing
from ..runtime import Event, OnEvent, RunConfig, environment_facts, recorded_facts
from ..specs import digest
from ..store.delta import decoding_of, load_delta, load_tensors, not_finite
from ..store.entries import Entry, Store
from ..store.files import read_jsonl, write_jsonl
from ..store.identity import CONSTANT, UNMADE, OutcomeSpec
from ..store.partial import PartialResults
from ..suite import ScorerSpec
from .job import EvalJob

logger = logging.getLogger(__name__)

PART = 1000
"""Items that are answered together, and texts that are judged together; an interrupted job goes on after a part."""


def evaluate_checkpoint(job: EvalJob, report: OnEvent) -> None:
    """Answer and score every task of the job; what is finished in the store is not done again.

    A task that fails leaves the others to be done.

    Raises:
        EntryLocked: another process is at some of it and the job does not wait; the rest is done.
        Exception: what went wrong with a task, with several a `UserError` or `JobError` that names them.
    """
    store = Store.open(job.config.store)
    delta = delta_of(job.cell, store)
    if delta is None:
        raise UserError(f"{job.cell.label} is not finished, so it cannot be measured; run the same command again.")
    busy, failures = None, {}
    for planned in job.tasks:
        outcome = planned.outcome(job.model, delta, job.engine)
        try:
            with store.entry("outcomes", outcome.id).claim(wait=job.wait):
                _evaluate(job, planned, outcome, store, report)
        except EntryLocked as error:
            busy = error
        except EngineError as error:
            raise (error.__cause__ or error) from None
        except Exception as error:
            logger.info("%s: %s failed: %s", job.cell.label, planned.name, error)
            failures[planned.name] = error
    if failures:
        raise _together(failures, len(job.tasks))
    if busy is not None:
        raise busy


class EngineError(Exception):
    """The engine of a checkpoint does not start, so that no task of it can be answered; its cause says why."""


def _together(failures: Mapping[str, Exception], tasks: int) -> Exception:
    """Return what to raise for the tasks that failed: the error itself where it is that of all of them."""
    causes: dict[str, list[str]] = {}
    for task, error in failures.items():
        known = isinstance(error, UserError | JobError)
        causes.setdefault(str(error) if known else f"{type(error).__name__}: {error}", []).append(task)
    first = next(iter(failures.values()))
    if len(failures) == tasks and len(causes) == 1:
        return first
    text = "; ".join(f"{', '.join(names)}: {cause}" for cause, names in causes.items())
    failure = UserError(text) if all(isinstance(error, UserError) for error in failures.values()) else JobError(text)
    failure.__cause__ = first
    return failure


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
    answers = [outcome_of(row) for row in read_jsonl(entry.file("outcomes.jsonl"))]
    scored = store.entry("records", record.id)
    scorer = _scorer(job, planned, scored, report) if task.judged else None
    judged = {"recorded": environment_facts(job.config)} if task.judged else {}
    metric = task.metric.score
    records = [sound(scores, metric) for scores in task.score(items, answers, scorer)]
    scored.commit(
        {"records.jsonl": partial(write_jsonl, rows=map(to_row, records))},
        {
            "record": record.model_dump(mode="json"),
            "cell": job.cell.label,
            **judged,
            **_scored(job, records, None if answered else answers),
        },
    )
    seconds = time.perf_counter() - started
    logger.info("%s: %s measured, %d items in %.1f s", job.cell.label, planned.name, len(items), seconds)


def sound(record: Record, metric: str) -> Record:
    """Return a record without scores that are no finite numbers; it is missing where its task's metric is one."""
    scores = record.scores or {}
    wrong = {name: value for name, value in scores.items() if not _is_finite(value)}
    if record.scores is None or (metric in scores and not wrong):
        return record
    if metric in wrong or metric not in scores:
        return replace(record, scores=None, missing=f"its {metric} is {scores.get(metric, 'not there')}")
    return replace(record, scores={name: value for name, value in scores.items() if name not in wrong})


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _scored(job: EvalJob, records: Sequence[Record], answers: Sequence[Outcome] | None) -> dict[str, Any]:
    """Return what a record entry says of its scores: how many there are, and where there is none, why.

    `answers` are those that the engine just gave, None where they were there before.
    """
    scored = sum(record.scores is not None for record in records)
    if scored or not records:
        return {"scored": scored}
    known = ", ".join(_why_broken(job, answers)) if answers else ""
    reason = why_missing(record.missing for record in records) or "no record says why"
    return {"scored": scored, "unscored": f"{reason} ({known})" if known else reason}


def _why_broken(job: EvalJob, answers: Sequence[Outcome]) -> Iterator[str]:
    """Give what is known of a checkpoint none of whose answers can be scored."""
    pairs = [pair for answer in answers if isinstance(answer, Generations) for pair in _ends(answer)]
    ended = [stopped for stopped, count in pairs if not count]
    if ended and all(ended):
        yield "each ends at its first token"
        return
    tensor = _broken_tensor(job)
    if tensor is not None:
        yield f"its tensor {tensor} holds values that are not finite"
    elif ended and not any(ended):
        yield "its logits are not finite"


def _ends(answer: Generations) -> Iterator[tuple[bool, int]]:
    """Give of each continuation whether it ended by itself, and its tokens."""
    return zip(answer.stopped, answer.tokens, strict=True)


def _broken_tensor(job: EvalJob) -> str | None:
    """Return the name of a checkpoint's tensor that holds a value that is not finite, None where none is known."""
    model = answering_model(job)
    if model is job.model and job.cell.transform not in UNMADE:
        return not_finite(load_tensors(Store.open(job.config.store).entry("cells", job.cell.id)))
    return None if job.cell.transform == CONSTANT else _engine(job, model).broken_tensor()


def _counted(report: Callable[[int, int], None], total: int) -> Callable[[int], None]:
    """Return what is told how many more are done, and reports how many are done of the total."""
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        report(done, total)

    return progress


class PartialScorer(Scorer):
    """A scorer that keeps the judgements of each part of many texts beside the records that they are for."""

    def __init__(self, spec: ScorerSpec, record: Entry, config: RunConfig, report: Callable[[int, int], None]) -> None:
        self.spec, self.scorer = spec, loaded_scorer(spec, config)
        self.record, self.digests, self.report = record, digests_of(config), report
        self.maker = {**environment_facts(config), "scikit-learn": version("scikit-learn")}

    def score(self, texts: Sequence[Any]) -> list[float | None]:
        """Return what the scorer says of each text, or pair of texts."""
        progress = _counted(self.report, len(texts))

        def judged(part: Sequence[Any]) -> list[float | None]:
            values = [None if value is None else float(value) for value in self.scorer.score(part)]
            if len(values) != len(part):
                raise UserError(
                    f"The scorer {type(self.scorer).__name__} gave {len(values)} values for {len(part)} texts; it"
                    " has to give one a text, None where it cannot say."
                )
            check_scorer(self.spec, self.digests)
            progress(len(part))
            return values

        partials = PartialResults(self.record, "judged", {**self.maker, "texts": digest(list(texts))})
        return partials.rows(texts, PART, judged, progress)[0]


def _scorer(job: EvalJob, planned: PlannedTask, record: Entry, report: OnEvent) -> Scorer:
    if planned.scorer is None:
        raise UserError("This task needs a scorer of texts; pass one with --scorer FOLDER.")
    return PartialScorer(
        planned.scorer,
        record,
        job.config,
        lambda done, total: report(Event(job.cell.label, f"{planned.name}, judged", done, total)),
    )


def _engine(job: EvalJob, model: ModelSpec) -> Engine:
    from ..models.cache import engine

    config = job.config
    kind = engines.get(job.engine)
    try:
        return engine(kind, model, config.device, config.batch_size, config.engine_options, digests_of(config))
    except Exception as error:
        raise EngineError from error


def _engine_facts(job: EvalJob) -> dict[str, Any]:
    return {} if job.cell.transform == CONSTANT else _engine(job, job.model).recorded()


def _answered(
    job: EvalJob, name: str, task: Task, items: Sequence[Item], entry: Entry, report: OnEvent
) -> tuple[list[dict[str, Any]], float]:
    """Let the checkpoint answer, part by part; return the answers' rows, and the seconds of parts that were kept."""
    progress = _counted(lambda done, total: report(Event(job.cell.label, name, done, total)), len(items))

    def answered(part: Sequence[Item]) -> list[dict[str, Any]]:
        rows = [to_row(outcome) for outcome in answer(job, task, part, progress)]
        for model in (job.model, answering_model(job)):
            check_model(model, digests_of(job.config))
        return rows

    return PartialResults(entry, "answers", environment_facts(job.config)).rows(items, PART, answered, progress)


def answer(job: EvalJob, task: Task, items: Sequence[Item], progress: Callable[[int], None]) -> Sequence[Outcome]:
    """Let the checkpoint answer; the engine holds the base model again afterwards."""
    requests: Any = task.requests(items)
    if job.cell.transform == CONSTANT:
        answers = _constant(job, task, requests)
        progress(len(items))
    else:
        answers = _answers(job, task, requests, progress)
    if task.needs != "generations" or not task.reference:
        return answers
    return with_reference(_engine(job, job.model), requests, answers)


def _constant(job: EvalJob, task: Task, requests: Sequence[ModelRequest]) -> list[Any]:
    if task.needs != "generations":
        return constant_answers(requests, 0, 0)
    tokens = load_tokenizer(job.model).encode(TEXT, add_special_tokens=False)
    return constant_answers(requests, task.settings.decoding.samples, len(tokens))


def _answers(job: EvalJob, task: Task, requests: Any, progress: Callable[[int], None]) -> list[Any]:
    """Let the engine answer as the checkpoint does."""
    model = answering_model(job)
    engine = _engine(job, model)
    try:
        if model is job.model and job.cell.transform not in UNMADE:
            _put(engine, Store.open(job.config.store).entry("cells", job.cell.id))
        if task.needs == "choices":
            return engine.score_choices(requests, progress)
        if task.needs == "traces":
            return engine.trace(requests, progress)
        return engine.generate(requests, task.settings.decoding, progress)
    finally:
        engine.restore()


def answering_model(job: EvalJob) -> ModelSpec:
    """Return the model whose files answer: of an import its own folder with its digest, else the base."""
    if job.cell.transform != "import" or "digest" not in job.cell.settings:
        return job.model
    manifest = Store.open(job.config.store).entry("cells", job.cell.id).manifest() or {}
    folder, content = str(job.folder or manifest["pointer"]), job.cell.settings["digest"]
    return job.model.model_copy(update={"path": folder, "hub": None, "digest": content})


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


def loaded_scorer(spec: ScorerSpec, config: RunConfig) -> Scorer:
    """Return a loaded scorer; one is kept while its class, its spec and the stamps of its files stay."""
    seen = stamps(Path(spec.path), SCORER_FILES) if spec.path else ()
    return _loaded_scorer(scorers.get(spec.kind), spec.model_dump_json(), config.device, seen)


@lru_cache(maxsize=2)
def _loaded_scorer(kind: type[Scorer], values: str, device: str, seen: Any) -> Scorer:
    spec = ScorerSpec.model_validate_json(values)
    return load_scorer(spec.kind, spec.path or "", device, spec.settings)
