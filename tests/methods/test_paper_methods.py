"""The two methods of the paper: equations by hand, probes, ablations, and what training does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from unlearn_bench.harness.errors import UserError
from unlearn_bench.methods import multi_layer_probe
from unlearn_bench.methods.base import methods
from unlearn_bench.methods.testing import tiny_model, tiny_trainer


def states(trainer, tokens):
    """All hidden states of the model as it is, from transformers itself."""
    with torch.no_grad():
        output = trainer.context.model(input_ids=tokens.ids, attention_mask=tokens.mask, output_hidden_states=True)
    return output.hidden_states[1:]


def test_cosine_losses_by_hand_after_training():
    trainer = tiny_trainer("cosine_meta_rmu")
    batch = trainer.context.batch(1)
    frozen = states(trainer, batch.retain)[7]
    trainer.run()
    losses = trainer.method.losses(batch)
    real = batch.forget.mask.bool()
    forget = 1 - F.cosine_similarity(states(trainer, batch.forget)[7][real], trainer.method.u[batch.topic][None])
    real = batch.retain.mask.bool()
    retain = 1 - F.cosine_similarity(states(trainer, batch.retain)[7][real], frozen[real])
    assert losses["forget"].item() == pytest.approx(forget.mean().item(), rel=1e-5)
    assert losses["retain"].item() == pytest.approx(retain.mean().item(), rel=1e-3)


def test_l2_ablation_is_rmu_with_a_learned_alpha():
    cosine, rmu = tiny_trainer("cosine_meta_rmu", {"distance": "l2"}), tiny_trainer("rmu")
    assert torch.equal(cosine.method.u["bio"], rmu.method.u["bio"])
    batch = rmu.context.batch(0)
    assert cosine.method.losses(batch)["forget"].item() == rmu.method.losses(batch)["forget"].item()


def test_probe_loss_by_hand_reads_the_last_real_token():
    trainer = tiny_trainer("multi_layer_probe", {"layers": [2, 5]})
    trainer.run()
    batch = trainer.context.batch(0)
    assert (batch.forget.mask == 0).any()
    hidden = states(trainer, batch.forget)
    expected = 0.0
    for row, keep in enumerate(batch.forget.mask.sum(1).tolist()):
        expected += sum(float(hidden[layer][row, keep - 1] @ trainer.method.w[layer]) ** 2 for layer in (2, 5))
    assert trainer.method.losses(batch)["forget"].item() == pytest.approx(expected / 3, rel=1e-4)
    assert sorted(trainer.delta()) == ["model.layers.2.mlp.down_proj.weight", "model.layers.5.mlp.down_proj.weight"]


def test_probe_directions_separate_and_have_unit_norm():
    trainer = tiny_trainer("multi_layer_probe", {"layers": [0]})
    w = trainer.method.w[0]
    assert torch.linalg.vector_norm(w).item() == pytest.approx(1, rel=1e-5)
    scores, labels = [], []
    for tokens, marks in trainer.context.labelled():
        last = tokens.mask.sum(1) - 1
        scores += (states(trainer, tokens)[0][torch.arange(len(last)), last] @ w).tolist()
        labels += marks.tolist()
    positive, negative = (np.array([s for s, m in zip(scores, labels, strict=True) if m == k]) for k in (1, 0))
    assert (positive[:, None] > negative).mean() > 0.9
    auc = trainer.log[0]["setup"]["auc"]["0"]
    assert auc["last"] > 0.8
    assert auc["mean"] > 0.5


def test_probes_are_fitted_once_a_model_and_text_whatever_the_seed(monkeypatch):
    fitted = []
    fit = multi_layer_probe._direction
    monkeypatch.setattr(multi_layer_probe, "_direction", lambda *args: fitted.append(args) or fit(*args))
    model, logs = tiny_model(), []
    for settings, seed in (({}, 0), ({}, 1), ({"alpha_0": 2.0}, 0), ({"probe_c": 0.5}, 0)):
        trainer = tiny_trainer("multi_layer_probe", {"layers": [2, 5], **settings}, seed=seed, model=model)
        trainer.run()
        trainer.restore()
        logs.append({key: trainer.log[0]["setup"][key] for key in ("auc", "probes")})
    assert len(fitted) == 4, "two layers each: once for three trainings, once with another regularisation"
    assert logs[0] == logs[1] == logs[2] != logs[3]


def test_the_log_tells_what_the_probes_are_and_each_layers_part_of_the_forget_loss():
    trainer = tiny_trainer("multi_layer_probe", {"layers": [5, 2]})
    probes, w = trainer.log[0]["setup"]["probes"], trainer.method.w
    assert probes["layers"] == [2, 5]
    assert probes["cosines"][0][1] == probes["cosines"][1][0] == pytest.approx(float(w[2] @ w[5]), abs=1e-4)
    weights = w[5].numpy() * np.sqrt(len(w[5]))
    middle = next(i for i, edge in enumerate(probes["edges"]) if edge >= 0)
    assert sum(probes["counts"][1]) == len(weights)
    assert sum(probes["counts"][1][middle:]) == (weights >= 0).sum()
    trainer.run()
    for row in trainer.log[1:]:
        assert row["forget"] == pytest.approx(row["forget_layer_2"] + row["forget_layer_5"], rel=1e-5)


def test_shuffled_probe_labels_change_the_result_and_lose_the_auc():
    given, shuffled = (tiny_trainer("multi_layer_probe", {"labels": labels}) for labels in ("given", "shuffled"))
    for trainer in (given, shuffled):
        trainer.run()
    means = [np.mean([layer["last"] for layer in t.log[0]["setup"]["auc"].values()]) for t in (given, shuffled)]
    assert means[0] > 0.75 > 0.65 > means[1]
    assert any(not torch.equal(tensor, shuffled.delta()[key]) for key, tensor in given.delta().items())


@pytest.mark.parametrize("name", ["rmu", "adap_rmu", "cosine_meta_rmu"])
def test_a_layer_beyond_the_model_is_named_with_what_there_is(name):
    with pytest.raises(UserError, match=r"layer 9 .*9 decoder layers \(0 to 8\)"):
        tiny_trainer(name, {"layer": 9})
    with pytest.raises(UserError, match="layer -1 "):
        tiny_trainer(name, {"layer": 1})


def test_a_probe_layer_beyond_the_model_is_an_error():
    with pytest.raises(UserError, match=r"layer 31 .*9 decoder layers"):
        tiny_trainer("multi_layer_probe", {"layers": [1, 31]})


@pytest.mark.parametrize("wrong", [{"alpha": -1}, {"offsets": [1]}, {"reduction": "median"}, {"layer": "deep"}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        methods.get("rmu").Settings.parse(wrong, "rmu")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("rmu", {"steering_coefficient": 2.0, "alpha": 10}),
        ("adap_rmu", {"scale": 1.5, "alpha": 10}),
        ("cosine_meta_rmu", {}),
        ("multi_layer_probe", {}),
    ],
)
def test_training_lowers_the_forget_loss_and_keeps_the_retain_loss_small(name, settings):
    trainer = tiny_trainer(name, settings, steps=80)
    batches = [trainer.context.batch(step) for step in range(4)]

    def mean(key):
        with torch.no_grad():
            return np.mean([trainer.method.losses(batch)[key].item() for batch in batches])

    before = mean("forget")
    trainer.run()
    assert mean("forget") < 0.85 * before
    assert mean("retain") < 0.2 * before
