"""Reweighting methods: gradient ascent that weighs tokens by their likelihood: forgotten ones are left alone.

    L_F = mean over tokens of the forget text of w_t log p_t,   p_t = p(x_t | x_<t)
    L   = L_F + lambda * L_R

w_t is a number, no gradient goes through it; each method says which. The mean is over the tokens that count: of a
question and its answer the answer's, of a document all but the first.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from .base import Batch, Depth, Range, Tokens
from .likelihood import RetainMethod, RetainSettings, token_mean

SMALLEST = 1e-5
"""What the code of TNPO and WTNPO adds to the denominator: tokens with p^beta far below it are left alone."""


class ReweightingMethod(RetainMethod):
    """One whose forget loss is a weighted mean of log-likelihoods; settings: `RetainSettings`."""

    family = "reweighting"

    @abstractmethod
    def weights(self, p: Tensor, tokens: Tokens) -> Tensor:
        """Return w_t, given the tokens' probabilities without gradients, both (batch, length - 1)."""

    def forget_loss(self, batch: Batch) -> Tensor:
        """Return L_F."""
        tokens = batch.forget
        logprobs = self.context.logprobs(tokens)
        return token_mean(self.weights(logprobs.detach().exp(), tokens) * logprobs, tokens.counted)


class TokenPreferenceSettings(RetainSettings):
    """Settings of TNPO; beta is the authors' code's."""

    beta: float = Field(4.0, gt=0, description="inverse temperature: how sharply likely tokens are told from others")


class TokenPreference(ReweightingMethod):
    """NPO's weight, token by token against the frozen model; settings: `TokenPreferenceSettings`."""

    search: ClassVar[Mapping[str, Range | Depth]] = {**ReweightingMethod.search, "beta": Range(0.5, 8.0)}

    def ratio(self, p: Tensor, tokens: Tokens, power: float) -> Tensor:
        """Return 2 p^power / (p^beta + p_frozen^beta + 1e-5), (batch, length - 1)."""
        beta, frozen = self.settings.beta, self.context.frozen_logprobs(tokens).exp()
        return 2 * p**power / (p**beta + frozen**beta + SMALLEST)
