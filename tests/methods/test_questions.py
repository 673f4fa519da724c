"""Methods on questions and answers: plain formulas over answer tokens alone, sharing no code with ours."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from unlearn_bench.harness.training.batches import Corpora
from unlearn_bench.methods.base import Tokens, next_logprobs
from unlearn_bench.methods.testing import tiny_model, tiny_questions, tiny_tokenizer, tiny_trainer

torch.set_num_threads(1)
STEPS = 5
TEMPLATE = tiny_questions().template
LIKELIHOOD = ["grad_ascent", "grad_diff", "npo", "simnpo", "ihl", "blur"]


def questions():
    """Questions without the one whose answer is cut away, which a test of its own has."""
    corpora = tiny_questions()
    corpora.forget["bio"].pop(0)
    return corpora


def prompt_lengths():
    """Number of prompt tokens, begin token included, by all tokens of a text: words are tokens here."""
    corpora, tokenizer = tiny_questions(), tiny_tokenizer()
    lengths = {}
    for question in [*corpora.forget["bio"], *corpora.forget["cyber"], *corpora.retain]:
        words = tokenizer.convert_tokens_to_ids([*question.prompt.split(), *question.answer.split()])
        lengths[(1, *words, 0)] = 1 + len(question.prompt.split())
    return lengths


PROMPTS = prompt_lengths()


def answers(model, text):
    """Give for each text the distributions by which its answer's tokens, the end token too, are predicted."""
    for ids, mask in zip(text.ids, text.mask, strict=True):
        real = ids[: int(mask.sum())]
        first = PROMPTS[tuple(real.tolist())]
        scores = model(input_ids=real[None]).logits[0]
        yield [(scores[i - 1].softmax(0), int(real[i])) for i in range(first, len(real))]


def likelihood(model, text):
    return [(sum(torch.log(p[token]) for p, token in of), len(of)) for of in answers(model, text)]


def mean_nll(model, text):
    texts = likelihood(model, text)
    return -sum(total for total, _ in texts) / sum(count for _, count in texts)


def npo(model, frozen, text, beta):
    """Mean over texts of (2 / beta) log(1 + (pi / pi_frozen)^beta)."""
    pairs = zip(likelihood(model, text), likelihood(frozen, text), strict=True)
    ratios = [torch.exp(now - before.detach()) for (now, _), (before, _) in pairs]
    return sum(2 / beta * torch.log(1 + ratio**beta) for ratio in ratios) / len(ratios)


def forget_loss(name, model, frozen, text):
    if name in ("npo", "blur"):
        return npo(model, frozen, text, 0.3)
    if name == "simnpo":
        terms = [-2 / 0.5 * F.logsigmoid(-0.5 / count * total - 0.4) for total, count in likelihood(model, text)]
        return sum(terms) / len(terms)
    if name == "ihl":
        terms = [1 + p[v] - torch.cat([p[:v], p[v + 1 :]]).max() for of in answers(model, text) for p, v in of]
        return sum(terms) / len(terms)
    return -mean_nll(model, text)


SETTINGS = {
    "grad_ascent": {},
    "grad_diff": {"retain_weight": 0.7},
    "npo": {"retain_weight": 0.7, "beta": 0.3},
    "simnpo": {"retain_weight": 0.7, "beta": 0.5, "gamma": 0.4},
    "ihl": {"retain_weight": 0.7, "parameters": "all"},
    "blur": {"beta": 0.3, "gamma": 0.7},
}


@pytest.mark.parametrize("name", LIKELIHOOD)
def test_losses_and_weights_equal_a_plain_run_over_answer_tokens(name):
    """Unequal answers and prompts, padding, several steps; the end token is the padding token too."""
    model = tiny_model(layers=2)
    trainer = tiny_trainer(name, SETTINGS[name], model=model, steps=STEPS, optimizer="sgd", corpora=questions())
    batches = [trainer.context.batch(step) for step in range(STEPS)]
    assert all((batch.forget.mask == 0).any() for batch in batches), "the comparison needs padding"
    assert any(len(set(batch.forget.counted.sum(1).tolist())) > 1 for batch in batches), "and unequal answers"
    frozen = tiny_model(layers=2)
    updated = copy.deepcopy(frozen)
    parameters = list(updated.parameters())
    trainer.run()
    for row, batch in zip(trainer.log[1:], batches, strict=True):
        forget = forget_loss(name, updated, frozen, batch.forget)
        retain = None if name == "grad_ascent" else mean_nll(updated, batch.retain)
        assert row["forget"] == pytest.approx(forget.item(), rel=1e-5)
        assert row.get("retain") == (None if retain is None else pytest.approx(retain.item(), rel=1e-5))
        for parameter, part in zip(parameters, step_of(name, forget, retain, parameters), strict=True):
            parameter.data -= 1e-3 * part
    delta = trainer.delta()
    for key, parameter in updated.named_parameters():
        torch.testing.assert_close(delta[key], parameter.detach(), rtol=0, atol=1e-6)


