"""Alpha of L_F + alpha * L_R, learned by REINFORCE while the model trains (arXiv 2605.26454; learning rate 1e-2).

The paper gives no policy, reward or baseline. Readings taken here:

- *Policy*: log alpha ~ N(mean, sigma^2), sigma fixed, one draw a step; d log pi / d mean = (log alpha - mean)/sigma^2.
- *Reward*: the change over the optimiser step, on the same batch, of log((eps + p_F)(eps + p_R)). p_F = 1 - L_F / L_F0
  is the part of the way from the frozen model's forget loss on this batch to zero, p_R = 1 - L_R / L_Rref what is left
  before the retain loss of a destroyed representation (frozen activations of retain text, permuted over its tokens; a
  mean over a few batches). Both are clipped to [0, 1] and free of the losses' scales. A reward -(L_F + alpha L_R) could
  only lower alpha, because L_R >= 0. It looks one step ahead: where alpha is so small that L_R hardly moves the
  weights, the reward hardly says anything about alpha, and the mean wanders.
- *Baseline*: moving average of the reward. The advantage is divided by a moving root mean square of itself, so that a
  step of the mean has the size lr / sigma whatever the reward's scale: this is what gives the learning rate a meaning.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from ..harness.records import LogRole
from .base import Batch, Context, Method, MethodSettings
from .representation import permute_tokens

HISTORY = 256  # rewards kept for the control with shuffled rewards


class AlphaSettings(MethodSettings):
    """How alpha is found. The paper's ablation without learning is `alpha_mode: fixed`."""

    alpha_mode: Literal["learned", "fixed"] = Field("learned", description="fixed: alpha stays alpha_0 (ablation)")
    alpha_0: float = Field(1.0, gt=0, description="alpha at the start, or for good; the paper gives none")
    sigma: float = Field(0.5, gt=0, description="standard deviation of log alpha")
    policy_lr: float = Field(1e-2, gt=0, description="the paper's learning rate of REINFORCE")
    baseline_decay: float = Field(0.9, ge=0, lt=1, description="of the moving average of rewards")
    eps: float = Field(0.05, gt=0, description="keeps the logarithm of the score finite")
    reward: Literal["score", "shuffled"] = Field("score", description="shuffled: a control, rewards of earlier steps")
    reference_batches: int = Field(4, ge=1, description="batches that measure L_Rref")


@dataclass
class AlphaPolicy:
    """A Gaussian policy over log alpha, improved by REINFORCE.

    Attributes:
        mean: mean of log alpha.
        draw: the standard normal draw behind the current alpha (0 without learning).
        baseline: moving average of the rewards.
        spread: moving average of the squared difference between reward and baseline.
        count: rewards seen.
    """

    mean: float
    sigma: float
    lr: float
    decay: float
    draw: float = 0.0
    baseline: float = 0.0
    spread: float = 0.0
    count: int = 0

    @property
    def alpha(self) -> float:
        """The current draw of alpha."""
        return math.exp(self.mean + self.sigma * self.draw)

    def sample(self, rng: np.random.Generator) -> None:
        """Draw the next alpha."""
        self.draw = float(rng.standard_normal())

    def update(self, reward: float) -> None:
        """Move the mean along advantage * d log pi / d mean; the first reward only sets the baseline."""
        if self.count == 0:
            self.baseline = reward
        else:
            difference = reward - self.baseline
            self.spread = self.decay * self.spread + (1 - self.decay) * difference**2
            scale = math.sqrt(self.spread / (1 - self.decay**self.count))
            advantage = difference / scale if scale > 0 else 0.0
            self.mean += self.lr * advantage * self.draw / self.sigma
            self.baseline = self.decay * self.baseline + (1 - self.decay) * reward
        self.count += 1


def score(forget: float, retain: float, forget_0: float, retain_ref: float, eps: float) -> float:
    """Return log((eps + p_F)(eps + p_R)) of a pair of losses; see the head of this file."""
    forgotten = float(np.clip(1 - forget / forget_0, 0, 1)) if forget_0 > 0 else 0.0
    kept = float(np.clip(1 - retain / retain_ref, 0, 1)) if retain_ref > 0 else 0.0
    return math.log((eps + forgotten) * (eps + kept))


