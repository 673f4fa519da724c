"""Training by an unlearning method."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import torch

from ...methods.base import Method, build_method, methods
from ..data import Rows, corpora_digests, forget_texts, load_rows, pool_digests, pool_lines, texts
from ..errors import LayerNotLoaded, UserError
from ..models.cache import base_model
from ..models.content import check_model, digests_of
from ..models.load import attention_of, load_config
from ..models.meta import meta_model
from ..runtime import CUT, PEAK, UNIFORM, Event, OnEvent, environment_facts
from ..specs import LabelledRow, RowSpec
from ..store.entries import Store
from ..store.partial import PartialResults
from ..suite import CorporaSpec, SourceSpec, TrainingSpec
from ..training.batches import Corpora
from ..training.trace import trace_method
from ..training.trainer import Trainer, matrix_products
from ._parent import changed, start
from .base import BuildJob, Transform, TransformResult, register

SAVE_EVERY = 300.0
"""Seconds of training after which its state is kept."""


@register("train")
class Train(Transform):
    """Fine-tune the base with a method's objective on the track's corpora."""

    summary = "training by an unlearning method"

    def make(self, job: BuildJob, report: OnEvent) -> TransformResult:
        """Train and return the changed tensors with the log, one row a step.

        Only the layers that the method reads when traced are loaded; if it reads others, all is loaded and training
        starts again.
        """
        method, corpora, settings = _method(job), read_corpora(job), job.cell.settings
        if job.cell.changes == "decoding" and "parent" in settings:
            raise UserError(
                f"{job.cell.label} works at decoding time on the base's own weights and cannot start from another"
                " checkpoint; leave it out, or pass the checkpoint as the model with --models."
            )
        try:
            made = trained(job, report, method, corpora, _read_layers(job))
        except LayerNotLoaded:
            made = trained(job, report, _method(job), corpora)
        at_decoding = {"kind": settings["method"], "settings": settings["settings"]}
        return replace(made, decoding=at_decoding) if job.cell.changes == "decoding" else made


def _method(job: BuildJob) -> Method:
    return build_method(job.cell.settings["method"], job.cell.settings["settings"])


def _read_layers(job: BuildJob) -> int | None:
    """Return the number of first layers that the method reads; None: all and the head, or it cannot be traced.

    A parent has all layers.
    """
    if "parent" in job.cell.settings:
        return None
    topics = tuple(job.corpora.forget) if job.corpora is not None else ()
    try:
        work = trace_method(_method(job), meta_model(load_config(job.model).to_dict()), topics)
    except Exception:
        return None
    return None if work.head else work.layers


def plainly_trained(job: BuildJob, report: OnEvent, method: Method, corpora: Corpora) -> TransformResult:
    """Return what language modelling made of the cell's start, with its last loss and its steps as the summary."""
    made = trained(job, report, method, corpora)
    cut = {CUT: made.summary[CUT]} if CUT in made.summary else {}
    return replace(made, summary={"loss": made.log[-1]["forget"], "steps": len(made.log) - 1, **cut})


def trained(
    job: BuildJob, report: OnEvent, method: Method, corpora: Corpora, layers: int | None = None
) -> TransformResult:
    """Train a cell's start, its parent or the base, by a method, with at least the first `layers` loaded (None: all).

    The start is the method's frozen model; the tensors are those that differ from the base's.
    """
    training = TrainingSpec.parse(job.cell.settings["training"], "training")
    model, tokenizer = base_model(job.model, job.config.device, training.precision, layers, digests_of(job.config))
    config = load_config(job.model).get_text_config(decoder=True)
    with start(job, model) as own, matrix_products(training.precision):
        trainer = Trainer(
            model,
            tokenizer,
            method,
            corpora,
            training,
            job.cell.seed or 0,
            job.config.device,
            config.num_hidden_layers,
            job.config.checkpointing,
            "replica" in job.cell.settings,
            job.cell.settings.get("parent"),
        )
        try:
            before = _run(job, report, trainer)
            delta = trainer.delta()
        finally:
            trainer.restore()
    if "parent" in job.cell.settings:
        delta = changed(own | delta, dict(model.named_parameters()))
    summary = _summary(trainer.log) | trainer.cut | _ascent(trainer, config.vocab_size)
    return TransformResult(delta, trainer.log, summary, before=before, attention=attention_of(model))


