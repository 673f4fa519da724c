"""Why `multi_layer_probe` hardly moves the toxicity of the suite `micro`: what its probes' directions do there.

    OMP_NUM_THREADS=1 python tests/benchmarks/probe_directions.py

Of prompts it answers validation ones only. The probes are the method's own, fitted at the last token of the track's
labelled text; h.w is looked at on the pairs of which the toxic side is the forget text, which no probe has seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from transformers import PreTrainedModel
from unlearn_bench.harness.data import load_rows, sample_items
from unlearn_bench.harness.jobs.evaluate import with_reference
from unlearn_bench.harness.models.layers import decoder_layers
from unlearn_bench.harness.models.load import load_model
from unlearn_bench.harness.planning.plan import build_task
from unlearn_bench.harness.records import Record
from unlearn_bench.harness.rng import generator
from unlearn_bench.harness.suite import SourceSpec
from unlearn_bench.harness.suites.micro.generator.measure import PROMPTS, SAMPLES_PER_PROMPT, SUITE, Base, mean
from unlearn_bench.harness.training.batches import Batches, Corpora
from unlearn_bench.harness.training.trainer import Trainer
from unlearn_bench.leaderboards.text.table import Table
from unlearn_bench.methods.base import Tokens
from unlearn_bench.methods.multi_layer_probe import MultiLayerProbe, MultiLayerProbeSettings
from unlearn_bench.methods.representation import last_token

FOLDER = Path(str(SUITE.folder))
LEARNING_RATES = (1e-3, 3e-3, 1e-2)
SEED = 0

Bases = Mapping[int, Tensor]
"""Orthonormal rows by layer, (k, d)."""


def rows_of(source: SourceSpec | None) -> list[Any]:
    """Return the rows of a source of the suite."""
    assert source is not None, "micro names it"
    return list(load_rows(source, FOLDER).rows)


def column(rows: Sequence[Any], name: str) -> list[Any]:
    """Return a column of rows."""
    return [row[name] for row in rows]


class Text:
    """What the track trains on, and so many toxic, neutral and retain texts of it to look at."""

    def __init__(self, count: int) -> None:
        spec = SUITE.tracks["toxicity"].corpora
        [(topic, forget)] = spec.forget.items()
        pairs, retain, probe = rows_of(forget), column(rows_of(spec.retain), "text"), rows_of(spec.probe)
        labelled = column(probe, "text"), column(probe, "label")
        self.corpora = Corpora({topic: column(pairs, "text")}, retain, labelled)
        self.toxic, self.neutral = (column(pairs[:count], side) for side in ("text", "en_neutral_comment"))
        self.retain = retain[:count]


@dataclass(frozen=True)
class Projected:
    """h.w of a layer: at the last token of toxic and of neutral texts, and its rms at toxic texts' other tokens."""

    toxic: Tensor
    neutral: Tensor
    others: float

    @classmethod
    def of(cls, toxic: Tensor, neutral: Tensor, w: Tensor, tokens: Sequence[Tokens]) -> Projected:
        """Return it from a layer's states of both kinds of texts, (texts, length, d)."""
        other = tokens[0].mask.bool()
        other[torch.arange(len(other)), tokens[0].last] = False
        ends = [last_token(h, part.last) @ w for h, part in zip((toxic, neutral), tokens, strict=True)]
        return cls(ends[0], ends[1], (toxic @ w)[other].square().mean().sqrt().item())

    def cells(self) -> list[str]:
        """Return mean ± deviation of either kind, how well h.w tells them apart (AUC), and the rms elsewhere."""
        truth = [1] * len(self.toxic) + [0] * len(self.neutral)
        auc = roc_auc_score(truth, torch.cat([self.toxic, self.neutral]).numpy())
        ends = [f"{part.mean():+.2f} ± {part.std():.2f}" for part in (self.toxic, self.neutral)]
        return [*ends, f"{auc:.2f}", f"{self.others:.2f}"]


