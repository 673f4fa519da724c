"""Likelihood methods and BLUR against plain formulas, written from the papers and sharing no code with ours."""

from __future__ import annotations

import copy

import pytest
import torch
from unlearn_bench.methods.base import methods
from unlearn_bench.methods.testing import tiny_model, tiny_trainer

NAMES = ["grad_ascent", "grad_diff", "npo", "simnpo", "ihl", "blur"]
STEPS = 5


def distributions(model, text):
    """Yield (distribution of the next token, the token) of every predicted position of each text, without padding."""
    for ids, mask in zip(text.ids, text.mask, strict=True):
        real = ids[: int(mask.sum())]
        scores = model(input_ids=real[None]).logits[0]
        yield [(torch.softmax(scores[i], 0), int(real[i + 1])) for i in range(len(real) - 1)]


def likelihood(model, text):
    """Log-likelihood and number of predicted tokens of each text."""
    found = []
    for positions in distributions(model, text):
        found.append((sum(torch.log(p[token]) for p, token in positions), len(positions)))
    return found


def mean_nll(model, text):
    texts = likelihood(model, text)
    return -sum(total for total, _ in texts) / sum(count for _, count in texts)


def npo(model, frozen, text, beta):
    terms = []
    for (now, _), (before, _) in zip(likelihood(model, text), likelihood(frozen, text), strict=True):
        ratio = torch.exp(now - before.detach())
        terms.append(2 / beta * torch.log(1 + ratio**beta))
    return sum(terms) / len(terms)


def simnpo(model, text, beta, gamma):
    terms = [
        -2 / beta * torch.log(1 / (1 + torch.exp(beta / count * total + gamma)))
        for total, count in likelihood(model, text)
    ]
    return sum(terms) / len(terms)


def inverted_hinge(model, text):
    terms = []
    for positions in distributions(model, text):
        for p, token in positions:
            others = torch.cat([p[:token], p[token + 1 :]])
            terms.append(1 + p[token] - others.max())
    return sum(terms) / len(terms)


def divergence(model, frozen, text):
    terms = []
    for now, before in zip(distributions(model, text), distributions(frozen, text), strict=True):
        for (p, _), (q, _) in zip(now, before, strict=True):
            q = q.detach()
            terms.append((q * torch.log(q / p)).sum())
    return sum(terms) / len(terms)


def forget_loss(name, model, frozen, text):
    """The forget loss under the settings of `SETTINGS`."""
    if name in ("grad_ascent", "grad_diff"):
        return -mean_nll(model, text)
    if name in ("npo", "blur"):
        return npo(model, frozen, text, 0.3)
    return simnpo(model, text, 0.5, 0.4) if name == "simnpo" else inverted_hinge(model, text)


SETTINGS = {
    "grad_ascent": {},
    "grad_diff": {"retain_weight": 0.7},
    "npo": {"retain_weight": 0.7, "beta": 0.3},
    "simnpo": {"retain_weight": 0.7, "beta": 0.5, "gamma": 0.4},
    "ihl": {"retain_weight": 0.7, "parameters": "all"},
    "blur": {"beta": 0.3, "gamma": 0.7},
}


