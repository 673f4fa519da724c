"""Circuit breakers against the plain formula and the chain rule of LoRA; WHP's two models against theirs."""

from __future__ import annotations

import copy

import pytest
import torch
from unlearn_bench.harness.engines.transformers import Wrapped
from unlearn_bench.methods.base import build_method
from unlearn_bench.methods.testing import tiny_model, tiny_questions, tiny_trainer

STEPS = 6
SETTINGS = {"layers": (1, 3), "alpha": 3.0, "ramp": 1.5, "lora_rank": 2, "lora_alpha": 6.0}


def states(model, ids):
    """The residual stream behind every layer but the last, of one text."""
    return [h[0] for h in model(input_ids=ids[None], output_hidden_states=True).hidden_states[1:-1]]


def plain_total(model, frozen, batch, s):
    """The loss of the formula, layers 1 and 3 rerouted, 0 to 3 held, text by text without padding."""
    aligned, moved = [], []
    for text, values, layers in ((batch.forget, aligned, (1, 3)), (batch.retain, moved, range(4))):
        for ids, mask in zip(text.ids, text.mask, strict=True):
            real = ids[: int(mask.sum())]
            now, before = states(model, real), states(frozen, real)
            for layer in layers:
                for h, h0 in zip(now[layer], before[layer].detach(), strict=True):
                    cosine = (h @ h0) / (h.norm() * h0.norm())
                    values.append(torch.clamp(cosine, min=0) if values is aligned else (h - h0).norm())
    forget, retain = (sum(values) / len(values) for values in (aligned, moved))
    return forget, retain, 3.0 * ((1 - s) * forget + s * retain)


@pytest.mark.parametrize("corpora", [None, tiny_questions()], ids=["documents", "questions"])
def test_losses_and_lora_gradients_equal_the_formula_after_several_steps(corpora):
    """A matrix W + c B A with the gradient G gives B that of c G A^T, A that of c B^T G."""
    trainer = tiny_trainer("circuit_breakers", SETTINGS, steps=STEPS, learning_rate=0.05, corpora=corpora)
    batches = [trainer.context.batch(step) for step in range(2)]
    assert all((batch.forget.mask == 0).any() for batch in batches), "the comparison needs padding"
    assert len({batch.topic for batch in batches}) == 2
    trainer.run()
    frozen, merged = tiny_model(), tiny_model()
    delta = trainer.delta()
    assert {int(name.split(".")[2]) for name in delta} == {0, 1, 2, 3}
    merged.load_state_dict(delta, strict=False)
    factors = dict(trainer.context.model.named_parameters())
    for batch in batches:
        forget, retain, total = plain_total(merged, frozen, batch, (STEPS + 1) / (1.5 * STEPS))
        losses = trainer.method.losses(batch)
        assert losses["forget"].item() == pytest.approx(forget.item(), rel=1e-4)
        assert losses["retain"].item() == pytest.approx(retain.item(), rel=1e-4)
        ours = trainer.method.combine(losses)
        assert ours.item() == pytest.approx(total.item(), rel=1e-4)
        for target in ("model.layers.1.mlp.down_proj", "model.layers.3.self_attn.q_proj"):
            a, b = (factors[f"{target}.lora_{letter}.unlearning.weight"] for letter in "AB")
            (whole,) = torch.autograd.grad(total, merged.get_parameter(f"{target}.weight"), retain_graph=True)
            of_a, of_b = torch.autograd.grad(ours, (a, b), retain_graph=True)
            torch.testing.assert_close(of_b, 3 * whole @ a.detach().T, rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(of_a, 3 * b.detach().T @ whole, rtol=1e-3, atol=1e-5)


def test_the_retain_loss_gains_weight_step_by_step_whatever_is_accumulated():
    trainer = tiny_trainer("circuit_breakers", SETTINGS, steps=3, accumulation=2)
    trainer.run()
    for step, row in enumerate(trainer.log[1:], start=1):
        s = step / 4.5
        assert row["rerouted"] == pytest.approx(s)
        assert row["total"] == pytest.approx(3 * ((1 - s) * row["forget"] + s * row["retain"]), rel=1e-5)


@pytest.mark.parametrize(("depth", "layers"), [(32, [9, 19]), (9, [2, 5]), (1, [0])])
def test_its_layers_are_at_the_same_shares_of_any_depth(depth, layers):
    context = copy.copy(tiny_trainer("circuit_breakers").context)
    context.layers = depth
    assert build_method("circuit_breakers", {}).rerouted(context) == layers


def test_what_whps_reinforced_model_likes_better_is_held_back_by_whole_models():
    base, reinforced, ids = tiny_model(), tiny_model(seed=1), torch.tensor([[1, 5, 9, 7]])
    method = build_method("whp", {"alpha": 2.0})
    with torch.no_grad():
        found = Wrapped(base, dict(reinforced.named_parameters()), method)(input_ids=ids).logits
        z, z_r = base(ids).logits, reinforced(ids).logits
    expected = torch.where(z_r > z, z - 2 * (z_r - z), z)
    assert (z_r > z).any()
    assert (z_r < z).any()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
