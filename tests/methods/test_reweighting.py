"""Reweighting and distillation methods, CATNIP and PDU, against plain formulas that share no code with ours."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from unlearn_bench.methods.base import methods
from unlearn_bench.methods.testing import tiny_corpora, tiny_model, tiny_questions, tiny_tokenizer, tiny_trainer

STEPS = 5
CASES = [
    ("wga", {"retain": "none", "beta": 0.6}),
    ("wga", {"retain_weight": 0.7, "beta": 2.0}),
    ("satimp", {"retain": "none", "beta1": 1.5, "beta2": 0.5}),
    ("tnpo", {"retain": "none", "beta": 0.8}),
    ("tnpo", {"retain": "none"}),
    ("wtnpo", {"retain": "none", "beta": 0.8, "alpha": 0.4}),
    ("undial", {"beta": 3.0}),
    ("undial", {"beta": 3.0, "retain": "nll", "retain_weight": 0.7}),
    ("ceu", {}),
    ("ceu", {"skipped": 0}),
    ("catnip", {"beta": 0.6}),
    ("catnip", {"beta": 0.6, "flow": "through"}),
    ("whp", {"alpha": 2.0}),
]


def sharp(layers=2):
    """The tiny model, surer of itself: its probabilities lie between about 1e-6 and 0.9."""
    model = tiny_model(layers=layers)
    model.model.norm.weight.data *= 6
    return model


def corpora(kind):
    if kind == "documents":
        return tiny_corpora()
    questions = tiny_questions()
    questions.forget["bio"].pop(0)  # its answer is cut away whole
    return questions


def prompts():
    """The token ids of every prompt, begin token included: words are tokens here."""
    questions, tokenizer = corpora("questions"), tiny_tokenizer()
    every = [*questions.forget["bio"], *questions.forget["cyber"], *questions.retain]
    return [[1, *tokenizer.convert_tokens_to_ids(question.prompt.split())] for question in every]


PROMPTS = prompts()


def predictions(model, text, kind):
    """Give of each text the logits by which its tokens are predicted, of an answer its own, and these tokens."""
    for ids, mask in zip(text.ids, text.mask, strict=True):
        real = ids[: int(mask.sum())].tolist()
        own = [len(prompt) for prompt in PROMPTS if real[: len(prompt)] == prompt]
        first = max(own) if kind == "questions" else 1
        scores = model(input_ids=torch.tensor([real])).logits[0]
        yield [(scores[i - 1], real[i]) for i in range(first, len(real))]


def mean(terms):
    return sum(terms) / len(terms)


def mean_nll(model, text, kind):
    return mean([-torch.log(z.softmax(0)[v]) for of in predictions(model, text, kind) for z, v in of])


def ascent(weight):
    """The mean of w log p, given w of p and the frozen p, both without gradient."""

    def loss(model, frozen, text, kind):
        pairs = zip(predictions(model, text, kind), predictions(frozen, text, kind), strict=True)
        terms = []
        for now, before in pairs:
            for (z, v), (z0, _) in zip(now, before, strict=True):
                p, p0 = z.softmax(0)[v], z0.softmax(0)[v].item()
                terms.append(weight(p.item(), p0) * torch.log(p))
        return mean(terms)

    return loss


def undial(model, frozen, text, kind, beta):
    pairs = zip(predictions(model, text, kind), predictions(frozen, text, kind), strict=True)
    terms = []
    for now, before in pairs:
        for (z, v), (z0, _) in zip(now, before, strict=True):
            lowered = z0.detach().clone()
            lowered[v] -= beta
            target = torch.exp(lowered) / torch.exp(lowered).sum()
            terms.append(-(target * torch.log(z.softmax(0))).sum())
    return mean(terms)


def ceu(model, text, kind, skipped):
    terms = []
    for of in predictions(model, text, kind):
        for z, v in of[skipped:]:
            p = z.softmax(0)
            rest = [k for k in range(len(z)) if k != v]
            target = (p[rest] / p[rest].sum()).detach()
            terms.append(-(target * torch.log(p[rest])).sum())
    return mean(terms)


def catnip(model, text, kind, beta, flow):
    terms = []
    for of in predictions(model, text, kind):
        for z, v in of:
            p = z.double().softmax(0)[v]
            other = 1 - p if flow == "through" else (1 - p).detach()
            terms.append(2 / beta * torch.log(1 + (p / other) ** beta))
    return mean(terms)


def forget_loss(name, settings, model, frozen, text, kind):
    s = {"beta": 4.0, "skipped": 1, "flow": "detached", **settings}
    if name == "undial":
        return undial(model, frozen, text, kind, s["beta"])
    if name == "ceu":
        return ceu(model, text, kind, s["skipped"])
    if name == "catnip":
        return catnip(model, text, kind, s["beta"], s["flow"])
    if name == "whp":
        return mean_nll(model, text, kind)
    weight = {
        "wga": lambda p, p0: p ** s["beta"],
        "satimp": lambda p, p0: p ** s["beta1"] * (1 - p) ** s["beta2"],
        "tnpo": lambda p, p0: 2 * p ** s["beta"] / (p ** s["beta"] + p0 ** s["beta"] + 1e-5),
        "wtnpo": lambda p, p0: 2 * p ** (s["beta"] + s["alpha"]) / (p ** s["beta"] + p0 ** s["beta"] + 1e-5),
    }
    return ascent(weight[name])(model, frozen, text, kind)


def take(parameters, gradient, rate=0.01):
    with torch.no_grad():
        for parameter, part in zip(parameters, gradient, strict=True):
            parameter -= rate * part


def run(name, settings, kind, **training):
    """Return a finished trainer of the method on the sharp model, and its batches."""
    own = {"model": sharp(), "steps": STEPS, "optimizer": "sgd", "learning_rate": 0.01, **training}
    trainer = tiny_trainer(name, settings, corpora=corpora(kind), **own)
    batches = [trainer.context.batch(index) for index in range(STEPS * training.get("accumulation", 1))]
    assert all((batch.forget.mask == 0).any() for batch in batches), "the comparison needs padding"
    assert any(len(set(batch.forget.counted.sum(1).tolist())) > 1 for batch in batches), "and unequal texts"
    assert len({batch.topic for batch in batches}) == 2
    trainer.run()
    return trainer, batches


def assert_same_weights(trainer, updated):
    delta = trainer.delta()
    for key, parameter in updated.named_parameters():
        torch.testing.assert_close(delta[key], parameter.detach(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", ["documents", "questions"])
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_losses_gradients_and_weights_equal_a_plain_run(name, settings, kind):
    """Two topics, padding, several steps; of questions answer tokens alone."""
    trainer, batches = run(name, settings, kind)
    frozen, updated = sharp(), sharp()
    parameters = list(updated.parameters())
    for row, batch in zip(trainer.log[1:], batches, strict=True):
        forget = total = forget_loss(name, settings, updated, frozen, batch.forget, kind)
        if "retain_weight" in settings:
            total = forget + settings["retain_weight"] * mean_nll(updated, batch.retain, kind)
        assert row["forget"] == pytest.approx(forget.item(), rel=1e-4)
        assert row["total"] == pytest.approx(total.item(), rel=1e-4)
        gradient = torch.autograd.grad(total, parameters)
        assert row["grad_norm"] == pytest.approx(sum(part.square().sum().item() for part in gradient) ** 0.5, rel=1e-3)
        take(parameters, gradient)
    assert_same_weights(trainer, updated)


@pytest.mark.parametrize("kind", ["documents", "questions"])
def test_pdu_moves_its_dual_variable_once_a_step_of_two_batches(kind):
    settings = {"retain_weight": 0.5, "epsilon": 4.0, "dual_rate": 0.3, "warmup": 0.4}
    trainer, batches = run("pdu", settings, kind, accumulation=2, learning_rate=1e-5)
    updated, dual = sharp(), 0.5
    parameters = list(updated.parameters())
    for step, row in enumerate(trainer.log[1:]):
        totals, excess = [], []
        for batch in batches[2 * step : 2 * step + 2]:
            every = [z for of in predictions(updated, batch.forget, kind) for z, _ in of]
            flat = mean([(z.max() - z.mean()) ** 2 for z in every])
            excess.append(mean_nll(updated, batch.retain, kind) - 4.0)
            totals.append(flat + dual * excess[-1])
        assert row["lambda"] == pytest.approx(dual, rel=1e-5)
        assert row["total"] == pytest.approx(mean(totals).item(), rel=1e-4)
        take(parameters, torch.autograd.grad(mean(totals), parameters), 1e-5)
        if step >= 2:  # two of five steps are the warm-up
            dual = max(0.0, dual + 0.3 * mean(excess).item())
    assert len({row["lambda"] for row in trainer.log[1:]}) == 3
    assert_same_weights(trainer, updated)


def test_pdu_never_rewards_a_retain_loss_and_goes_on_where_it_was_interrupted():
    """lambda is 0 at least; with no constraint there is no PDU."""
    trainer, _ = run("pdu", {"retain_weight": 0.1, "epsilon": 50.0, "warmup": 0.0}, "documents", learning_rate=1e-5)
    assert [row["lambda"] for row in trainer.log[1:]] == [0.1, 0.0, 0.0, 0.0, 0.0]
    state = trainer.method.state_dict()
    kind = methods.get("pdu")
    other = kind(kind.Settings())
    other.context = trainer.context
    other.setup(trainer.context)
    other.load_state_dict(state)
    assert (other.state_dict(), state) == (state, {"step": 5, "dual": 0.0})
    with pytest.raises(ValidationError, match="constraint"):
        kind.Settings(retain="none")


def test_catnip_with_beta_1_follows_twice_the_gradient_of_wga():
    gradients = []
    for name in ("catnip", "wga"):
        trainer = tiny_trainer(name, {"retain": "none", "beta": 1.0}, model=sharp())
        loss = trainer.method.losses(trainer.context.batch(0))["forget"]
        gradients.append(torch.autograd.grad(loss, list(trainer.context.model.parameters())))
    for ours, wga in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, 2 * wga, rtol=1e-3, atol=1e-6)
