"""Methods that train on other answers beside forget questions, against plain formulas that share no code with ours."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from unlearn_bench.methods.testing import tiny_model, tiny_questions, tiny_tokenizer, tiny_trainer

STEPS = 5
OTHERS = ["bab bad", "kib", "tig bak bam mub"]
SETTINGS = {
    "idk": {},
    "idk_dpo": {"retain_weight": 0.7, "beta": 0.3},
    "alt_po": {"retain_weight": 0.7, "beta": 0.3},
    "kto": {"retain_weight": 0.7, "beta": 0.3},
    "meow": {"retain_weight": 0.7, "retain": "nll"},
}
CASES = [
    *SETTINGS.items(),
    ("kto", {**SETTINGS["kto"], "form": "log"}),
    ("idk_dpo", {"retain": "none", "beta": 0.3}),
    ("meow", {"retain": "none"}),
]


def corpora():
    """Questions of two topics without the one whose answer is cut away, other answers of one to four words."""
    questions = tiny_questions()
    questions.forget["bio"].pop(0)
    return replace(questions, pools={"refusal": OTHERS, "alternate": OTHERS, "inverted": OTHERS})


def prompts():
    """The token ids of every prompt, begin token included: words are tokens here."""
    questions, tokenizer = tiny_questions(), tiny_tokenizer()
    every = [*questions.forget["bio"], *questions.forget["cyber"], *questions.retain]
    return [[1, *tokenizer.convert_tokens_to_ids(question.prompt.split())] for question in every]


PROMPTS = prompts()


def answers(model, text):
    """Give of each text the log-probabilities of its answer's tokens, the end token too."""
    for ids, mask in zip(text.ids, text.mask, strict=True):
        real = ids[: int(mask.sum())].tolist()
        first = max(len(prompt) for prompt in PROMPTS if real[: len(prompt)] == prompt)
        scores = model(input_ids=torch.tensor([real])).logits[0]
        yield [torch.log(torch.softmax(scores[i - 1], 0)[real[i]]) for i in range(first, len(real))]


def sums(model, text):
    return [sum(tokens) for tokens in answers(model, text)]


def ratios(model, frozen, text):
    with torch.no_grad():
        before = sums(frozen, text)
    return [now - then for now, then in zip(sums(model, text), before, strict=True)]


def mean_nll(model, *texts):
    tokens = [value for text in texts for own in answers(model, text) for value in own]
    return -sum(tokens) / len(tokens)


def dpo(model, frozen, preferred, rejected, beta):
    margins = zip(ratios(model, frozen, preferred), ratios(model, frozen, rejected), strict=True)
    terms = [2 / beta * torch.log(1 + torch.exp(-beta * (one - other))) for one, other in margins]
    return sum(terms) / len(terms)


def kto(model, frozen, refusals, rejected, beta, form):
    z = sum(ratios(model, frozen, refusals)).detach() / len(refusals.ids)
    values = [1 / (1 + torch.exp(beta * ratio - z)) for ratio in ratios(model, frozen, rejected)]
    if form == "log":
        return -2 / beta * sum(torch.log(value) for value in values) / len(values)
    return 1 - 2 / beta * sum(values) / len(values)


def plain_total(name, settings, model, frozen, batch):
    """Return what a step minimises."""
    (other,) = batch.auxiliary.values()
    if name == "idk":
        return mean_nll(model, other, batch.retain)
    if name == "meow":
        forget = mean_nll(model, other)
    elif name == "kto":
        forget = kto(model, frozen, other, batch.forget, settings["beta"], settings.get("form", "sigmoid"))
    else:
        forget = dpo(model, frozen, other, batch.forget, settings["beta"])
    return forget if settings.get("retain") == "none" else forget + 0.7 * mean_nll(model, batch.retain)


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_losses_gradients_and_weights_equal_a_plain_run_over_answer_tokens(name, settings):
    """Two topics, unequal answers, padding, several steps; the end token is the padding token too."""
    frozen = tiny_model(layers=2)
    updated = copy.deepcopy(frozen)
    own = {"model": copy.deepcopy(frozen), "steps": STEPS, "optimizer": "sgd", "learning_rate": 0.01}
    trainer = tiny_trainer(name, settings, corpora=corpora(), **own)
    batches = [trainer.context.batch(step) for step in range(STEPS)]
    beside = [next(iter(batch.auxiliary.values())) for batch in batches]
    assert all((text.mask == 0).any() for text in beside), "the comparison needs padding"
    assert any(len(set(text.counted.sum(1).tolist())) > 1 for text in beside), "and unequal answers"
    assert len({batch.topic for batch in batches}) == 2
    parameters = list(updated.parameters())
    trainer.run()
    for row, batch in zip(trainer.log[1:], batches, strict=True):
        total = plain_total(name, settings, updated, frozen, batch)
        assert row["total"] == pytest.approx(total.item(), rel=1e-5)
        gradient = torch.autograd.grad(total, parameters)
        assert row["grad_norm"] == pytest.approx(sum(part.square().sum().item() for part in gradient) ** 0.5, rel=1e-4)
        with torch.no_grad():
            for parameter, part in zip(parameters, gradient, strict=True):
                parameter -= 0.01 * part
    delta = trainer.delta()
    for key, parameter in updated.named_parameters():
        torch.testing.assert_close(delta[key], parameter.detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["idk", "idk_dpo", "alt_po", "meow"])
