"""What makes training lean: shared layers, checkpointing, kept prefixes, float32 copies. None may change a result."""

from __future__ import annotations

import io
from contextlib import contextmanager

import pytest
import torch
from unlearn_bench.harness.errors import TrainingError, UserError
from unlearn_bench.harness.models.layers import decoder_layers, embed_in_main_memory
from unlearn_bench.harness.training.forward import SharedPrefix
from unlearn_bench.harness.training.trainer import Trainer
from unlearn_bench.methods.testing import tiny_model, tiny_trainer

torch.set_num_threads(1)

METHODS = ["rmu", "adap_rmu", "cosine_meta_rmu", "multi_layer_probe"]
LATE = {"multi_layer_probe": {"layers": [4, 6, 8]}}


def trained(name, **options):
    trainer = tiny_trainer(name, LATE.get(name), **options)
    trainer.run()
    return trainer


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def numbers(log):
    return [row for row in log if row["step"] >= 0]


@contextmanager
def counted(trainer, ran):
    """Count the real work of each layer: a replaced one does not reach its own modules."""
    _, layers = decoder_layers(trainer.context.model)
    handles = [
        layer.mlp.register_forward_pre_hook(lambda *_, index=index: ran.append(index))
        for index, layer in enumerate(layers)
    ]
    yield
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("name", METHODS)
def test_shared_layers_change_no_bit(name, family, monkeypatch):
    ours = trained(name, family=family)
    monkeypatch.setattr(SharedPrefix, "same", lambda *_: False)
    whole = trained(name, family=family)
    assert (ours.context.shared, whole.context.shared) == (4 if name in LATE else 5, 0)
    assert same(ours.delta(), whole.delta())
    assert numbers(ours.log) == numbers(whole.log)


def test_shared_layers_run_once_a_batch_and_trained_ones_for_every_pass():
    trainer = tiny_trainer("rmu", steps=2)
    ran = []
    with counted(trainer, ran):
        trainer.run(until=1)
    assert [ran.count(layer) for layer in range(9)] == [2, 2, 2, 2, 2, 3, 3, 3, 0], "forget and retain; updated, frozen"


def test_a_model_whose_layers_hand_more_on_than_their_output_runs_whole():
    model = tiny_model()
    layers, left = model.model.layers, {}
    layers[2].register_forward_hook(lambda _module, inputs, output: left.update(state=inputs[0].mean()))
    layers[6].register_forward_hook(lambda _module, _inputs, output: output + left["state"])
    found = trained("rmu", model=model)
    assert found.context.shared == 0
    assert not same(found.delta(), trained("rmu").delta())


@pytest.mark.parametrize("name", METHODS)
def test_checkpointing_changes_no_bit_and_saves_less(name):
    plain, lean = tiny_trainer(name, LATE.get(name)), tiny_trainer(name, LATE.get(name))
    lean.context.passes.checkpointing = True
    saved = {}
    for key, trainer in (("plain", plain), ("lean", lean)):
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, kept=kept: kept.append(tensor.nbytes) or tensor, lambda t: t
        ):
            trainer.run(until=1)
        trainer.run()
        saved[key] = sum(kept)
    assert same(plain.delta(), lean.delta())
    assert plain.log == lean.log
    assert saved["lean"] < 0.7 * saved["plain"]


def test_a_step_that_does_not_fit_is_done_again_with_checkpointing(monkeypatch):
    expected = trained("cosine_meta_rmu")
    backward, calls = Trainer._backward, []

    def full(self, batch):
        calls.append(self.context.passes.checkpointing)
        result = backward(self, batch)
        if len(calls) == 2:
            self.context.rng.random(3)
            raise torch.OutOfMemoryError("no memory left")
        return result

    monkeypatch.setattr(Trainer, "_backward", full)
    found = trained("cosine_meta_rmu")
    assert calls == [False, False, True, True, True]
    assert same(found.delta(), expected.delta())
    assert found.log == expected.log


def test_a_step_that_never_fits_is_an_error_that_says_what_to_do(monkeypatch):
    def full(self, batch):
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr(Trainer, "_backward", full)
    with pytest.raises(TrainingError, match=r"even with checkpointing.*training\.max_length"):
        trained("rmu")


