"""The loop on tiny random models: log, resume, restore, precision, failures."""

from __future__ import annotations

import copy
import io
import math

import pytest
import torch
from unlearn_bench.harness.errors import TrainingError, UserError
from unlearn_bench.harness.models.patch import apply_delta
from unlearn_bench.harness.suite import TrainingSpec
from unlearn_bench.harness.training.parameters import round_at_random
from unlearn_bench.harness.training.trainer import Trainer
from unlearn_bench.methods.base import Method, methods
from unlearn_bench.methods.testing import tiny_corpora, tiny_model, tiny_tokenizer, tiny_trainer

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


def test_accumulated_batches_make_one_step_along_the_mean_of_their_gradients():
    trainer = tiny_trainer("rmu", steps=2, accumulation=3, optimizer="sgd", learning_rate=1e-2)
    plain, model = tiny_trainer("rmu", steps=1), tiny_model()
    names = list(trainer._tensors.parameters)
    losses, gradients = [], []
    for number in range(3):
        total = plain.method.combine(plain.method.losses(plain.context.batch(number)))
        losses.append(total.item())
        gradients.append(torch.autograd.grad(total, list(plain._tensors.parameters.values())))
    trainer.run(until=1)
    row = trainer.log[1]
    assert row["topic"] == "bio, cyber"
    assert row["total"] == pytest.approx(sum(losses) / 3, rel=1e-6)
    base, moved = dict(model.named_parameters()), trainer.delta()
    for name, *parts in zip(names, *gradients, strict=True):
        torch.testing.assert_close(moved[name], base[name].detach() - 1e-2 * sum(parts) / 3, rtol=0, atol=1e-6)
    trainer.run()
    assert [row["topic"] for row in trainer.log[1:]] == ["bio, cyber", "cyber, bio"], "batch 3 is the next topic's"


def test_epochs_count_texts_whatever_makes_a_step():
    assert [tiny_trainer("rmu", steps=None, epochs=2, accumulation=n).steps for n in (1, 2, 5)] == [14, 7, 3]


def test_an_accumulated_run_resumes_bit_for_bit():
    unbroken, first, second = (tiny_trainer("blur", accumulation=2) for _ in range(3))
    unbroken.run()
    first.run(until=2)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second.run()
    assert same(unbroken.delta(), second.delta())
    assert unbroken.log == second.log


def test_a_method_that_combines_gradients_gets_the_mean_of_each_loss_and_has_the_last_word(monkeypatch):
    kind, seen = methods.get("blur"), []

    def keep_none(self, gradients):
        seen.append({loss: dict(gradient) for loss, gradient in gradients.items()})
        return {name: torch.ones_like(tensor) for name, tensor in gradients["retain"].items()}

    monkeypatch.setattr(kind, "combine_gradients", keep_none)
    trainer = tiny_trainer("blur", steps=1, accumulation=2, optimizer="sgd", learning_rate=0.5)
    plain = tiny_trainer("blur", steps=1)
    parameters = plain._tensors.parameters
    each = [plain.method.losses(plain.context.batch(number)) for number in range(2)]
    trainer.run()
    assert [sorted(gradients) for gradients in seen] == [["forget", "retain"]]
    for loss in ("forget", "retain"):
        mean = torch.autograd.grad((each[0][loss] + each[1][loss]) / 2, list(parameters.values()))
        for name, gradient in zip(parameters, mean, strict=True):
            torch.testing.assert_close(seen[0][loss][name], gradient, rtol=1e-4, atol=1e-6)
    base = dict(tiny_model().named_parameters())
    assert all(torch.allclose(new, base[name] - 0.5, atol=1e-6) for name, new in trainer.delta().items())
    assert "total" not in trainer.log[1]


