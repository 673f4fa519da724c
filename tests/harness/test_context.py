"""Hidden states, frozen states and parameters by name, in every family."""

from __future__ import annotations

import pytest
import torch
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.models.layers import decoder_layers
from unlearn_bench.methods.testing import tiny_model, tiny_trainer

torch.set_num_threads(1)

FAMILIES = ["llama", "mistral", "qwen2", "qwen3", "olmo2", "olmo3", "gemma", "gemma2", "gemma3_text"]


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
        layer.mlp.register_forward_pre_hook(lambda *_, index=index: ran.append(index))
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
