"""The policy of alpha: a bandit with a known optimum, controls, the score."""

from __future__ import annotations

import math

import numpy as np
import pytest
from unlearn_bench.methods.reinforce import AlphaPolicy, score
from unlearn_bench.methods.testing import tiny_trainer

BEST = 2.0  # log alpha


def bandit(seed, *, shuffled=False, scale=1.0, steps=1500):
    """Play rewards scale * -(log alpha - BEST)^2 plus noise; return the learned mean."""
    rng = np.random.default_rng(seed)
    policy = AlphaPolicy(0.0, sigma=0.5, lr=1e-2, decay=0.9)
    rewards = []
    for _ in range(steps):
        policy.sample(rng)
        reward = scale * (-((math.log(policy.alpha) - BEST) ** 2) + 0.3 * rng.standard_normal())
        rewards.append(reward)
        policy.update(rewards[rng.integers(len(rewards))] if shuffled else reward)
    return policy.mean


def test_the_policy_finds_the_optimum_of_a_bandit():
    assert [bandit(seed) for seed in range(5)] == pytest.approx([BEST] * 5, abs=0.4)


def test_the_scale_of_rewards_does_not_matter():
    assert bandit(0, scale=1e-4) == pytest.approx(bandit(0), abs=1e-6)


def test_shuffled_rewards_do_not_find_it():
    found = [bandit(seed, shuffled=True) for seed in range(10)]
    assert sum(abs(mean - BEST) < 0.4 for mean in found) <= 2
    assert abs(np.mean(found)) < BEST / 2


def test_one_update_by_hand():
    policy = AlphaPolicy(mean=1.0, sigma=0.5, lr=0.1, decay=0.9, draw=2.0)
    assert policy.alpha == pytest.approx(math.exp(1 + 0.5 * 2))
    policy.update(3.0)
    assert (policy.mean, policy.baseline) == (1.0, 3.0)
    policy.update(5.0)  # advantage (5 - 3) / sqrt(4) = 1; gradient of log pi = 2 / 0.5
    assert policy.mean == pytest.approx(1 + 0.1 * 1 * 4)
    assert policy.baseline == pytest.approx(3.2)


def test_the_score_is_free_of_the_losses_scales():
    assert score(0.5, 0.1, 2.0, 0.4, eps=0.05) == pytest.approx(math.log(0.8 * 0.8))
    assert score(50, 100, 200, 400, eps=0.05) == pytest.approx(score(0.5, 0.1, 2.0, 0.4, eps=0.05))
    assert score(9.0, 9.0, 1.0, 1.0, eps=0.05) == pytest.approx(math.log(0.05**2)), "clipped below"


@pytest.mark.parametrize("name", ["cosine_meta_rmu", "multi_layer_probe"])
def test_every_step_logs_alpha_reward_and_baseline(name):
    trainer = tiny_trainer(name, {"policy_lr": 0.2})
    trainer.run()
    assert trainer.log[0]["setup"]["retain_ref"] > 0
    for row in trainer.log[1:]:
        assert {"alpha", "reward", "baseline", "score", "mean_log_alpha"} <= row.keys()
    first, second = trainer.log[1], trainer.log[2]
    assert first["total"] == pytest.approx(first["forget"] + first["alpha"] * first["retain"])
    assert second["baseline"] == first["reward"]


def test_the_reward_is_the_change_of_the_score_over_the_step():
    trainer = tiny_trainer("cosine_meta_rmu")
    trainer.run(until=1)
    row, method, batch = trainer.log[1], trainer.method, trainer.context.batch(0)
    after = {key: loss.item() for key, loss in method.losses(batch).items()}
    frozen = method.forget_loss(trainer.context.frozen_hidden(batch.forget, [7]), batch).item()
    assert frozen == pytest.approx(row["forget"], rel=1e-5), "before the first step the model is the frozen one"
    before = score(row["forget"], row["retain"], frozen, method.retain_ref, 0.05)
    assert row["reward"] == pytest.approx(
        score(after["forget"], after["retain"], frozen, method.retain_ref, 0.05) - before
    )


def test_control_shuffled_rewards_takes_rewards_of_earlier_steps():
    learned, control = (tiny_trainer("cosine_meta_rmu", {"reward": reward}) for reward in ("score", "shuffled"))
    learned.run()
    control.run()
    assert control.log[2]["reward"] == control.log[1]["reward"]
    assert learned.log[-1]["mean_log_alpha"] != control.log[-1]["mean_log_alpha"]


def test_in_training_an_alpha_that_holds_too_hard_falls_and_with_shuffled_rewards_does_not():
    """With alpha at 50 the retain term stops all forgetting; learning must lower it."""

    def drift(reward, seed):
        settings = {"alpha_0": 50, "policy_lr": 0.03, "reward": reward}
        trainer = tiny_trainer("cosine_meta_rmu", settings, seed=seed, steps=100)
        trainer.run()
        return trainer.log[-1]["mean_log_alpha"] - math.log(50)

    assert max(drift("score", seed) for seed in range(2)) < -0.8
    assert min(drift("shuffled", seed) for seed in range(2)) > -0.8


@pytest.mark.parametrize("name", ["cosine_meta_rmu", "multi_layer_probe"])
def test_control_alpha_fixed_at_the_learned_value(name):
    learned = tiny_trainer(name)
    learned.run()
    value = math.exp(learned.log[-1]["mean_log_alpha"])
    fixed = tiny_trainer(name, {"alpha_mode": "fixed", "alpha_0": value})
    fixed.run()
    assert [row["alpha"] for row in fixed.log[1:]] == pytest.approx([value] * 4)
    assert fixed.delta()
