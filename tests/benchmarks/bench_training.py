"""Training against a plain RMU written from its formula: two whole models, every layer and the head, each pass.

    python tests/benchmarks/bench_training.py --model DIR           # a local model, as it is on disk
    python tests/benchmarks/bench_training.py --architecture Llama-3.1-8B --dtype bfloat16   # random weights (GPU)

Both sides take the same batches and start from the same weights; steps alternate, and times are medians. Memory is
counted tensor by tensor in a run of its own, since counting takes time.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import torch
import yaml
from accounting import Accounting
from torch import Tensor
from unlearn_bench.harness.models.layers import decoder_layers
from unlearn_bench.harness.models.load import ModelSpec, cut, load_model, load_tokenizer
from unlearn_bench.harness.suite import TrainingSpec
from unlearn_bench.harness.training.batches import Corpora
from unlearn_bench.harness.training.trainer import Trainer
from unlearn_bench.methods.base import Batch, Tokens, methods
from unlearn_bench.methods.testing import WORDS, tiny_tokenizer

PAPER = Path(__file__).resolve().parents[2] / "harness" / "suites" / "paper.yaml"
COEFFICIENT, ALPHA = 6.5, 1200.0


class PlainRMU:
    """RMU as a first script would have it: a frozen copy of the model, full passes, hidden states by hook.

    `everything` lets gradients reach every parameter, as public RMU code does; else the trained ones only.
    """

    def __init__(self, model: Any, layer: int, u: Tensor, training: TrainingSpec, everything: bool) -> None:
        self.updated, self.frozen, self.layer, self.u = model, copy.deepcopy(model), layer, u
        own = dict(model.named_parameters())
        self.trained = {f"model.layers.{layer - back}.mlp.down_proj.weight": None for back in (2, 1, 0)}
        for name, parameter in own.items():
            parameter.requires_grad_(everything or name in self.trained)
        self.trained = {name: own[name] for name in self.trained}
        self.optimizer = torch.optim.AdamW(self.trained.values(), lr=training.learning_rate, weight_decay=0.0)

    def step(self, batch: Batch) -> float:
        """Take a step; return the loss."""
        mask_f, mask_r = batch.forget.mask, batch.retain.mask
        h_f, h_r = self._hidden(self.updated, batch.forget), self._hidden(self.updated, batch.retain)
        with torch.no_grad():
            frozen = self._hidden(self.frozen, batch.retain)
        forget = ((h_f.float() - COEFFICIENT * self.u).square().mean(-1) * mask_f).sum() / mask_f.sum()
        retain = ((h_r.float() - frozen.float()).square().mean(-1) * mask_r).sum() / mask_r.sum()
        loss = forget + ALPHA * retain
        self.updated.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def _hidden(self, model: Any, tokens: Tokens) -> Tensor:
        found: list[Tensor] = []
        handle = decoder_layers(model)[1][self.layer].register_forward_hook(
            lambda _module, _inputs, output: found.append(output if isinstance(output, Tensor) else output[0])
        )
        model(input_ids=tokens.ids, attention_mask=tokens.mask, use_cache=False)
        handle.remove()
        return found[0]


def load(model: Path | None, architecture: str, dtype: str, device: str) -> tuple[Callable[[int | None], Any], Any]:
    """Return a function that loads the model or its first layers, and its tokenizer."""
    if model is not None:
        spec = ModelSpec(name=model.name, path=str(model), dtype=dtype)
        return lambda layers: load_model(spec, device, layers=layers), load_tokenizer(spec)
    facts = yaml.safe_load(PAPER.read_text())["models"][architecture]["architecture"]

    def build(layers: int | None) -> Any:
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.for_model(**facts)
        if layers is not None:
            cut(config, layers)
        torch.manual_seed(0)
        with torch.device(device):
            return AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).eval()

    return build, tiny_tokenizer()


def median_seconds(steps: Sequence[Callable[[], Any]], rounds: int, device: str) -> list[float]:
    """Run the steps in turn, `rounds` times; return the median time of each."""
    taken: list[list[float]] = [[] for _ in steps]
    for _ in range(rounds):
        for own, step in zip(taken, steps, strict=True):
            started = time.perf_counter()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            own.append(time.perf_counter() - started)
    return [statistics.median(own) for own in taken]


def peak_bytes(step: Callable[[], Any], held: Iterator[Tensor], device: str) -> int:
    """Return the peak of one step: of the allocator on a GPU, else counted tensor by tensor."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated()
    with Accounting(held) as account:
        step()
    return account.peak