def step_of(name, forget, retain, parameters):
    if name != "blur":
        return torch.autograd.grad(forget if retain is None else forget + 0.7 * retain, parameters)
    lower = torch.autograd.grad(forget, parameters, retain_graph=True)
    upper = torch.autograd.grad(retain, parameters)
    along = sum((f * r).sum() for f, r in zip(lower, upper, strict=True)) / sum(f.square().sum() for f in lower)
    return [0.7 * f + r - along * f for f, r in zip(lower, upper, strict=True)]


@pytest.mark.parametrize("name", LIKELIHOOD)
def test_batches_of_a_step_make_the_loss_of_all_their_answer_tokens(name):
    """Three batches of one question, one of them cut away, weighed by what counts, are one batch of three."""
    common = {"steps": 3, "optimizer": "sgd", "accumulation_mean": "tokens"}
    corpora = Corpora({"bio": tiny_questions().forget["bio"]}, tiny_questions().retain, template=TEMPLATE)
    ends = []
    for size, accumulation in ((3, 1), (1, 3)):
        trainer = tiny_trainer(
            name, SETTINGS[name], batch_size=size, accumulation=accumulation, corpora=corpora, **common
        )
        trainer.run()
        ends.append((trainer.log[-1], trainer.delta()))
    (whole, one), (parts, other) = ends
    assert parts["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-4)
    for key, tensor in one.items():
        torch.testing.assert_close(other[key], tensor, rtol=0, atol=1e-6)


def test_kl_is_a_mean_over_the_positions_that_predict_answers():
    trainer = tiny_trainer("npo", {"retain": "kl"}, model=tiny_model(layers=2), steps=STEPS, corpora=questions())
    frozen, batch = tiny_model(layers=2), trainer.context.batch(2)
    trainer.run()
    terms = [
        (q * torch.log(q / p)).sum()
        for now, before in zip(answers(trainer.context.model, batch.retain), answers(frozen, batch.retain), strict=True)
        for (p, _), (q, _) in zip(now, before, strict=True)
    ]
    expected = sum(terms) / len(terms)
    assert expected.item() > 1e-5
    assert trainer.method.losses(batch)["retain"].item() == pytest.approx(expected.item(), rel=1e-3)


def test_uld_remembers_answers_and_is_uniform_where_answers_are_predicted():
    trainer = tiny_trainer("uld", {"depth": 9, "rank": 0}, corpora=questions())
    batch, model = trainer.context.batch(0), tiny_model()
    found = trainer.method.losses(batch)
    assert found["forget"].item() == pytest.approx(mean_nll(model, batch.forget).item(), rel=1e-5)
    terms = [-torch.log(p * len(p)).mean() for of in answers(model, batch.retain) for p, _ in of]
    assert found["retain"].item() == pytest.approx((sum(terms) / len(terms)).item(), rel=1e-5)


@pytest.mark.parametrize("order", [1, -1])
def test_frozen_log_probabilities_are_kept_whatever_counted_first(order):
    """The same tokens as a document and as a question share what is computed, and each gets its own."""
    trainer = tiny_trainer("npo")
    ids = torch.tensor([[1, 5, 6, 7, 8]])
    document = Tokens(ids, torch.ones_like(ids))
    question = Tokens(ids, torch.ones_like(ids), torch.tensor([[0, 0, 0, 1, 1]]))
    found = {len(str(text.targets)): trainer.context.frozen_logprobs(text) for text in (document, question)[::order]}
    whole, own = (found[len(str(text.targets))] for text in (document, question))
    expected = next_logprobs(tiny_model()(ids).logits, document)
    torch.testing.assert_close(whole, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(own, whole * torch.tensor([0.0, 0.0, 1.0, 1.0]))
    assert len(trainer.context.references) == 1


def test_a_document_counts_all_but_its_first_token():
    batch = tiny_trainer("npo").context.batch(0)
    assert batch.forget.targets is None
    assert torch.equal(batch.forget.counted, batch.forget.mask[:, 1:])


@pytest.mark.parametrize("name", LIKELIHOOD)
def test_a_question_whose_answer_is_cut_away_adds_nothing_to_a_likelihood(name):
    trainer = tiny_trainer(name, SETTINGS[name], batch_size=1, corpora=tiny_questions())
    lost = [step for step in range(0, 18, 2) if not trainer.context.batch(step).forget.counted.any()]
    assert len(lost) == 1, "one of nine"
    loss = trainer.method.losses(trainer.context.batch(lost[0]))["forget"]
    assert torch.isfinite(loss)
    assert loss.requires_grad
    assert not any(part.any() for part in torch.autograd.grad(loss, list(trainer._tensors.parameters.values())))


def test_representation_methods_read_prompts_and_answers():
    """Their losses are those of the same tokens as documents."""
    trainer = tiny_trainer("rmu", corpora=questions())
    batch = trainer.context.batch(0)
    documents = replace(batch, forget=replace(batch.forget, targets=None), retain=replace(batch.retain, targets=None))
    ours, plain = (trainer.method.losses(own) for own in (batch, documents))
    assert {key: loss.item() for key, loss in ours.items()} == {key: loss.item() for key, loss in plain.items()}
