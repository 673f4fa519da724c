"""Memory of training an 8B model, tensor by tensor, against the target and the estimate of a plan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from accounting import training_bytes
from unlearn_bench.harness.models.meta import meta_model
from unlearn_bench.harness.planning.cost import OVERHEAD, Corpus, ModelSizes, training_cost
from unlearn_bench.harness.suite import TrainingSpec
from unlearn_bench.harness.training.trace import trace_method
from unlearn_bench.methods import multi_layer_probe
from unlearn_bench.methods.base import methods
from unlearn_bench.methods.multi_layer_probe import MultiLayerProbe
from unlearn_bench.methods.reinforce import AlphaMethod

SUITE = yaml.safe_load((Path(__file__).resolve().parents[2] / "harness" / "suites" / "paper.yaml").read_text())
LLAMA = SUITE["models"]["Llama-3.1-8B"]["architecture"]


@pytest.mark.parametrize(("precision", "limit"), [("mixed", 8e9), ("reference", 7e9)])
def test_rmu_on_an_8b_model_fits_a_small_gpu(precision, limit):
    training = TrainingSpec(batch_size=4, max_length=512, steps=2, precision=precision)
    peak = training_bytes(LLAMA, "rmu", training)
    print(f"\nLlama-3.1-8B, RMU, 4 x 512, {precision}: {peak / 1e9:.2f} GB of tensors")
    assert peak <= limit
    kind = methods.get("rmu")
    anatomy, work = ModelSizes(meta_model(LLAMA)), trace_method(kind(kind.Settings()), meta_model(LLAMA))
    estimate = training_cost(anatomy, work, training, Corpus(600), "bfloat16").memory_bytes - OVERHEAD
    assert estimate == pytest.approx(peak, rel=0.2)


@pytest.mark.slow
def test_checkpointing_takes_the_activations_of_nine_layers_out(monkeypatch):
    """The probes are fitted to random features and log nothing here: fake tensors have no values."""

    def features(self, context, batches):
        count = sum(len(labels) for _, labels in batches)
        rows = {
            layer: np.random.default_rng(layer).normal(size=(count, context.hidden_size))
            for layer in self.watched(context)
        }
        return rows, rows

    monkeypatch.setattr(MultiLayerProbe, "_features", features)
    monkeypatch.setattr(multi_layer_probe, "_digest", lambda *_: "texts")
    monkeypatch.setattr(multi_layer_probe, "_auc", lambda *_: None)
    monkeypatch.setattr(multi_layer_probe, "_described", lambda _: {})
    monkeypatch.setattr(MultiLayerProbe, "after_step", AlphaMethod.after_step)
    training = TrainingSpec(batch_size=4, max_length=512, steps=2)
    options = (LLAMA, "multi_layer_probe", training, {"alpha_mode": "fixed"})
    plain, lean = (training_bytes(*options, checkpointing=on) for on in (False, True))
    print(f"\nLlama-3.1-8B, nine-layer probe, 4 x 512: {plain / 1e9:.2f} GB; {lean / 1e9:.2f} GB with checkpointing")
    assert lean < 0.75 * plain


def test_the_estimate_of_a_likelihood_method_counts_logits_and_whole_layers():
    training, settings = TrainingSpec(batch_size=4, max_length=512, steps=2), {"layers": [28, 29, 30, 31]}
    peak = training_bytes(LLAMA, "grad_diff", training, settings)
    print(f"\nLlama-3.1-8B, gradient difference on four layers, 4 x 512: {peak / 1e9:.2f} GB of tensors")
    kind = methods.get("grad_diff")
    work = trace_method(kind(kind.Settings(**settings)), meta_model(LLAMA))
    estimate = (
        training_cost(ModelSizes(meta_model(LLAMA)), work, training, Corpus(600), "bfloat16").memory_bytes - OVERHEAD
    )
    assert estimate == pytest.approx(peak, rel=0.15)
