"""Learning rates that change, rows in pairs, and steps of several batches that are one large batch."""

from __future__ import annotations

import copy
import io
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch.optim import lr_scheduler
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.suite import TrainingSpec
from unlearn_bench.harness.training.batches import Batches, Corpora
from unlearn_bench.harness.training.trainer import Trainer
from unlearn_bench.methods.base import Method, methods
from unlearn_bench.methods.likelihood import LikelihoodMethod
from unlearn_bench.methods.testing import tiny_corpora, tiny_model, tiny_questions, tiny_tokenizer, tiny_trainer

torch.set_num_threads(1)
ALPHA = {"alpha_mode": "fixed"}
SETTINGS = {"cosine_meta_rmu": ALPHA, "multi_layer_probe": ALPHA}
"""So that what a method draws does not follow the size of its batches."""
LIKELIHOOD = [name for name in methods.names() if issubclass(methods.get(name), LikelihoodMethod)]
RATE = 1e-3


def rates(**training):
    trainer = tiny_trainer("grad_diff", steps=10, learning_rate=RATE, **training)
    trainer.run()
    return [row["learning_rate"] for row in trainer.log[1:]]


def torch_rates(make, count=10):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    schedule, seen = make(optimizer), []
    for _ in range(count):
        seen.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return seen


def test_a_constant_rate_is_not_logged_and_no_part_of_an_identity():
    trainer = tiny_trainer("grad_diff")
    trainer.run()
    assert "learning_rate" not in trainer.log[1]
    late = {"schedule", "warmup", "pairing", "accumulation_mean"}
    assert not late & TrainingSpec().identity().keys()
    changed = TrainingSpec(schedule="linear", warmup=0.1, pairing="rows", accumulation_mean="tokens")
    assert late <= changed.identity().keys()


def test_rates_without_warmup_are_torchs():
    linear = torch_rates(lambda o: lr_scheduler.LinearLR(o, start_factor=1.0, end_factor=1e-12, total_iters=10))
    assert rates(schedule="linear") == pytest.approx(linear, rel=1e-6)
    cosine = torch_rates(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=10))
    assert rates(schedule="cosine") == pytest.approx(cosine, rel=1e-6)


@pytest.mark.parametrize("warmup", [0.4, 4])
def test_a_warmup_is_a_share_of_the_steps_or_a_number_of_them(warmup):
    rise = [RATE * step / 4 for step in range(4)]
    assert rates(warmup=warmup) == pytest.approx([*rise, *[RATE] * 6])
    assert rates(warmup=warmup, schedule="linear") == pytest.approx(
        [*rise, *(RATE * left / 6 for left in range(6, 0, -1))]
    )
    fall = [RATE * (1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)]
    assert rates(warmup=warmup, schedule="cosine") == pytest.approx([*rise, *fall])


def test_a_warmup_that_is_neither_is_refused():
    with pytest.raises(ValidationError, match="share of all steps"):
        TrainingSpec(warmup=1.5)


def test_a_warmup_that_never_ends_is_refused():
    with pytest.raises(ValidationError, match="takes all of its 4 steps"):
        TrainingSpec(warmup=4, steps=4)
    with pytest.raises(UserError, match="takes all of the 7 steps"):
        tiny_trainer("grad_diff", steps=None, epochs=1, warmup=20)


@pytest.mark.parametrize("stop", [2, 5])
def test_a_run_resumes_within_and_after_its_warmup_bit_for_bit(stop):
    how = {"steps": 8, "warmup": 4, "schedule": "cosine", "accumulation": 2, "accumulation_mean": "tokens"}
    unbroken, first, second = (tiny_trainer("npo", **how) for _ in range(3))
    unbroken.run()
    first.run(until=stop)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    second.run()
    assert second.log == unbroken.log
    one, other = unbroken.delta(), second.delta()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def batches(corpora, **training):
    spec = TrainingSpec(**{"batch_size": 3, "max_length": 16, "pairing": "rows", **training})
    return Batches(corpora, tiny_tokenizer(), spec, 0, torch.device("cpu"))


def rows(tokens):
    return [tuple(row[keep.bool()].tolist()) for row, keep in zip(tokens.ids, tokens.mask, strict=True)]


def test_rows_in_pairs_are_one_shuffled_epoch_of_all_topics_with_retain_rows_drawn_at_random():
    corpora = tiny_corpora()
    made, again = batches(corpora, epochs=2), batches(corpora, epochs=2)
    assert (made.topics, made.steps) == (["bio + cyber"], 14)
    forget = [row for step in range(7) for row in rows(made.batch(step).forget)]
    every = [str(text) for topic in corpora.forget.values() for text in topic]
    assert sorted(forget) == sorted(map(tuple, tiny_tokenizer()(every)["input_ids"])), "an epoch holds each row once"
    retain = [row for step in range(7) for row in rows(made.batch(step).retain)]
    assert len(retain) == len(forget)
    assert len(set(retain)) < len(corpora.retain), "drawn with replacement"
    assert [rows(again.batch(step).retain) for step in (6, 0)] == [retain[18:], retain[:3]]


def gradient(name, settings=None, corpora=None, **training):
    """The gradient of a first step, as what a step of SGD with rate 1 takes off; and the row of the log."""
    how = {"steps": 1, "pairing": "rows", "optimizer": "sgd", "learning_rate": 1.0, **training}
    trainer = tiny_trainer(name, settings or SETTINGS.get(name), corpora=corpora, **how)
    trainer.run()
    before = {key: value.float() for key, value in tiny_model().named_parameters()}
    return {key: before[key].detach() - value for key, value in trainer.delta().items()}, trainer.log[1]