@pytest.mark.parametrize("name", ["grad_diff", "ihl", "blur"])
def test_checkpointing_of_a_whole_model_changes_no_bit_and_saves_less(name):
    runs = []
    for on in (False, True):
        trainer, kept = tiny_trainer(name, steps=2), []
        trainer.context.passes.checkpointing = on
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.nbytes) or t, lambda t: t):
            trainer.run()
        runs.append((trainer.delta(), trainer.log, sum(kept)))
    plain, lean = runs
    assert same(plain[0], lean[0])
    assert plain[1] == lean[1]
    assert lean[2] < 0.7 * plain[2]


def test_training_in_bfloat16_moves_float32_copies_of_a_whole_model():
    model = tiny_model().to(torch.bfloat16)
    before = weights(model)
    trainer = train(model, "grad_diff")
    assert {master.dtype for master in trainer._tensors.masters.values()} == {torch.float32}
    assert {tensor.dtype for tensor in trainer.delta().values()} == {torch.bfloat16}
    trainer.restore()
    assert same(before, weights(model))


@pytest.mark.parametrize("name", methods.names())
def test_a_replica_starts_a_hair_apart_and_is_what_its_delta_says(name):
    plain, replica = tiny_trainer(name, steps=3), tiny_trainer(name, steps=3, replica=True)
    start, apart = (trainer.state_dict()["tensors"] for trainer in (plain, replica))
    assert start.keys() == apart.keys()
    moved = torch.cat([(apart[key] / start[key] - 1)[start[key] != 0].flatten() for key in start])
    assert 0 < moved.abs().max() < 1e-5
    assert float(moved.std()) == pytest.approx(1e-6, rel=0.1)
    assert all(torch.equal(apart[key][start[key] == 0], start[key][start[key] == 0]) for key in start)
    plain.run()
    replica.run()
    assert plain.delta().keys() <= replica.delta().keys()
    text = replica.context.batch(0).retain
    kind = methods.get(name)
    if kind.changes == "weights" and kind.finish is Method.finish and replica.method.lora() is None:
        model = tiny_model()
        apply_delta(model, "tiny", replica.delta())
        with torch.no_grad():
            after = model(input_ids=text.ids, attention_mask=text.mask).logits
            ours = replica.context.model(input_ids=text.ids, attention_mask=text.mask).logits
        assert torch.equal(after, ours), "evaluation sees what was trained"
    frozen = replica.context.frozen_logits(text)
    assert torch.equal(frozen, tiny_trainer(name).context.frozen_logits(text)), "the frozen model is the base"
    before, model = tiny_model().state_dict(), replica.context.model
    replica.restore()
    assert same(before, model.state_dict())


def test_a_replica_resumes_bit_for_bit():
    unbroken, first, second = (tiny_trainer("grad_diff", steps=5, replica=True) for _ in range(3))
    unbroken.run()
    first.run(until=2)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second.run()
    assert same(unbroken.delta(), second.delta())
    assert unbroken.log == second.log


def test_a_replica_of_a_coarse_dtype_is_rounded_at_random_and_right_on_average():
    models = tiny_model().to(torch.bfloat16), tiny_model().to(torch.bfloat16)
    options = [{"model": model, "precision": "reference", "steps": 1} for model in models]
    start, apart = (
        tiny_trainer("grad_diff", replica=replica, **more).state_dict()["tensors"]
        for replica, more in zip((False, True), options, strict=True)
    )
    other = sum(int((start[name] != apart[name]).sum()) for name in start)
    count = sum(tensor.numel() for tensor in start.values())
    assert 0 < other < 1e-3 * count, "few weights move, each to its neighbour"
    exact = torch.full((200_000,), 1 + 1e-4, dtype=torch.float64)
    rounded = round_at_random(exact, torch.rand(200_000, generator=torch.Generator().manual_seed(0)), torch.bfloat16)
    assert set(rounded.tolist()) == {1.0, 1.0078125}
    assert float(rounded.double().mean()) == pytest.approx(1 + 1e-4, abs=1e-5)
