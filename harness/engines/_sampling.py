"""Sampling that does not know its batch: the inverse CDF of the nucleus, at keyed noise."""

from __future__ import annotations

import numpy as np
import torch

ROWS_AT_ONCE = 1 << 22
"""Probabilities that are held in float64 at a time (32 MB an array)."""


def sample(logits: torch.Tensor, uniform: torch.Tensor, *, temperature: float, top_p: float) -> torch.Tensor:
    """Draw one token a row by inverse CDF over the nucleus, in the order of token ids.

    The nucleus is the smallest set of most probable tokens with at least `top_p` of the mass; equal probabilities enter
    in the order of their ids (Holtzman et al. 2020, arXiv 1904.09751). Probabilities are float64.

    Args:
        logits: [rows, vocabulary].
        uniform: [rows] numbers in [0, 1); not read where `temperature` is 0, which is argmax.
        temperature: divides the logits.
        top_p: mass of the nucleus.

    Returns:
        Token ids, [rows]; -1 where a row has a NaN or no finite logit.
    """
    broken = ~logits.amax(-1).isfinite()
    if temperature == 0:
        return logits.argmax(-1).masked_fill(broken, -1)
    step = max(1, ROWS_AT_ONCE // logits.shape[-1])
    parts = [
        _inverse_cdf(logits[start : start + step], uniform[start : start + step], temperature, top_p)
        for start in range(0, len(logits), step)
    ]
    return torch.cat(parts).masked_fill(broken, -1)


def nucleus(logits: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """Return the weights of the tokens of the nucleus, not normalised, zero for all others: [rows, vocabulary]."""
    scaled = logits.double() / temperature
    weights = (scaled - scaled.amax(-1, keepdim=True)).exp_()
    if top_p >= 1:
        return weights
    ascending = _sorted(weights)
    mass = ascending.cumsum(-1)
    dropped = torch.searchsorted(mass, (1 - top_p) * mass[:, -1:], right=True).clamp_(max=weights.shape[-1] - 1)
    edge = ascending.gather(-1, dropped)
    tied = (dropped > 0) & (ascending.gather(-1, (dropped - 1).clamp(min=0)) == edge)
    kept = weights.masked_fill(weights < edge, 0)
    if bool(tied.any()):
        at_edge = weights == edge
        allowed = weights.shape[-1] - dropped - (weights > edge).sum(-1, keepdim=True)
        kept = kept.masked_fill(at_edge & (at_edge.cumsum(-1) > allowed), 0)
    return kept


def _sorted(values: torch.Tensor) -> torch.Tensor:
    """Sort ascending along the last axis; numpy's sort is some ten times faster than torch's on a CPU."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy(), axis=-1))
    return values.sort(-1).values


def _inverse_cdf(logits: torch.Tensor, uniform: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    cdf = nucleus(logits, temperature, top_p).cumsum(-1)
    total = cdf[:, -1:]
    target = uniform.double()[:, None] * total
    target = torch.minimum(target, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cdf, target, right=True).squeeze(-1).clamp_(max=logits.shape[-1] - 1)
