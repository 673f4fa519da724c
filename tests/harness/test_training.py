"""The loop, the batches and the activations, on tiny random models."""

from __future__ import annotations

import copy
import io
import math

import numpy as np
import pytest
import torch
from unlearn_bench.harness.activations import decoder_layers
from unlearn_bench.harness.batches import Batches, Corpora
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.suite import TrainingSpec
from unlearn_bench.harness.training import Trainer, TrainingError
from unlearn_bench.methods.base import methods
from unlearn_bench.methods.contract import WORDS, tiny_corpora, tiny_model, tiny_tokenizer, tiny_trainer

torch.set_num_threads(1)

FAMILIES = ["llama", "mistral", "qwen2", "qwen3", "olmo2", "olmo3", "gemma", "gemma2", "gemma3_text"]


def batches(corpora=None, seed=0, **training):
    spec = TrainingSpec(**{"batch_size": 3, "max_length": 16, **training})
    return Batches(corpora or tiny_corpora(), tiny_tokenizer(), spec, seed, torch.device("cpu"))


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


# Batches


def test_batches_are_a_pure_function_of_seed_and_step():
    forwards, backwards = batches(), batches()
    there = [forwards.batch(step) for step in range(20)]
    for step in reversed(range(20)):
        again = backwards.batch(step)
        assert again.topic == there[step].topic
        for part in ("forget", "retain"):
            assert torch.equal(getattr(again, part).ids, getattr(there[step], part).ids)
            assert torch.equal(getattr(again, part).mask, getattr(there[step], part).mask)
    other = [batches(seed=1).batch(step).forget.ids for step in range(20)]
    assert any(
        a.shape != b.forget.ids.shape or not torch.equal(a, b.forget.ids) for a, b in zip(other, there, strict=True)
    )


def test_topics_alternate_and_a_pass_holds_every_text_once():
    corpora = tiny_corpora()
    found = {"bio": [], "cyber": []}
    for step in range(8):
        batch = batches().batch(step)
        assert batch.topic == ("bio", "cyber")[step % 2]
        found[batch.topic] += [
            tuple(row[keep.bool()].tolist()) for row, keep in zip(batch.forget.ids, batch.forget.mask, strict=True)
        ]
    expected = {
        topic: [tuple(ids) for ids in tiny_tokenizer()(list(texts))["input_ids"]]
        for topic, texts in corpora.forget.items()
    }
    assert sorted(found["cyber"]) == sorted(expected["cyber"]), "12 texts, four batches of three"
    assert sorted(found["bio"][:9]) == sorted(expected["bio"]), "9 texts, then the next permutation"
    assert set(found["bio"][9:]) <= set(expected["bio"])


def test_text_is_cut_and_padded_on_the_right_whatever_the_tokenizer_says():
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = tokenizer.truncation_side = "left"
    corpora = Corpora({"one": [" ".join(WORDS[:20]), WORDS[0]]}, ["ba"])
    made = Batches(corpora, tokenizer, TrainingSpec(batch_size=2, max_length=8), 0, torch.device("cpu"))
    tokens = made.encode(corpora.forget["one"])
    assert tokens.ids[0].tolist() == [1, *range(3, 10)]
    assert tokens.mask.tolist() == [[1] * 8, [1, 1, 0, 0, 0, 0, 0, 0]]
    assert tokens.last.tolist() == [7, 1]


def test_steps_come_from_epochs_over_all_forget_text():
    assert batches(epochs=2).steps == 2 * 21 // 3
    assert batches(epochs=0.1).steps == 1
    assert batches(steps=5).steps == 5


def test_labelled_text_without_probes_is_forget_against_retain():
    every = np.concatenate([labels for _, labels in batches().labelled()])
    assert (every.sum(), len(every)) == (21, 36)
    some = batches().labelled(10)
    assert np.bincount(np.concatenate([labels for _, labels in some])).tolist() == [5, 5]
    assert all(len(tokens.ids) == len(labels) <= 3 for tokens, labels in some)


