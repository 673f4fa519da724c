"""oneDNN's product in linear layers: the same numbers, weights read where they lie, and no part in training."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from unlearn_bench.harness.models.linear import OneDnnLinear, use_onednn


@pytest.fixture
def layers(monkeypatch) -> tuple[nn.Linear, nn.Linear, torch.Tensor]:
    """The same layer plain and with oneDNN's product, and more inputs than are left to torch's."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    torch.manual_seed(0)
    plain, fast = nn.Linear(96, 160), nn.Linear(96, 160)
    fast.load_state_dict(plain.state_dict())
    use_onednn(nn.Sequential(fast))
    assert isinstance(fast, OneDnnLinear)
    return plain, fast, torch.randn(4, 40, 96)


def test_a_product_is_the_same_up_to_last_bits(layers):
    plain, fast, inputs = layers
    with torch.inference_mode():
        torch.testing.assert_close(fast(inputs), plain(inputs), rtol=1e-5, atol=1e-5)
        assert torch.equal(fast(inputs[:1, :2]), plain(inputs[:1, :2]))


def test_weights_changed_in_place_count_at_once(layers):
    _, fast, inputs = layers
    with torch.no_grad():
        before = fast(inputs)
        fast.weight.mul_(2)
        torch.testing.assert_close(fast(inputs) - fast.bias, 2 * (before - fast.bias), rtol=1e-5, atol=1e-5)


def test_training_takes_what_it_took(layers):
    plain, fast, inputs = layers
    fast(inputs).square().sum().backward()
    plain(inputs).square().sum().backward()
    assert torch.equal(fast.weight.grad, plain.weight.grad)


def test_other_layers_and_other_processors_stay(monkeypatch):
    layers = nn.Sequential(nn.Linear(2, 2, dtype=torch.bfloat16), nn.LayerNorm(2), nn.Bilinear(2, 2, 2))
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    use_onednn(layers)
    assert not any(isinstance(layer, OneDnnLinear) for layer in layers)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    plain = nn.Linear(2, 2)
    use_onednn(plain)
    assert type(plain) is nn.Linear