def plain_gradient(name, forget, retain, parameters):
    """The gradient that the paper's step takes."""
    if name != "blur":
        total = forget if retain is None else forget + 0.7 * retain
        return torch.autograd.grad(total, parameters)
    lower = torch.autograd.grad(forget, parameters, retain_graph=True)
    upper = torch.autograd.grad(retain, parameters)
    f, r = (torch.cat([part.flatten() for part in parts]) for parts in (lower, upper))
    step = 0.7 * f + r - (r @ f) / (f @ f) * f
    return [piece.view_as(part) for piece, part in zip(step.split([p.numel() for p in lower]), lower, strict=True)]


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize("name", NAMES)
def test_losses_gradients_and_weights_equal_a_plain_run(name, family):
    trainer = tiny_trainer(name, SETTINGS[name], model=tiny_model(family, layers=2), steps=STEPS, optimizer="sgd")
    batches = [trainer.context.batch(step) for step in range(STEPS)]
    assert all((batch.forget.mask == 0).any() for batch in batches), "the comparison needs padding"
    frozen = tiny_model(family, layers=2)
    updated = copy.deepcopy(frozen)
    parameters = list(updated.parameters())
    trainer.run()
    for row, batch in zip(trainer.log[1:], batches, strict=True):
        forget = forget_loss(name, updated, frozen, batch.forget)
        retain = None if name == "grad_ascent" else mean_nll(updated, batch.retain)
        assert row["forget"] == pytest.approx(forget.item(), rel=1e-5)
        assert row.get("retain") == (None if retain is None else pytest.approx(retain.item(), rel=1e-5))
        gradient = plain_gradient(name, forget, retain, parameters)
        with torch.no_grad():
            for parameter, part in zip(parameters, gradient, strict=True):
                parameter -= 1e-3 * part
        assert row["grad_norm"] == pytest.approx(sum(part.square().sum().item() for part in gradient) ** 0.5, rel=1e-4)
    delta = trainer.delta()
    for key, parameter in updated.named_parameters():
        torch.testing.assert_close(delta[key], parameter.detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("retain", ["none", "nll", "kl"])
def test_retain_terms(retain):
    trainer = tiny_trainer("npo", {"retain": retain}, model=tiny_model(layers=2), steps=STEPS)
    frozen, batch = tiny_model(layers=2), trainer.context.batch(2)
    trainer.run()
    losses = trainer.method.losses(batch)
    if retain == "none":
        assert losses.keys() == {"forget"}
        return
    model = trainer.context.model
    expected = mean_nll(model, batch.retain) if retain == "nll" else divergence(model, frozen, batch.retain)
    assert expected.item() > 1e-5
    assert losses["retain"].item() == pytest.approx(expected.item(), rel=1e-3)


@pytest.mark.parametrize("settings", [{}, {"layers": [5]}, {"parameters": "lora"}])
def test_reference_log_probabilities_are_those_of_the_frozen_model_computed_once_a_text(settings, monkeypatch):
    trainer = tiny_trainer("npo", settings, steps=12)
    context, calls, passes = trainer.context, [], []
    run = context.passes.logits

    def spy(tokens, parameters=None, *rest):
        if parameters:
            calls.extend(tuple(row.tolist()) for row in tokens.ids)
            passes.append(len(tokens.ids))
        return run(tokens, parameters, *rest)

    monkeypatch.setattr(context.passes, "logits", spy)
    trainer.run()
    assert len(calls) == len(set(calls)) == 9 + 12, "every forget text, once, over 36 draws"
    assert max(passes) == 3, "short texts of a batch share a pass"
    text = context.batch(3).forget
    frozen = [[torch.log(p[token]) for p, token in positions] for positions in distributions(tiny_model(), text)]
    kept = context.frozen_logprobs(text)
    for row, values in zip(kept, frozen, strict=True):
        torch.testing.assert_close(row[: len(values)], torch.stack(values), rtol=1e-5, atol=1e-5)
        assert not row[len(values) :].any()
    now = context.logprobs(text)
    assert (now - kept).abs().max() > 1e-3, "the trained model has moved"


def test_blur_projects_the_retain_gradient_by_hand():
    """g_F = (3, 4), g_R = (5, 0), over two tensors: <g_R, g_F> / ||g_F||^2 = 15 / 25."""
    kind = methods.get("blur")
    method = kind(kind.Settings(gamma=2.0))
    forget = {"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]])}
    retain = {"a": torch.tensor([5.0]), "b": torch.tensor([[0.0]])}
    found = method.combine_gradients({"forget": forget, "retain": retain})
    assert found["a"].item() == pytest.approx(5 + (2 - 0.6) * 3)
    assert found["b"].item() == pytest.approx((2 - 0.6) * 4)
    held = {name: found[name] - 2 * forget[name] for name in found}
    assert sum((held[name] * forget[name]).sum() for name in held).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_training_makes_the_forget_text_less_likely_and_a_retain_term_holds_the_other(name):
    trainer = tiny_trainer(name, steps=40, learning_rate=3e-3)
    batch, frozen = trainer.context.batch(0), tiny_model()
    trainer.run()
    change = {
        role: (mean_nll(trainer.context.model, text) - mean_nll(frozen, text)).item()
        for role, text in (("forget", batch.forget), ("retain", batch.retain))
    }
    assert change["forget"] > 0.2
    if name != "grad_ascent":
        assert change["retain"] < change["forget"] / 2


@pytest.mark.parametrize("parameters", ["all", "lora"])
def test_only_the_chosen_layers_train(parameters):
    trainer = tiny_trainer("grad_diff", {"layers": [4, 7], "parameters": parameters})
    assert trainer.context.shared == 4, "layers below run once a batch for trained and frozen model alike"
    trainer.run()
    assert {int(name.split(".")[2]) for name in trainer.delta()} == {4, 7}
    norms = [name for name in trainer.delta() if "norm" in name]
    assert bool(norms) == (parameters == "all")


def test_with_all_parameters_embeddings_and_norms_train_too():
    trainer = tiny_trainer("grad_ascent")
    trainer.run()
    assert trainer.delta().keys() == dict(tiny_model().named_parameters()).keys()
