"""RMU and AdapRMU against a plain implementation with two models that shares no code with ours."""

from __future__ import annotations

import copy

import pytest
import torch
from unlearn_bench.methods.testing import tiny_model, tiny_trainer

LAYER, UPDATED, STEPS = 3, (1, 2, 3), 6
SETTINGS = {"layer": LAYER, "alpha": 40.0}


def plain_run(name, family, batches, control, norm):
    """Return losses and gradients of each step and the weights at the end."""
    frozen = tiny_model(family)
    updated = copy.deepcopy(frozen)
    weights = {f"model.layers.{i}.mlp.down_proj.weight": updated.model.layers[i].mlp.down_proj.weight for i in UPDATED}
    optimizer = torch.optim.AdamW(list(weights.values()), lr=1e-3, weight_decay=0.0)

    def states(model, tokens):
        output = model(input_ids=tokens.ids, attention_mask=tokens.mask, output_hidden_states=True)
        return output.hidden_states[LAYER + 1]

    def mean_square(difference, mask):
        total = 0.0
        for row, keep in zip(difference, mask, strict=True):
            total = total + (row[: int(keep.sum())] ** 2).sum()
        return total / (mask.sum() * difference.shape[-1])

    scalar, steps = {}, []
    for batch in batches:
        u = control[batch.topic]
        with torch.no_grad():
            before_forget, before_retain = states(frozen, batch.forget), states(frozen, batch.retain)
        if name == "rmu":
            target = 6.5 * u
        else:
            norms = before_forget.pow(2).sum(-1).sqrt()
            if batch.topic not in scalar:
                scalar[batch.topic] = norms[batch.forget.mask == 1].mean()
            target = 5.0 * (norms[..., None] if norm == "token" else scalar[batch.topic]) * u
        forget = mean_square(states(updated, batch.forget) - target, batch.forget.mask)
        retain = mean_square(states(updated, batch.retain) - before_retain, batch.retain.mask)
        optimizer.zero_grad()
        (forget + 40.0 * retain).backward()
        steps.append((forget.item(), retain.item(), {key: weight.grad.clone() for key, weight in weights.items()}))
        optimizer.step()
    return steps, {key: weight.detach() for key, weight in weights.items()}


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize(("name", "norm"), [("rmu", None), ("adap_rmu", "token"), ("adap_rmu", "first_batch")])
def test_losses_gradients_and_weights_equal_a_plain_two_model_run(name, norm, family):
    settings = {**SETTINGS, **({"norm": norm} if norm else {})}
    trainer = tiny_trainer(name, settings, family=family, steps=STEPS)
    batches = [trainer.context.batch(step) for step in range(STEPS)]
    assert {batch.topic for batch in batches} == {"bio", "cyber"}
    assert all((batch.forget.mask == 0).any() for batch in batches), "the comparison needs padding"
    expected, weights = plain_run(name, family, batches, trainer.method.u, norm)

    gradients = []
    parameters = dict(trainer.context.model.named_parameters())
    trainer.run(on_step=lambda _: gradients.append({key: parameters[key].grad.clone() for key in weights}))

    assert trainer.log[STEPS]["retain"] > 0, "at the start the retain term is zero and proves nothing"
    for row, ours, (forget, retain, theirs) in zip(trainer.log[1:], gradients, expected, strict=True):
        assert row["forget"] == pytest.approx(forget, rel=1e-5)
        assert row["retain"] == pytest.approx(retain, rel=1e-3, abs=1e-9)
        for key in weights:
            torch.testing.assert_close(ours[key], theirs[key], rtol=1e-3, atol=1e-5)
    delta = trainer.delta()
    assert delta.keys() == weights.keys()
    for key, weight in weights.items():
        torch.testing.assert_close(delta[key], weight, rtol=0, atol=2e-5)