def check_large(name, settings=None, corpora=None):
    """Four batches of two make one of eight, for gradient and log, and a mean over batches would not.

    What is drawn beside a row follows its batch, so there is one line to draw from. A gradient is read off float32
    weights of up to 1, whose last bit is 6e-8.
    """
    corpora = corpora or tiny_corpora()
    corpora = replace(corpora, pools=dict.fromkeys(methods.get(name).auxiliary, ("I do not know.",)))
    large, one = gradient(name, settings, corpora, batch_size=8)
    small, several = gradient(name, settings, corpora, batch_size=2, accumulation=4, accumulation_mean="tokens")
    _, plain = gradient(name, settings, corpora, batch_size=2, accumulation=4)
    assert large.keys() == small.keys()
    scale = max(float(value.abs().max()) for value in large.values())
    for key, value in large.items():
        torch.testing.assert_close(small[key], value, rtol=1e-4, atol=max(3e-6 * scale, 1.2e-7))
    losses = [key for key in one if key in ("forget", "retain", "total")]
    assert {key: several[key] for key in losses} == pytest.approx({key: one[key] for key in losses}, rel=1e-5, abs=1e-6)
    if one.get("retain", 0.0) > 1e-3:
        assert plain["retain"] != pytest.approx(one["retain"], rel=1e-4), "the lengths are unequal"


@pytest.mark.parametrize("name", methods.names())
def test_a_mean_over_tokens_makes_batches_of_unequal_lengths_one_large_batch(name):
    check_large(name)


@pytest.mark.parametrize("name", [*LIKELIHOOD, "uld"])
def test_so_it_does_with_answers_of_unequal_lengths(name):
    check_large(name, corpora=tiny_questions())


@pytest.mark.parametrize("corpora", [tiny_corpora(), tiny_questions()], ids=["documents", "questions"])
@pytest.mark.parametrize(("name", "settings"), [("npo", {"retain": "kl"}), ("blur", {"forget": "grad_ascent"})])
def test_other_terms_count_their_tokens_too(name, settings, corpora):
    check_large(name, settings, corpora)


def test_a_method_that_does_not_say_what_its_losses_are_means_of_is_named():
    class Silent(methods.get("grad_diff")):
        units = Method.units

    class Partial(methods.get("grad_diff")):
        def units(self, batch):
            return {"forget": 1}

    for kind, words in ((Silent, "does not say"), (Partial, "'retain'")):
        with methods.temporary("silent", kind), pytest.raises(UserError, match=words):
            tiny_trainer("silent", accumulation=2, accumulation_mean="tokens").run()


class PlainNPO:
    """NPO with a retain term as its paper writes it: text by text, without padding; AdamW, warm-up, linear decay."""

    def __init__(self, beta, rate, steps, warmup):
        self.model, self.frozen, self.beta = tiny_model(), tiny_model(), beta
        self.rate, self.steps, self.warmup = rate, steps, warmup
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=rate, betas=(0.9, 0.999), weight_decay=0.0)

    def logprobs(self, model, text):
        ids, counts = text
        logits = model(input_ids=ids[None]).logits[0, :-1].double()
        return logits.log_softmax(-1)[torch.arange(len(ids) - 1), ids[1:]][counts[1:].bool()]

    def step(self, number, forget, retain):
        ratios = []
        for text in forget:
            with torch.no_grad():
                reference = self.logprobs(self.frozen, text).sum()
            ratios.append(self.logprobs(self.model, text).sum() - reference)
        loss = -2 / self.beta * F.logsigmoid(-self.beta * torch.stack(ratios)).mean()
        held = -torch.cat([self.logprobs(self.model, text) for text in retain]).mean()
        rise = min(1.0, number / self.warmup)
        fall = min(1.0, (self.steps - number) / (self.steps - self.warmup))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * rise * fall
        self.optimizer.zero_grad()
        (loss + held).backward()
        self.optimizer.step()
        return {"forget": loss.item(), "retain": held.item(), "total": (loss + held).item()}


def unpadded(tokens):
    counts = tokens.mask if tokens.targets is None else tokens.targets
    return [
        (ids[keep.bool()], own[keep.bool()]) for ids, keep, own in zip(tokens.ids, tokens.mask, counts, strict=True)
    ]


@pytest.mark.parametrize("corpora", [tiny_corpora(), tiny_questions()], ids=["documents", "questions"])
def test_npo_with_warmup_decay_and_accumulation_is_its_formula(corpora):
    how = {"batch_size": 2, "accumulation": 3, "accumulation_mean": "tokens", "pairing": "rows", "max_length": 16}
    spec = TrainingSpec(**how, steps=6, warmup=2, schedule="linear", learning_rate=RATE)
    kind, model = methods.get("npo"), tiny_model()
    trainer = Trainer(model, tiny_tokenizer(), kind(kind.Settings()), corpora, spec, seed=0)
    plain = PlainNPO(0.1, RATE, 6, 2)
    trainer.run()
    for number in range(6):
        parts = [trainer.context.batch(3 * number + part) for part in range(3)]
        forget, retain = (
            [text for part in parts for text in unpadded(getattr(part, of))] for of in ("forget", "retain")
        )
        expected = plain.step(number, forget, retain)
        row = trainer.log[number + 1]
        assert {key: row[key] for key in expected} == pytest.approx(expected, rel=1e-5)
    for name, value in plain.model.named_parameters():
        torch.testing.assert_close(model.get_parameter(name).detach(), value.detach(), rtol=0, atol=5e-6)


def test_an_epoch_of_pairs_counts_forget_rows_whatever_makes_a_step():
    one = Corpora({"a": ["bab bad"] * 10, "b": ["bad"] * 6}, ["bag"])
    assert [batches(one, epochs=5, batch_size=4, accumulation=n).steps for n in (1, 2)] == [20, 10]
    assert copy.deepcopy(batches(one)).batch(0).topic == "a + b"