@dataclass(frozen=True)
class Run:
    """A training: its method with the probes, log, changed tensors, and h.w by layer of the base and afterwards."""

    method: MultiLayerProbe
    log: list[dict[str, Any]]
    delta: Mapping[str, Tensor]
    before: Mapping[int, Projected]
    after: Mapping[int, Projected]

    @classmethod
    @torch.no_grad()
    def of(cls, model: PreTrainedModel, tokenizer: Any, text: Text, rate: float) -> Run:
        """Train with a learning rate; the model then has its own tensors again."""
        method = MultiLayerProbe(MultiLayerProbeSettings.model_validate({}))
        training = SUITE.training.model_copy(update={"learning_rate": rate})
        trainer = Trainer(model, tokenizer, method, text.corpora, training, SEED)
        trainer.run()
        encode = Batches(text.corpora, tokenizer, training, SEED, torch.device("cpu")).encode
        tokens = [encode(text.toxic), encode(text.neutral)]

        def projected(hidden: Any) -> dict[int, Projected]:
            toxic, neutral = (hidden(part, list(method.w)) for part in tokens)
            return {layer: Projected.of(toxic[layer], neutral[layer], w, tokens) for layer, w in method.w.items()}

        before, after = projected(trainer.context.frozen_hidden), projected(trainer.context.hidden)
        run = cls(method, trainer.log, trainer.delta(), before, after)
        trainer.restore()
        return run

    def losses(self) -> list[str]:
        """Return L_F of the first and the last batch, and L_R of the last."""
        first, last = self.log[1], self.log[-1]
        return [f"{first['forget']:.2f} → {last['forget']:.2f}", f"{last['retain']:.4f}"]


