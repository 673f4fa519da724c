"""Every registered method, plugins included, keeps the contract; broken ones do not."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch
from unlearn_bench.methods.base import Method, MethodSettings, methods
from unlearn_bench.methods.testing import check_declaration, check_method

torch.set_num_threads(1)


PAPER = ("rmu", "adap_rmu", "cosine_meta_rmu", "multi_layer_probe")


@pytest.mark.parametrize(
    "name", [name if name in PAPER else pytest.param(name, marks=pytest.mark.slow) for name in methods.names()]
)
def test_method_keeps_the_contract(name):
    check_method(name)


@pytest.mark.parametrize("name", ["rmu", "multi_layer_probe"])
def test_method_keeps_the_contract_on_qwen2(name):
    check_method(name, family="qwen2")


class Broken(Method):
    """A method that keeps the contract; each case below breaks one promise."""

    Settings = MethodSettings
    version = 1
    citation = "none"
    summary = "pull hidden states to a random point"

    def trained(self, context):
        return context.layer_parameters([0], "mlp.down_proj.weight")

    def setup(self, context):
        super().setup(context)
        self.target = torch.tensor(context.rng.random(context.hidden_size), dtype=torch.float32)

    def losses(self, batch):
        return {"forget": (self.context.hidden(batch.forget, [0])[0] - self.target).square().mean()}

    def combine(self, losses):
        return losses["forget"]


class NoOperation(Broken):
    def combine(self, losses):
        return 0 * losses["forget"]


class NoLoss(Broken):
    def losses(self, batch):
        return {"forget": torch.zeros(())}


class GlobalRandomness(Broken):
    def losses(self, batch):
        import random

        return {"forget": super().losses(batch)["forget"] * (1 + random.random())}


class Forgetful(Broken):
    steps = 0.0

    def after_step(self, batch, losses):
        self.steps += 1
        return {"steps": self.steps}


class SeedBlind(Broken):
    def setup(self, context):
        super().setup(context)
        self.target = torch.ones(context.hidden_size)

    def losses(self, batch):
        from unlearn_bench.methods.base import Tokens

        one = Tokens(torch.ones(1, 2, dtype=torch.long), torch.ones(1, 2, dtype=torch.long))
        return {"forget": (self.context.hidden(one, [0])[0] - self.target).square().mean()}


class Meddling(Broken):
    def after_step(self, batch, losses):
        self.context.model.get_input_embeddings().weight.add_(0.1)
        return {}


class NotANumber(Broken):
    def combine(self, losses):
        return losses["forget"] * float("nan")


class Dividing(Broken):
    def losses(self, batch):
        means = self.context.logprobs(batch.forget).sum(1) / batch.forget.counted.sum(1)
        return {"forget": means.mean() + super().losses(batch)["forget"]}


class Careless(Broken):
    class Settings(MethodSettings):
        model_config = {"extra": "ignore", "frozen": True}  # noqa: RUF012


@pytest.fixture
def registered():
    """Register a class under a name of its own for one test."""
    with ExitStack() as stack:
        yield lambda kind: stack.enter_context(methods.temporary(f"test_{kind.__name__.lower()}", kind))


def test_the_kit_accepts_a_method_that_keeps_its_promises(registered):
    check_method(registered(Broken))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (NoOperation, "returned the base unchanged"),
        (NoLoss, "base unchanged"),
        (GlobalRandomness, "two runs with one seed differ"),
        (Forgetful, "resumed run differs"),
        (SeedBlind, "another seed gives the same result"),
        (Meddling, "embed_tokens"),
        (NotANumber, "total is nan at step 0"),
        (Dividing, r"questions and answers failed: .* is nan .* expect a text without a token that counts"),
        (Careless, "was accepted"),
    ],
)
def test_the_kit_names_the_broken_promise(kind, words, registered):
    with pytest.raises(AssertionError, match=words):
        check_method(registered(kind))


def test_the_kit_wants_a_version_and_a_citation():
    class Unversioned(Broken):
        version = 0

    with pytest.raises(AssertionError, match="version"):
        check_declaration(Unversioned)

    class OneWord(Broken):
        auxiliary = "refusal"

    with pytest.raises(AssertionError, match="auxiliary must be a tuple"):
        check_declaration(OneWord)

    class Boastful(Broken):
        status = "best"

    with pytest.raises(AssertionError, match="status must be one of faithful, reading, variant, unknown"):
        check_declaration(Boastful)

    class Wordy(Broken):
        family = "of my own"

    with pytest.raises(AssertionError, match="family must be one word"):
        check_declaration(Wordy)


def test_a_method_that_says_no_family_and_status_works_and_built_in_ones_say_theirs():
    check_declaration(Broken)
    assert (Broken.family, Broken.status) == ("other", "unknown")
    for name in methods.names():
        if methods.origin(name).startswith("unlearn_bench.methods."):
            kind = methods.get(name)
            assert kind.family != "other", name
            assert kind.status == vars(kind).get("status"), f"{name} says its status itself"
