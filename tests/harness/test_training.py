"""The loop on tiny random models: log, resume, restore, precision, failures."""

from __future__ import annotations

import copy
import io
import math

import pytest
import torch
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.suite import TrainingSpec
from unlearn_bench.harness.training import Trainer, TrainingError
from unlearn_bench.methods.base import methods
from unlearn_bench.methods.contract import tiny_corpora, tiny_model, tiny_tokenizer, tiny_trainer

torch.set_num_threads(1)


def train(model, name="rmu", **training):
    spec = TrainingSpec(**{"batch_size": 3, "max_length": 16, "steps": 3, "learning_rate": 1e-3, **training})
    method = methods.get(name)
    trainer = Trainer(model, tiny_tokenizer(), method(method.Settings()), tiny_corpora(), spec, seed=0)
    trainer.run()
    return trainer


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )


def test_the_log_has_the_setup_and_a_row_a_step():
    trainer = tiny_trainer("rmu", steps=3)
    seen = []
    trainer.run(on_step=seen.append)
    assert trainer.log == [{"step": -1, "setup": {}, "shared_layers": 5}, *seen]
    assert [row["topic"] for row in seen] == ["bio", "cyber", "bio"]
    for row in seen:
        assert row.keys() == {"step", "topic", "forget", "retain", "total", "grad_norm"}
        assert row["total"] == pytest.approx(row["forget"] + 1200 * row["retain"])


@pytest.mark.parametrize("name", methods.names())
@pytest.mark.parametrize("stop", [1, 3])
def test_resume_equals_no_resume_bit_for_bit(name, stop):
    unbroken = tiny_trainer(name, steps=5)
    unbroken.run()
    first = tiny_trainer(name, steps=5)
    first.run(until=stop)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = tiny_trainer(name, steps=5)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second.step == stop
    second.run()
    assert same(unbroken.delta(), second.delta())
    assert unbroken.log == second.log


def test_a_state_of_another_run_is_refused():
    state = tiny_trainer("rmu").state_dict()
    with pytest.raises(UserError, match="another run"):
        tiny_trainer("rmu", {"layer": 5}).load_state_dict(state)


@pytest.mark.parametrize(
    ("dtype", "precision"),
    [
        (torch.float32, "float32"),
        (torch.bfloat16, "float32"),
        (torch.float16, "float32"),
        (torch.bfloat16, "mixed"),
        (torch.float16, "mixed"),
        (torch.bfloat16, "reference"),
    ],
)
def test_restore_is_bit_equal_and_the_worker_can_go_on(dtype, precision):
    model = tiny_model().to(dtype)
    before = weights(model)
    trainer = train(model, precision=precision)
    delta = trainer.delta()
    assert {tensor.dtype for tensor in delta.values()} == {dtype}
    trainer.restore()
    assert same(before, weights(model))
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
    assert same(delta, train(model, precision=precision).delta()), "a reused model trains as a fresh one"
    with pytest.raises(RuntimeError, match="make a new one"):
        trainer.run()


def test_precision_says_in_which_dtype_the_updates_happen():
    model = tiny_model().to(torch.bfloat16)
    spec = TrainingSpec(batch_size=3, max_length=16, steps=1, precision="float32")
    method = methods.get("rmu")
    made = [
        Trainer(
            copy.deepcopy(model),
            tiny_tokenizer(),
            method(method.Settings()),
            tiny_corpora(),
            spec.model_copy(update={"precision": precision}),
            0,
        )
        for precision in ("float32", "reference")
    ]
    assert [trainer.context.model.dtype for trainer in made] == [torch.float32, torch.bfloat16]


def test_adam_in_float16_is_refused():
    with pytest.raises(UserError, match="float32"):
        train(tiny_model().to(torch.float16), precision="reference")


def test_only_trained_parameters_get_gradients_and_dropout_is_off():
    trainer = tiny_trainer("rmu", steps=1)
    trainer.run()
    graded = {name for name, parameter in trainer.context.model.named_parameters() if parameter.grad is not None}
    assert graded == set(trainer.delta())
    assert not trainer.context.model.training


def test_a_setup_that_fails_leaves_the_model_as_it_was():
    model = tiny_model().to(torch.bfloat16)
    before = weights(model)
    method = methods.get("rmu")
    with pytest.raises(UserError):
        Trainer(model, tiny_tokenizer(), method(method.Settings(layer=20)), tiny_corpora(), TrainingSpec(), 0)
    assert same(before, weights(model))


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_optimizers_train(optimizer):
    assert train(tiny_model(), optimizer=optimizer).delta()


def test_gradient_clipping_bounds_the_step_and_logs_the_norm_before():
    trainer = train(tiny_model(), steps=1, optimizer="sgd", learning_rate=1.0, gradient_clip=0.01)
    base = dict(tiny_model().named_parameters())
    moved = math.sqrt(sum((new - base[name]).pow(2).sum().item() for name, new in trainer.delta().items()))
    assert trainer.log[1]["grad_norm"] > 0.1
    assert moved == pytest.approx(0.01, rel=1e-2)


def test_a_loss_that_is_not_finite_names_method_loss_and_step():
    with pytest.raises(TrainingError, match=r"RMU: \w+ is (nan|inf) at step [1-9]"):
        train(tiny_model(), steps=30, optimizer="sgd", learning_rate=1e6)


def test_a_result_equal_to_the_base_is_an_error():
    with pytest.raises(TrainingError, match="returned the base unchanged after 3 steps") as error:
        train(tiny_model(), learning_rate=1e-30)
    assert error.value.status == 1