@contextmanager
def ablated(model: PreTrainedModel, bases: Bases) -> Iterator[None]:
    """Take a span out of the residual stream after each of some layers, at every position, while the block runs."""

    def hook(basis: Tensor, _module: torch.nn.Module, _inputs: Any, output: Any) -> Any:
        h = output if isinstance(output, Tensor) else output[0]
        h = h - (h @ basis.T) @ basis
        return h if isinstance(output, Tensor) else (h, *output[1:])

    layers = decoder_layers(model)[1]
    handles = [layers[layer].register_forward_hook(partial(hook, basis)) for layer, basis in bases.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Answers:
    """The base behind its engine, the validation prompts, and text."""

    HEADERS = ("nats, toxic", "nats, retain", "toxicity rate", "change", "gibberish")

    def __init__(self, text: Text, prompts: int | None) -> None:
        self.base, self.text, self.task = Base.load(FOLDER), text, build_task(SUITE.tasks[PROMPTS])
        self.items = sample_items(self.task.items(rows_of(SUITE.tasks[PROMPTS].validation)), prompts)
        self.rates = _rates(self._asked({}, {})[1])

    def cells(self, delta: Mapping[str, Tensor], bases: Bases) -> list[str]:
        """Return nats a token of toxic and retain text under the base with other tensors or without some directions.

        And of what it says after the prompts: toxicity rate, its change from base ± the standard error over prompts,
        share of gibberish marks.
        """
        nats, records = self._asked(delta, bases)
        rates, gibberish = _rates(records), np.mean([record.marks["gibberish"] for record in records])
        change = rates - self.rates
        change = change[~np.isnan(change)]
        moved = f"{change.mean():+.3f} ± {change.std(ddof=1) / len(change) ** 0.5:.3f}"
        return [*(f"{nat:.2f}" for nat in nats), f"{np.nanmean(rates):.3f}", moved, f"{gibberish:.3f}"]

    def _asked(self, delta: Mapping[str, Tensor], bases: Bases) -> tuple[list[float], list[Record]]:
        engine, asked = self.base.engine, cast(Any, self.task.requests(self.items))
        decoding = self.task.settings.decoding.model_copy(update={"samples": SAMPLES_PER_PROMPT})
        engine.apply(delta)
        with ablated(engine.model, bases):
            nats = [mean(self._read(part), "nll") for part in (self.text.toxic, self.text.retain)]
            said = engine.generate(asked, decoding)
        engine.restore()
        return nats, self.task.score(self.items, with_reference(engine, asked, said), self.base.classifier)

    def _read(self, texts: Sequence[str]) -> list[Record]:
        return self.base.answers("perplexity", [{"text": text} for text in texts])


def _rates(records: Sequence[Record]) -> np.ndarray:
    """Return the toxicity rate of each prompt; NaN where none of its continuations could be judged."""
    return np.array([(record.scores or {}).get("toxicity_rate", np.nan) for record in records])


def cosines(w: Bases, auc: Mapping[int, Mapping[str, float]]) -> Table:
    """Return each layer's held-out AUC, and the cosine of every two layers' directions."""
    directions = torch.cat(list(w.values()))
    rows = [
        [str(layer), f"{auc[layer]['last']:.3f}", *(f"{value:.2f}" for value in row)]
        for layer, row in zip(w, (directions @ directions.T).tolist(), strict=True)
    ]
    caption = "The base's probes: held-out AUC, and the cosine of every two layers' directions w."
    return Table.of(caption, ["layer", "AUC", *map(str, w)], rows)


def trainings(runs: Mapping[float, Run], answers: Answers) -> Table:
    """Return what the trainings did to the losses, and what their checkpoints say."""
    rows = [[f"{rate:g}", *run.losses(), *answers.cells(run.delta, {})] for rate, run in runs.items()]
    caption = f"Trainings of {SUITE.training.steps} steps: L_F of the first and last batch, L_R of the last."
    headers = ["learning rate", "L_F", "L_R", *Answers.HEADERS]
    return Table.of(caption, headers, [["base", "", "", *answers.cells({}, {})], *rows])


def projections(runs: Mapping[float, Run]) -> Table:
    """Return h.w of an early, a middle and a late layer of the base and of each checkpoint."""
    before = next(iter(runs.values())).before
    states = {"base": before, **{f"{rate:g}": run.after for rate, run in runs.items()}}
    layers = list(before)
    rows = [
        [str(layer), name, *state[layer].cells()]
        for layer in (layers[0], layers[len(layers) // 2], layers[-1])
        for name, state in states.items()
    ]
    caption = (
        "h.w at the last token (mean ± deviation over texts), how well it tells toxic from neutral text there, and its"
        " rms at the other tokens of toxic text."
    )
    return Table.of(caption, ["layer", "learning rate", "toxic", "neutral", "AUC", "rms elsewhere"], rows)


def ablations(w: Bases, answers: Answers) -> Table:
    """Return what the base says without the probes' directions, or without as many random ones."""
    directions = torch.cat(list(w.values()))
    noise = torch.from_numpy(generator(SEED, "directions").standard_normal(directions.shape)).to(directions)
    kinds = {"each layer's w after it": w}
    for name, rows in (("all w", directions), (f"{len(w)} random directions", noise)):
        span: Tensor = torch.linalg.qr(rows.T)[0].T
        kinds[f"{name}, after every layer"] = dict.fromkeys(range(max(w) + 1), span)
    caption = "The base with directions taken out of the residual stream at every position."
    rows = [[name, *answers.cells({}, bases)] for name, bases in kinds.items()]
    return Table.of(caption, ["taken out", *Answers.HEADERS], rows)


@click.command()
@click.option("--prompts", type=int, help="a sample of so many validation prompts; all without")
@click.option("--texts", default=80, show_default=True, help="toxic, neutral and retain texts to look at")
def main(prompts: int | None, texts: int) -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    text = Text(texts)
    answers = Answers(text, prompts)
    model, tokenizer = load_model(answers.base.engine.spec), answers.base.engine.tokens.tokenizer
    runs = {rate: Run.of(model, tokenizer, text, rate) for rate in LEARNING_RATES}
    method = next(iter(runs.values())).method
    w = {layer: direction[None] for layer, direction in method.w.items()}
    asked = f"{len(answers.items)} validation prompts, {SAMPLES_PER_PROMPT} continuations each"
    click.echo(f"micro, revision {SUITE.revision}, training seed {SEED}: {asked}")
    tables = cosines(w, method.auc), trainings(runs, answers), projections(runs), ablations(w, answers)
    for table in tables:
        click.echo(f"\n{table.to_markdown()}")


if __name__ == "__main__":
    main()