def test_labelled_text_is_the_tracks_where_it_has_any():
    base = tiny_corpora()
    made = batches(Corpora(base.forget, base.retain, (["bab", "bad", " "], [1, 0, 1])))
    [(tokens, labels)] = made.labelled()
    assert labels.tolist() == [1, 0]
    assert tokens.ids[:, 1].tolist() == [3, 4]
    with pytest.raises(UserError, match="0 or 1"):
        batches(Corpora(base.forget, base.retain, (["bab"], [2]))).labelled()
    with pytest.raises(UserError, match="both labels"):
        batches(Corpora(base.forget, base.retain, (["bab"], [1]))).labelled()


@pytest.mark.parametrize("corpora", [Corpora({}, ["bab"]), Corpora({"a": [" "]}, ["bab"]), Corpora({"a": ["bab"]}, [])])
def test_empty_text_is_named(corpora):
    with pytest.raises(UserError, match=r"forget|retain"):
        batches(corpora)


# Activations


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_are_those_of_transformers(family):
    trainer = tiny_trainer("rmu", family=family)
    tokens = trainer.context.batch(0).forget
    with torch.no_grad():
        output = trainer.context.model(input_ids=tokens.ids, attention_mask=tokens.mask, output_hidden_states=True)
    for layer, hidden in trainer.context.hidden(tokens, [6, 0]).items():
        torch.testing.assert_close(hidden, output.hidden_states[layer + 1])


def test_no_layer_beyond_the_deepest_runs():
    trainer = tiny_trainer("rmu")
    ran = []
    _, layers = decoder_layers(trainer.context.model)
    for index, layer in enumerate(layers):
        layer.register_forward_pre_hook(lambda *_, index=index: ran.append(index))
    trainer.context.model.lm_head.register_forward_pre_hook(lambda *_: ran.append("head"))
    tokens = trainer.context.batch(0).forget
    trainer.context.hidden(tokens, [2, 4])
    trainer.context.frozen_hidden(tokens, [1])
    assert ran == [0, 1, 2, 3, 4, 0, 1]
    ran.clear()
    trainer.context.hidden(tokens, [8])
    assert ran == list(range(9)), "the head does not run even after the last layer"
    assert not any(layer._forward_hooks for layer in layers), "no hook is left behind"


def test_frozen_states_stay_those_of_the_base_and_carry_no_gradient():
    base = tiny_model()
    trainer = tiny_trainer("rmu", steps=3)
    tokens = trainer.context.batch(0).forget
    trainer.run()
    with torch.no_grad():
        expected = base(input_ids=tokens.ids, attention_mask=tokens.mask, output_hidden_states=True).hidden_states[8]
    frozen = trainer.context.frozen_hidden(tokens, [7])[7]
    torch.testing.assert_close(frozen, expected)
    assert not frozen.requires_grad
    moved = trainer.context.hidden(tokens, [7])[7]
    assert moved.requires_grad
    assert not torch.allclose(moved, frozen, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_go_by_name_in_every_family(family):
    trainer = tiny_trainer("rmu", family=family, steps=1)
    trainer.run()
    assert sorted(trainer.delta()) == [f"model.layers.{layer}.mlp.down_proj.weight" for layer in (5, 6, 7)]


def test_the_sixth_parameter_of_qwen2_is_another_one():
    names = [name for name, _ in tiny_model("qwen2").model.layers[0].named_parameters()]
    assert names[6] == "self_attn.o_proj.weight"


def test_an_unknown_parameter_is_answered_with_what_a_layer_has():
    with pytest.raises(UserError, match=r"'mlp.down_proj.weight'") as error:
        tiny_trainer("rmu", {"parameters": ["mlp.down_prj.weight"]})
    assert "self_attn.q_proj.weight" in str(error.value)


# The loop


def test_the_log_has_the_setup_and_a_row_a_step():
    trainer = tiny_trainer("rmu", steps=3)
    seen = []
    trainer.run(on_step=seen.append)
    assert trainer.log == [{"step": -1, "setup": {}}, *seen]
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
