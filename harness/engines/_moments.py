"""Mean and variance of the log-probability over the vocabulary. Imports torch alone: vLLM's workers load it too."""

from __future__ import annotations

import torch

MOMENTS = (-1, -2)
"""Tokens that none are: where vLLM gives both moments, in the place of two tokens, they are called so."""
ROWS = 256
"""Positions that are worked on together, so that no second copy of all log-probabilities is made."""


def vocabulary_moments(logprobs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mu = sum p log p and sigma^2 = sum p (log p - mu)^2 of float32 log-probabilities.

    A token of probability 0 adds nothing to either. The variance is that of Min-k++ (Zhang et al. 2024, arXiv
    2404.02936), sum p (log p)^2 - mu^2, without the difference of near numbers.

    Args:
        logprobs: [positions, vocabulary].

    Returns:
        Both, [positions]; NaN where the log-probabilities are.
    """
    parts = [_moments(part) for part in logprobs.split(ROWS)]
    means, variances = zip(*parts, strict=True)
    return torch.cat(means), torch.cat(variances)


def _moments(logprobs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    weights = logprobs.exp()
    known = logprobs.masked_fill(weights == 0, 0.0)
    mean = (weights * known).sum(-1)
    return mean, (weights * (known - mean[:, None]).square()).sum(-1)
