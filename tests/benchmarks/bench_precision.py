"""How far the training precisions lie apart, on real text: what moves, and how near it is to training in float32.

python tests/benchmarks/bench_precision.py --model DIR --data DIR --steps 40
"""

from __future__ import annotations

from pathlib import Path

import click
import torch
from torch import Tensor
from unlearn_bench.harness.data import load_rows, texts
from unlearn_bench.harness.models.load import ModelSpec, load_model, load_tokenizer
from unlearn_bench.harness.suite import SourceSpec, TrainingSpec, load_suite
from unlearn_bench.harness.training.batches import Corpora
from unlearn_bench.harness.training.trainer import Trainer
from unlearn_bench.methods.base import methods


@click.command()
@click.option("--model", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--method", default="rmu", show_default=True)
@click.option("--steps", default=40, show_default=True)
@click.option("--length", default=64, show_default=True)
@click.option("--learning-rate", default=5e-5, show_default=True)
def main(model: Path, data: Path, method: str, steps: int, length: int, learning_rate: float) -> None:
    """Train the model, held in bfloat16, in each precision and compare the checkpoints."""
    spec = ModelSpec(name=model.name, path=str(model), dtype="bfloat16")
    text = load_suite("real").tracks["toxicity"].corpora

    def read(source: SourceSpec) -> list[str]:
        return texts(load_rows(source, data).rows, source)

    corpora = Corpora({topic: read(source) for topic, source in text.forget.items()}, read(text.retain))
    kind, base = methods.get(method), dict(load_model(spec).named_parameters())
    made: dict[str, dict[str, Tensor]] = {}
    click.echo(f"{model.name} in bfloat16, {method}, {steps} steps of 4 x {length}, learning rate {learning_rate:g}")
    click.echo("| precision | weights moved | size of the change | angle to float32's | last forget | last retain |")
    click.echo("| --- | ---: | ---: | ---: | ---: | ---: |")
    for precision in ("float32", "mixed", "reference"):
        training = TrainingSpec(max_length=length, steps=steps, precision=precision, learning_rate=learning_rate)
        trainer = Trainer(load_model(spec), load_tokenizer(spec), kind(kind.Settings()), corpora, training, seed=0)
        trainer.run()
        delta = trainer.delta()
        made[precision] = {name: delta.get(name, base[name]).float() - base[name].detach().float() for name in delta}
        change, reference = (
            torch.cat([part.flatten() for _, part in sorted(made[key].items())]) for key in (precision, "float32")
        )
        cosine = torch.nn.functional.cosine_similarity(change, reference, dim=0).clamp(-1, 1)
        row, degrees = trainer.log[-1], torch.rad2deg(torch.arccos(cosine)).item()
        click.echo(
            f"| {precision} | {(change != 0).float().mean():.1%} | {change.norm():.4f} | {degrees:.1f}° |"
            f" {row['forget']:.4g} | {row['retain']:.4g} |"
        )


if __name__ == "__main__":
    main()
