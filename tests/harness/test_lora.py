"""Low-rank training: peft's own forward pass, a merged checkpoint of the base's tensors, and a base left as it was."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.models.patch import apply_delta
from unlearn_bench.harness.suite import TrainingSpec
from unlearn_bench.harness.training.parameters import LoRAParameters
from unlearn_bench.methods.base import LoRA
from unlearn_bench.methods.testing import tiny_model, tiny_trainer

torch.set_num_threads(1)

SETTINGS = {"parameters": "lora", "lora_rank": 4, "lora_alpha": 12.0}
STEPS = 6


def loss(model, batch):
    """Gradient difference by transformers' own loss."""

    def own(text):
        labels = text.ids.masked_fill(text.mask == 0, -100)
        return model(input_ids=text.ids, attention_mask=text.mask, labels=labels).loss

    return own(batch.retain) - own(batch.forget)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_run_equals_peft_and_its_merged_change_equals_the_unmerged_model(family):
    trainer = tiny_trainer("grad_diff", SETTINGS, family=family, steps=STEPS, learning_rate=1e-2)
    batches = [trainer.context.batch(step) for step in range(STEPS)]
    names = {name: value.clone() for name, value in trainer.state_dict()["tensors"].items()}
    modules = sorted({name.split(".lora_")[0] for name in names})
    config = LoraConfig(r=4, lora_alpha=12, target_modules=modules)
    plain = get_peft_model(tiny_model(family), config)  # pyright: ignore[reportArgumentType]
    factors = {name: p for name, p in plain.named_parameters() if p.requires_grad}
    assert len(factors) == len(names) == 2 * 9 * 7
    with torch.no_grad():
        for name, parameter in factors.items():
            parameter.copy_(names[name.removeprefix("base_model.model.").replace("default", LoRAParameters.NAME)])
    optimizer = torch.optim.AdamW(factors.values(), lr=1e-2, weight_decay=0.0)
    for batch in batches:
        optimizer.zero_grad()
        loss(plain, batch).backward()
        optimizer.step()
    trainer.run()
    text = batches[0].retain
    with torch.no_grad():
        expected = plain(input_ids=text.ids, attention_mask=text.mask).logits
        ours = trainer.context.logits(text)
        merged, moved = tiny_model(family), tiny_model(family)
        apply_delta(merged, "tiny", trainer.delta())
        after = merged(input_ids=text.ids, attention_mask=text.mask).logits
        before = moved(input_ids=text.ids, attention_mask=text.mask).logits
    real = text.mask.bool()
    assert (before - ours)[real].abs().max() > 0.1, "training moved the model"
    assert (expected - ours)[real].abs().max() <= 1e-4
    assert (after - ours)[real].abs().max() <= 1e-4
    assert trainer.delta().keys() == {f"{module}.weight" for module in modules}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_base_is_given_back_bit_by_bit_with_its_own_modules(dtype):
    model = tiny_model().to(dtype)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kinds = [type(module) for module in model.modules()]
    trainer = tiny_trainer("grad_diff", SETTINGS, model=model, learning_rate=1e-2)
    trainer.run()
    assert {tensor.dtype for tensor in trainer.delta().values()} == {dtype}
    trainer.restore()
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(before[name].dtype == after[name].dtype and torch.equal(before[name], after[name]) for name in before)
    assert [type(module) for module in model.modules()] == kinds
    assert not hasattr(model, "peft_config")
    assert not any(parameter.requires_grad for parameter in model.parameters())
    again = tiny_trainer("rmu", model=model)
    again.run()
    fresh = tiny_trainer("rmu", model=tiny_model().to(dtype))
    fresh.run()
    assert all(torch.equal(tensor, fresh.delta()[name]) for name, tensor in again.delta().items())


def test_the_frozen_model_is_the_base_while_the_factors_train():
    trainer = tiny_trainer("npo", SETTINGS, learning_rate=1e-2)
    trainer.run()
    text = trainer.context.batch(0).retain
    with torch.no_grad():
        base = tiny_model()(input_ids=text.ids, attention_mask=text.mask).logits
    assert torch.equal(trainer.context.frozen_logits(text), base)
    assert not torch.equal(trainer.context.logits(text), base)


def test_targets_are_matrices_by_name_and_anything_else_is_an_error():
    trainer = tiny_trainer("grad_diff", {**SETTINGS, "lora_targets": ["mlp.up_proj.weight"], "layers": [2, 3]})
    trainer.run()
    assert sorted(trainer.delta()) == [f"model.layers.{layer}.mlp.up_proj.weight" for layer in (2, 3)]
    model = tiny_model()
    with pytest.raises(UserError, match=r"LoRA cannot train .*input_layernorm"):
        tiny_trainer("grad_diff", {**SETTINGS, "lora_targets": ["input_layernorm.weight"]}, model=model)
    assert model.state_dict().keys() == tiny_model().state_dict().keys()


def test_precision_decides_the_factors_dtype():
    spec = TrainingSpec()
    for precision, dtype in (("mixed", torch.float32), ("reference", torch.bfloat16)):
        tensors = LoRAParameters(tiny_model().to(torch.bfloat16), precision, spec.optimizer, LoRA(2, 4.0))
        tensors.open(["model.layers.1.mlp.up_proj.weight"])
        assert {parameter.dtype for parameter in tensors.masters.values()} == {dtype}
        tensors.restore()
