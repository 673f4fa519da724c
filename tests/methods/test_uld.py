"""ULD: what the assistant learns, and what is subtracted."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.models.load import cut
from unlearn_bench.methods.testing import tiny_model, tiny_trainer
from unlearn_bench.methods.uld import ULD, ULDSettings


def decoded(base, assistant, **settings):
    return ULD(ULDSettings(**settings)).decode(torch.tensor(base), torch.tensor(assistant))


def probabilities(logits):
    return torch.as_tensor(logits).double().softmax(-1)


@pytest.fixture
def logits():
    rng = np.random.default_rng(0)
    return rng.normal(0, 3, (2, 5, 40)).astype(np.float32), rng.normal(0, 3, (2, 5, 40)).astype(np.float32)


def test_without_a_filter_it_is_the_difference_of_the_bare_logits(logits):
    base, assistant = logits
    found = decoded(base, assistant + 17, weight=0.7, filter=0)
    torch.testing.assert_close(probabilities(found), probabilities(base - 0.7 * assistant), rtol=1e-5, atol=1e-6)


def test_only_likely_tokens_change(logits):
    base, assistant = logits
    found = decoded(base, assistant, weight=0.7, filter=0.1).numpy()
    likely = probabilities(base) >= 0.1 * probabilities(base).max(-1, keepdim=True).values
    assert 0 < likely.sum() < likely.numel() / 2
    assert np.array_equal(found[~likely.numpy()], base[~likely.numpy()])
    says = torch.tensor(assistant).log_softmax(-1).numpy() + math.log(40)
    np.testing.assert_allclose(found[likely.numpy()], (base - 0.7 * says)[likely.numpy()], atol=1e-5)


@pytest.mark.parametrize("filter", [0.0, 0.01, 1.0])
def test_an_assistant_that_knows_nothing_changes_nothing(logits, filter):
    base, _ = logits
    found = decoded(base, np.full_like(base, 5.0), weight=3.0, filter=filter)
    torch.testing.assert_close(found, torch.tensor(base))


def test_what_the_assistant_expects_becomes_unlikely():
    base, assistant = np.zeros((1, 6), np.float32), np.zeros((1, 6), np.float32)
    base[0, 1], base[0, 2], assistant[0, 1] = 4.0, 3.5, 9.0
    assert decoded(base, assistant, weight=0.8).argmax() == 2
    assert decoded(base, assistant, weight=0.01).argmax() == 1


def test_the_losses_are_those_of_a_model_cut_after_its_layers():
    trainer = tiny_trainer("uld", {"depth": 4})
    whole, batch = tiny_model(), trainer.context.batch(0)
    config = type(whole.config)(**whole.config.to_dict())
    cut(config, 4)
    short = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    own = short.state_dict().keys()
    short.load_state_dict({name: tensor for name, tensor in whole.state_dict().items() if name in own})
    nll, divergence = [], []
    with torch.no_grad():
        for tokens, values in ((batch.forget, nll), (batch.retain, divergence)):
            for ids, mask in zip(tokens.ids, tokens.mask, strict=True):
                ids = ids[: int(mask.sum())]
                logp = short(ids[None]).logits[0].double().log_softmax(-1).numpy()
                if values is nll:
                    values += [-row[token] for row, token in zip(logp[:-1], ids[1:].tolist(), strict=True)]
                else:
                    uniform = 1 / logp.shape[-1]
                    values += [float((uniform * (math.log(uniform) - row)).sum()) for row in logp]
        found = trainer.method.losses(batch)
    assert float(found["forget"]) == pytest.approx(np.mean(nll), rel=1e-5)
    assert float(found["retain"]) == pytest.approx(np.mean(divergence), rel=1e-5)
    assert float(trainer.method.combine(found)) == pytest.approx(np.mean(nll) + 5 * np.mean(divergence), rel=1e-5)
    trainer.restore()


@pytest.mark.parametrize("rank", [0, 8])
def test_it_learns_the_forget_text_and_nothing_of_the_retain_text(rank):
    """Only matrices of the assistant's layers change."""
    trainer = tiny_trainer("uld", {"depth": 3, "rank": rank, "beta": 1.0}, steps=60, learning_rate=1e-2)
    trainer.run()
    start, end = trainer.log[1:7], trainer.log[-6:]
    for loss in ("forget", "retain"):
        assert np.mean([row[loss] for row in end]) < 0.9 * np.mean([row[loss] for row in start])
    changed = {name.split(".")[2] for name in trainer.delta()}
    assert changed == {"0", "1", "2"}
    assert all(tensor.dim() == 2 for tensor in trainer.delta().values())
    trainer.restore()


def test_more_layers_than_the_model_has_are_refused():
    with pytest.raises(UserError, match="has 9 decoder layers"):
        tiny_trainer("uld", {"depth": 10})