@pytest.mark.parametrize("name", METHODS)
def test_a_kept_prefix_runs_in_the_first_epoch_only_and_gives_nearly_the_same(name):
    steps = 12
    kept, usual = trained(name, steps=steps, keep_prefix=True), trained(name, steps=steps)
    for one, other in zip(numbers(kept.log), numbers(usual.log), strict=True):
        assert one["total"] == pytest.approx(other["total"], rel=2e-2)
    late = tiny_trainer(name, LATE.get(name), steps=steps, keep_prefix=True)
    ran = []
    late.run(until=steps - 1)
    with counted(late, ran):
        late.run()
    assert not set(ran) & set(range(late.context.shared))
    assert set(ran) == set(range(late.context.shared, max(ran) + 1))


def test_a_resumed_run_with_a_kept_prefix_equals_an_unbroken_one(monkeypatch):
    """What is kept depends on the text alone, so it does not matter that the resumed run has kept nothing."""
    unbroken = trained("rmu", steps=9, keep_prefix=True)
    first = tiny_trainer("rmu", steps=9, keep_prefix=True)
    first.run(until=7)
    second = tiny_trainer("rmu", steps=9, keep_prefix=True)
    second.load_state_dict(first.state_dict())
    second.run()
    assert same(unbroken.delta(), second.delta())
    monkeypatch.setattr("os.sysconf", lambda name: 0)
    roomless = trained("rmu", steps=9, keep_prefix=True)
    assert same(unbroken.delta(), roomless.delta())
    assert not roomless.context._below._kept
    assert unbroken.context._below._kept


def bfloat16():
    return tiny_model().to(torch.bfloat16)


def test_small_updates_add_up_in_mixed_precision_and_are_lost_in_reference():
    """A step of 2e-5 rounds away from a bfloat16 weight of 0.2; 60 of them do not."""
    options = {"steps": 60, "learning_rate": 2e-5}
    moved = {}
    for precision in ("mixed", "float32", "reference"):
        trainer = trained("rmu", model=bfloat16(), precision=precision, **options)
        base = dict(bfloat16().named_parameters())
        moved[precision] = {
            name: (tensor != base[name]).float().mean().item() for name, tensor in trainer.delta().items()
        }
        assert {tensor.dtype for tensor in trainer.delta().values()} == {torch.bfloat16}
    for name in moved["mixed"]:
        assert moved["mixed"][name] > 1.3 * moved["reference"][name]
        assert moved["mixed"][name] == pytest.approx(moved["float32"][name], abs=0.1)


def test_mixed_precision_is_float32_where_the_model_is():
    assert same(trained("rmu", precision="mixed").delta(), trained("rmu", precision="float32").delta())


def test_a_resumed_run_in_mixed_precision_keeps_what_rounding_hides():
    options = {"steps": 6, "learning_rate": 2e-5, "precision": "mixed"}
    unbroken = trained("rmu", model=bfloat16(), **options)
    first, second = (tiny_trainer("rmu", model=bfloat16(), **options) for _ in range(2))
    first.run(until=3)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    second.run()
    assert same(unbroken.delta(), second.delta())
    assert unbroken.log == second.log


def test_the_embedding_stays_in_main_memory_unless_it_trains():
    model = tiny_model().to("meta")
    table, device = model.get_input_embeddings(), torch.device("meta")
    assert embed_in_main_memory(model, device, [table.weight]) == []
    assert embed_in_main_memory(model, torch.device("cpu"), []) == []
    table.to_empty(device="cpu")
    moved = embed_in_main_memory(model, device, [])
    ids = torch.ones(1, 4, dtype=torch.long, device=device)
    assert table.weight.device.type == "cpu"
    with pytest.raises(NotImplementedError, match="meta"):
        table(ids)
    for handle in moved:
        handle.remove()


def test_a_layer_that_does_not_exist_is_named():
    trainer = tiny_trainer("rmu")
    with pytest.raises(UserError, match=r"Decoder layer 12 .* has 9 decoder layers"):
        trainer.context.hidden(trainer.context.batch(0).forget, [12])
