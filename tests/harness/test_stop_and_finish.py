"""A method that ends its own training, and one that does something to the change that it made."""

from __future__ import annotations

import io

import pytest
import torch
from pydantic import Field
from unlearn_bench.harness.errors import TrainingError
from unlearn_bench.harness.transforms.train import _summary
from unlearn_bench.methods.base import methods
from unlearn_bench.methods.likelihood import LikelihoodMethod, LikelihoodSettings, nll
from unlearn_bench.methods.testing import check_method, tiny_model, tiny_trainer

torch.set_num_threads(1)


class StoppingSettings(LikelihoodSettings):
    patience: int = Field(2, ge=1)
    below: float = Field(4.3)


class Stopping(LikelihoodMethod):
    """Language modelling until the loss was below a bound so many times."""

    Settings = StoppingSettings
    version, citation, summary = 1, "none", "stops"
    seen = 0

    def losses(self, batch):
        return {"forget": nll(self.context, batch.forget)}

    def should_stop(self, row):
        self.seen += row["forget"] < self.settings.below
        return f"{self.seen} losses below {self.settings.below}" if self.seen >= self.settings.patience else None

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


class TaskVectorSettings(LikelihoodSettings):
    scale: float = 2.0


class TaskVector(LikelihoodMethod):
    """Negation of what fine-tuning on the forget text changes (Ilharco et al., arXiv 2212.04089)."""

    Settings = TaskVectorSettings
    version, citation, summary = 1, "arXiv 2212.04089", "negated task vector"

    def losses(self, batch):
        return {"forget": nll(self.context, batch.forget)}

    def finish(self, delta, originals):
        assert delta.keys() == originals.keys()
        return {name: -self.settings.scale * change for name, change in delta.items()}


@pytest.fixture(autouse=True)
def registered():
    with methods.temporary("stopping", Stopping), methods.temporary("task_vector", TaskVector):
        yield


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def stopping(**settings):
    return tiny_trainer("stopping", settings, steps=30, learning_rate=3e-3)


def test_a_rule_ends_training_and_the_log_and_summary_say_why():
    trainer = stopping()
    trainer.run()
    assert trainer.done
    assert 2 <= trainer.step < trainer.steps == 30
    *before, last = trainer.log[1:]
    assert last["stopped"] == "2 losses below 4.3"
    assert last["step"] == trainer.step - 1
    assert not any("stopped" in row for row in before)
    summary = _summary(trainer.log)
    assert (summary["stopped"], summary["steps"]) == (last["stopped"], trainer.step)
    ended = trainer.step
    trainer.run()
    assert trainer.step == ended, "it is over"


def test_a_rule_that_never_holds_leaves_all_steps():
    trainer = tiny_trainer("stopping", {"below": 0.0}, steps=5)
    trainer.run()
    assert trainer.step == 5
    assert "stopped" not in trainer.log[-1]
    assert "steps" not in _summary(trainer.log)


def test_a_stopped_run_resumes_from_anywhere_bit_for_bit():
    unbroken = stopping()
    unbroken.run()
    for stop in (1, unbroken.step - 1, unbroken.step):
        first, second = stopping(), stopping()
        first.run(until=stop)
        second.load_state_dict(through_a_file(first.state_dict()))
        second.run()
        assert second.log == unbroken.log
        assert all(torch.equal(value, second.delta()[name]) for name, value in unbroken.delta().items())


def test_a_change_is_finished_once_from_what_was_trained():
    plain, finished = (tiny_trainer("task_vector", {"scale": scale}, steps=3) for scale in (-1.0, 2.0))
    plain.run()
    finished.run()
    before = {name: value.detach() for name, value in tiny_model().named_parameters()}
    assert plain.delta().keys() == finished.delta().keys()
    for name, value in finished.delta().items():
        torch.testing.assert_close(value, before[name] - 2 * (plain.delta()[name] - before[name]), rtol=0, atol=1e-6)
    model = finished.context.model
    finished.restore()
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_the_change_of_a_coarse_dtype_is_finished_before_it_is_rounded():
    none, made = (
        tiny_trainer(
            "task_vector",
            {"scale": scale},
            model=tiny_model().to(torch.bfloat16),  # pyright: ignore[reportArgumentType]
            steps=1,
            learning_rate=1e-9,
        )
        for scale in (-1.0, 1e6)
    )
    with pytest.raises(TrainingError, match="unchanged"):
        none.run()
    made.run()
    assert {value.dtype for value in made.delta().values()} == {torch.bfloat16}


def test_a_low_rank_change_is_finished_merged_and_a_run_resumes():
    how = {"parameters": "lora", "lora_rank": 2}
    plain, whole, first, second = (
        tiny_trainer("task_vector", {**how, "scale": scale}, steps=4) for scale in (-1.0, 2.0, 2.0, 2.0)
    )
    plain.run()
    whole.run()
    first.run(until=2)
    second.load_state_dict(through_a_file(first.state_dict()))
    second.run()
    before = dict(tiny_model().named_parameters())
    assert plain.delta().keys() == whole.delta().keys() == second.delta().keys()
    for name, value in whole.delta().items():
        base = before[name].detach()
        assert torch.equal(value, second.delta()[name])
        torch.testing.assert_close(value, base - 2 * (plain.delta()[name] - base), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["stopping", "task_vector"])
def test_both_keep_the_contract(name):
    check_method(name)
