"""Streams of randomness: the bits of each are those of every result so far."""

from __future__ import annotations

from unlearn_bench.harness import rng
from unlearn_bench.harness.specs import digest


def test_training_draws_by_seed_and_words() -> None:
    assert rng.generator(3, "order", "retain", 2).permutation(8).tolist() == [6, 0, 4, 2, 3, 1, 5, 7]
    assert rng.generator(0, "method").random(2).tolist() == [0.260430259185378, 0.38921295960751423]
    assert int(rng.generator(7, "torch", -1).integers(2**63)) == 2829192374534120604


def test_a_board_draws_by_seed_and_digest() -> None:
    drawn = rng.board_generator(0, digest(["mmlu", ["a", "b"]]))
    assert drawn.random(2).tolist() == [0.008719104550820034, 0.9210862185161911]
    assert int(drawn.integers(1000)) == 467


def test_a_search_starts_at_its_digest() -> None:
    assert digest((1000, "rmu", "knowledge")) == "d9a588e7f7e67067"
    assert rng.search_seed("d9a588e7f7e67067") == 4159074407


def test_weight_noise_follows_seed_and_name() -> None:
    drawn = rng.weight_noise(5, "model.layers.0.mlp.down_proj.weight", (2, 3))
    assert drawn.dtype == "float32"
    assert drawn.tolist() == [
        [1.3932548761367798, -0.8475805521011353, -0.5575475692749023],
        [-0.6665043234825134, 0.6478835344314575, 1.8675990104675293],
    ]


def test_a_replica_draws_by_seed_and_name() -> None:
    normal, uniform = rng.replica_noise(5, "model.layers.0.mlp.down_proj.weight", (2, 2))
    assert normal.tolist() == [[-0.4658762216567993, -0.4112938344478607], [1.2152589559555054, 1.32584810256958]]
    assert uniform.tolist() == [[0.5871031880378723, 0.46198827028274536], [0.6221442818641663, 0.7568382620811462]]


def test_sampling_noise_is_a_function_of_its_key() -> None:
    assert rng.sampling_noise(1, "item 7", 2, 3).tolist() == [
        0.38790442238709055,
        0.5101381099317753,
        0.7093380213898492,
    ]
    long = rng.sampling_noise(0, "a", 2, 30)
    assert (long[:20] == rng.sampling_noise(0, "a", 2, 20)).all()
    others = [rng.sampling_noise(*key, 30) for key in ((1, "a", 2), (0, "b", 2), (0, "a", 3))]
    assert all((other != long).all() for other in others)
    assert ((long >= 0) & (long < 1)).all()


def test_sampling_seeds_are_keyed_by_decoding_seed_item_and_sample() -> None:
    seeds = {rng.sampling_seed(seed, item, sample) for seed in range(3) for item in ("a", "b") for sample in range(50)}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert rng.sampling_seed(1, "p3", 2) == 4921000355661845994