def held(side: Trainer | PlainRMU) -> Iterator[Tensor]:
    """Return the tensors that live between steps."""
    plain = isinstance(side, PlainRMU)
    models, optimizer = (
        ([side.updated, side.frozen], side.optimizer) if plain else ([side.context.model], side._optimizer)
    )
    for model in models:
        yield from (*model.parameters(), *model.buffers())
    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))
    if not plain:
        yield from side._tensors.originals.values()


def _apart(one: Tensor, other: Tensor) -> float:
    return (one.detach().float() - other.detach().float()).abs().max().item()


@click.command()
@click.option("--model", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--architecture", default="Llama-3.1-8B", show_default=True, help="of the suite paper, random weights")
@click.option("--dtype", default="float32", show_default=True)
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--length", default=128, show_default=True, help="tokens a sequence")
@click.option("--layer", default=7, show_default=True, help="that is steered, with updates of it and the two below")
@click.option("--rounds", default=5, show_default=True)
def main(
    model: Path | None, architecture: str, dtype: str, device: str, threads: int, length: int, layer: int, rounds: int
) -> None:
    """Print ratios of plain to ours: time a step, peak memory, and whether both end with the same weights."""
    torch.set_num_threads(threads)
    build, tokenizer = load(model, architecture, dtype, device)
    vocabulary = WORDS if model is None else [word.strip() for word in PAPER.read_text().split() if word.isalpha()]
    text = [
        " ".join(vocabulary[(11 * row + 7 * word) % len(vocabulary)] for word in range(2 * length)) for row in range(8)
    ]
    corpora = Corpora({"forget": text}, text[::-1])
    kind = methods.get("rmu")

    def ours(**options: Any) -> Trainer:
        training = TrainingSpec(batch_size=4, max_length=length, steps=1000, precision="reference", **options)
        return Trainer(build(layer + 1), tokenizer, kind(kind.Settings(layer=layer)), corpora, training, 0, device)

    training = TrainingSpec(batch_size=4, max_length=length, steps=1000)
    lean, kept = ours(), ours(keep_prefix=True)
    u = lean.method.u["forget"]  # pyright: ignore[reportAttributeAccessIssue]
    plain = {
        name: PlainRMU(build(None), layer, u, training, everything)
        for name, everything in (("gradients of all parameters", True), ("of the trained ones only", False))
    }
    epoch = len(text) // training.batch_size
    for trainer in (lean, kept):
        trainer.run(until=epoch)
    turn = {name: iter(range(10_000)) for name in plain}
    losses = {
        name: [one.step(lean.context.batch(next(turn[name]))) for _ in range(epoch)] for name, one in plain.items()
    }

    def go_on(trainer: Trainer) -> Callable[[], None]:
        return lambda: trainer.run(until=trainer.step + 1)

    def plainly(name: str) -> Callable[[], float]:
        return lambda: plain[name].step(lean.context.batch(next(turn[name])))

    seconds = median_seconds([go_on(lean), go_on(kept), *map(plainly, plain)], rounds, device)
    own, before = dict(lean.context.model.named_parameters()), lean._tensors.originals
    agreement = max(_apart(one.trained[name], own[name]) for one in plain.values() for name in before)
    moved = max(_apart(own[name], before[name]) for name in before)

    memory = peak_bytes(go_on(lean), held(lean), device)
    click.echo(
        f"{model.name if model else architecture}, {dtype}, {device}, {threads} threads, batches of 4 x {length}"
    )
    click.echo(f"ours: {seconds[0]:.3f} s a step, {seconds[1]:.3f} s with kept prefix; peak {memory / 1e9:.3f} GB")
    click.echo("| plain RMU | s a step | plain / ours | plain / ours, kept prefix | peak GB | ours / plain |")
    click.echo("| --- | ---: | ---: | ---: | ---: | ---: |")
    for (name, one), taken in zip(plain.items(), seconds[2:], strict=True):
        peak = peak_bytes(plainly(name), held(one), device)
        ratios = f"{taken / seconds[0]:.1f} | {taken / seconds[1]:.1f} | {peak / 1e9:.3f} | {memory / peak:.2f}"
        click.echo(f"| {name} | {taken:.3f} | {ratios} |")
    first, own_first = losses["of the trained ones only"][0], lean.log[1]["total"]
    click.echo(
        f"weights after {epoch + rounds} steps: largest difference {agreement:.1e}, largest change {moved:.1e};"
        f" first loss {first:.6g} and ours {own_first:.6g}"
    )


if __name__ == "__main__":
    main()