def _run(job: BuildJob, report: OnEvent, trainer: Trainer) -> float:
    """Train, from where an interrupted job was; return the seconds that it had spent.

    The state is kept now and then, at most a twentieth of the time. An error of training takes it away: what is begun
    again after a repair has nothing of before it.
    """
    partials = PartialResults(
        Store.open(job.config.store).entry("cells", job.cell.id), "training", environment_facts(job.config)
    )
    before = 0.0
    if (last := partials.last()) is not None:
        path, facts = last
        trainer.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        before = facts["seconds"]
    started = saved = time.monotonic()
    pause = SAVE_EVERY

    def on_step(row: dict[str, Any]) -> None:
        nonlocal saved, pause
        report(Event(job.cell.label, job.cell.transform, trainer.step, trainer.step if trainer.done else trainer.steps))
        now = time.monotonic()
        if now - saved >= pause and not trainer.done:
            check_model(job.model, digests_of(job.config))
            state = trainer.state_dict()
            partials.keep(trainer.step, lambda path: torch.save(state, path), seconds=before + now - started)
            partials.clear(below=trainer.step)
            saved = time.monotonic()
            pause = max(SAVE_EVERY, 20 * (saved - now))

    try:
        trainer.run(on_step)
    except Exception:
        partials.clear()
        raise
    return before


def read_corpora(job: BuildJob) -> Corpora:
    """Read the track's text: forget topics, retain, labelled text for probes.

    Raises:
        UserError: there is none, or it is not the text that the cell's identity speaks of.
    """
    spec: CorporaSpec | None = job.corpora
    if spec is None:
        raise UserError(f"{job.cell.label} needs text to train on; name it under `corpora:` of its track in the suite.")

    known: dict[tuple[SourceSpec, type[RowSpec]], Rows] = {}

    def rows_of(source: SourceSpec, schema: type[RowSpec]) -> Rows:
        if (source, schema) not in known:
            known[source, schema] = load_rows(source, job.folder, schema)
        return known[source, schema]

    def digest_of(source: SourceSpec, schema: type[RowSpec]) -> str:
        return rows_of(source, schema).digest

    beside = methods.get(job.cell.settings["method"]).auxiliary
    digests = corpora_digests(spec, digest_of) | pool_digests(spec, beside, digest_of)
    if digests != job.cell.settings["data"]:
        raise UserError(f"The text for {job.cell.label} changed after the run was planned; run again.")

    probe = None
    if spec.probe is not None:
        rows = LabelledRow.read_all(rows_of(spec.probe, LabelledRow).rows, "probe")
        kept = [row for row in rows if row.text.strip()]
        probe = ([row.text for row in kept], [row.label for row in kept])
    retain = texts(rows_of(spec.retain, spec.retain.text_row).rows, spec.retain)
    forget, pools = forget_texts(spec, beside, rows_of), pool_lines(spec, beside, rows_of)
    return Corpora(forget, retain, probe, spec.template, pools)


def _summary(log: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the last row of the log: final losses, alpha where it is learned, steps where a rule ended training."""
    last = {key: value for key, value in log[-1].items() if key not in ("step", "topic")} if log else {}
    return last | ({"steps": log[-1]["step"] + 1} if "stopped" in last else {})


def _ascent(trainer: Trainer, vocabulary: int) -> dict[str, float]:
    """Return how far the forget text's likelihood was driven down at most, nats a token, beside uniform guessing's."""
    columns = [name for name, role in trainer.method.log_schema.items() if role == "log_likelihood"]
    lowest = min((row[name] for row in trainer.log for name in columns if name in row), default=0.0)
    return {PEAK: -lowest, UNIFORM: math.log(vocabulary)} if lowest < 0 else {}