class AlphaMethod(Method):
    """A method of two losses of hidden states that minimises L_F + alpha * L_R, alpha learned or fixed.

    Its settings derive from `AlphaSettings`. A subclass gives the losses; its `setup` prepares them, then calls
    `start_alpha`.
    """

    log_schema: ClassVar[Mapping[str, LogRole]] = {
        "mean_log_alpha": "log_weight",
        "reward": "other",
        "baseline": "other",
        "score": "other",
    }
    policy: AlphaPolicy
    retain_ref: float | None

    @abstractmethod
    def watched(self, context: Context) -> list[int]:
        """Return the layers whose hidden states the losses read."""

    @abstractmethod
    def forget_loss(self, h: Mapping[int, Tensor], batch: Batch) -> Tensor:
        """Return L_F of the forget text's hidden states, by layer."""

    @abstractmethod
    def retain_loss(self, h: Mapping[int, Tensor], frozen: Mapping[int, Tensor], mask: Tensor) -> Tensor:
        """Return L_R of the retain text's hidden states against the frozen model's, by layer."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return L_F and L_R of a batch."""
        layers = self.watched(self.context)
        h_f = self.context.hidden(batch.forget, layers)
        h_r = self.context.hidden(batch.retain, layers)
        frozen = self.context.frozen_hidden(batch.retain, layers)
        return {"forget": self.forget_loss(h_f, batch), "retain": self.retain_loss(h_r, frozen, batch.retain.mask)}

    def combine(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return L_F + alpha * L_R."""
        return losses["forget"] + self.policy.alpha * losses["retain"]

    def start_alpha(self, context: Context) -> None:
        """Start the policy; where alpha is learned, measure L_Rref on the frozen model and draw the first alpha."""
        options: AlphaSettings = self.settings
        self.policy = AlphaPolicy(math.log(options.alpha_0), options.sigma, options.policy_lr, options.baseline_decay)
        self.retain_ref = None
        self._rewards: list[float] = []
        if options.alpha_mode == "learned":
            batches = [context.batch(step) for step in range(options.reference_batches)]
            self.retain_ref = float(np.mean([self._destroyed(batch).item() for batch in batches]))
            self.policy.sample(context.rng)

    def after_step(self, batch: Batch, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """Reward the alpha of this step, update the policy, draw the next alpha."""
        row = {"alpha": self.policy.alpha}
        if self.retain_ref is None:
            return {**row, "mean_log_alpha": self.policy.mean}
        after = self.losses(batch)
        forget_0 = self.forget_loss(self.context.frozen_hidden(batch.forget, self.watched(self.context)), batch)
        scores = [
            score(pair["forget"].item(), pair["retain"].item(), forget_0.item(), self.retain_ref, self.settings.eps)
            for pair in (losses, after)
        ]
        reward = scores[1] - scores[0]
        earlier, self._rewards = self._rewards, [*self._rewards[1 - HISTORY :], reward]
        if self.settings.reward == "shuffled" and earlier:
            reward = earlier[int(self.context.rng.integers(len(earlier)))]
        row |= {"reward": reward, "baseline": self.policy.baseline, "score": scores[1]}
        self.policy.update(reward)
        self.policy.sample(self.context.rng)
        return {**row, "mean_log_alpha": self.policy.mean}

    def log_setup(self) -> dict[str, Any]:
        """Return the retain loss of a destroyed representation, which scales the reward."""
        return {"retain_ref": self.retain_ref}

    def state_dict(self) -> dict[str, Any]:
        """Return the policy and the rewards so far."""
        return {"policy": vars(self.policy).copy(), "rewards": list(self._rewards)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the policy and the rewards back."""
        self.policy = AlphaPolicy(**state["policy"])
        self._rewards = list(state["rewards"])

    def _destroyed(self, batch: Batch) -> Tensor:
        frozen = self.context.frozen_hidden(batch.retain, self.watched(self.context))
        mask = batch.retain.mask
        permuted = {layer: permute_tokens(h, mask, self.context.rng) for layer, h in frozen.items()}
        return self.retain_loss(permuted, frozen, mask)