def test_batches_of_a_step_make_the_loss_of_all_their_tokens(name):
    """Three batches of one question, weighed by what counts, are one batch of three; KTO's z_0 is of the batch."""
    questions, ends = corpora(), []
    beside = dict.fromkeys(questions.pools, OTHERS[2:])
    for size, accumulation in ((3, 1), (1, 3)):
        own = replace(questions, forget={"bio": questions.forget["bio"]}, pools=beside)
        counts = {"batch_size": size, "accumulation": accumulation, "accumulation_mean": "tokens"}
        trainer = tiny_trainer(name, SETTINGS[name], corpora=own, steps=3, optimizer="sgd", **counts)
        trainer.run()
        ends.append((trainer.log[-1], trainer.delta()))
    (whole, one), (parts, other) = ends
    assert parts["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-4)
    for key, tensor in one.items():
        torch.testing.assert_close(other[key], tensor, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SETTINGS)
def test_answers_give_way_and_the_other_answer_comes_unless_it_is_a_reference_alone(name):
    trainer = tiny_trainer(name, corpora=corpora(), steps=40, learning_rate=3e-3)
    batch, frozen = trainer.context.batch(0), tiny_model()
    trainer.run()
    model, other = trainer.context.model, next(iter(batch.auxiliary.values()))
    change = {
        role: (mean_nll(model, text) - mean_nll(frozen, text)).item()
        for role, text in (("answer", batch.forget), ("other", other), ("retain", batch.retain))
    }
    if name != "meow":
        assert change["answer"] > change["retain"]
    assert change["answer"] > change["other"]
    if name != "kto":
        assert change["other"] < -0.2


def test_an_alternate_that_is_the_answer_has_no_gradient():
    questions = corpora()
    own = {"bio": [replace(question, auxiliary=(("alternate", (question.answer,)),)) for question in questions.retain]}
    trainer = tiny_trainer("alt_po", corpora=replace(questions, forget=own, pools={"alternate": []}))
    trainer.run(until=2)
    loss = trainer.method.losses(trainer.context.batch(3))["forget"]
    assert loss.item() == pytest.approx(-2 / 0.1 * torch.log(torch.tensor(0.5)).item(), rel=1e-5)
    parts = torch.autograd.grad(loss, list(trainer._tensors.parameters.values()))
    assert max(part.abs().max().item() for part in parts) < 1e-5


def test_a_task_vector_goes_from_the_base_as_far_the_other_way_as_it_says():
    """By a plain run of descent, and a = 2.5."""
    frozen = tiny_model(layers=2)
    updated = copy.deepcopy(frozen)
    own = {"model": copy.deepcopy(frozen), "steps": STEPS, "optimizer": "sgd", "learning_rate": 0.1}
    trainer = tiny_trainer("task_vector", {"scale": 2.5}, corpora=corpora(), **own)
    parameters = list(updated.parameters())
    trainer.run()
    for step in range(STEPS):
        gradient = torch.autograd.grad(mean_nll(updated, trainer.context.batch(step).forget), parameters)
        with torch.no_grad():
            for parameter, part in zip(parameters, gradient, strict=True):
                parameter -= 0.1 * part
    delta, before = trainer.delta(), dict(frozen.named_parameters())
    for key, parameter in updated.named_parameters():
        expected = before[key] - 2.5 * (parameter - before[key])
        torch.testing.assert_close(delta[key], expected.detach(), rtol=0, atol=1e-5)
        assert not torch.equal(delta[key], before[key])


def test_a_task_vector_makes_the_forget_text_less_likely():
    trainer = tiny_trainer("task_vector", corpora=corpora(), steps=10, learning_rate=3e-3)
    text, frozen, updated = trainer.context.batch(0).forget, tiny_model(), tiny_model()
    trainer.run()
    updated.load_state_dict(trainer.delta(), strict=False)
    assert mean_nll(updated, text) > mean_nll(frozen, text) + 0.2
