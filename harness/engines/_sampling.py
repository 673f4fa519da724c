"""Sampling that does not know its batch: the inverse CDF of the nucleus, at keyed noise."""

from __future__ import annotations

import numpy as np
import torch

ROWS_AT_ONCE = 1 << 22
"""Probabilities that are held in float64 at a time (32 MB an array)."""
FIRST = 256
"""Most probable tokens among which the nucleus is looked for first; eight times as many where it is not."""


def sample(logits: torch.Tensor, uniform: torch.Tensor, *, temperature: float, top_p: float) -> torch.Tensor:
    """Draw one token a row by inverse CDF over the nucleus, in the order of token ids.

    The nucleus is the smallest set of most probable tokens with at least `top_p` of the mass; equal probabilities enter
    in the order of their ids (Holtzman et al. 2020, arXiv 1904.09751). Probabilities are float64; the mass of
    tokens that are far from the nucleus is added up from float32.

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
    drawn = torch.full_like(broken, -1, dtype=torch.long)
    for rows in (~broken).nonzero().squeeze(-1).split(step):
        drawn[rows] = _drawn(logits[rows], uniform[rows], temperature, top_p, FIRST)
    return drawn


def nucleus(weights: torch.Tensor, top_p: float, rest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keep the weights of the tokens of the nucleus and set all others to zero.

    Args:
        weights: of the most probable tokens in the order of their ids, [rows, tokens], not normalised.
        top_p: mass of the nucleus.
        rest: the sum of the weights of all other tokens, [rows, 1].

    Returns:
        [rows, tokens], and for each row whether the nucleus lies within these tokens whatever the others are.
    """
    ascending = _sorted(weights)
    mass = ascending.cumsum(-1) + rest
    dropped = torch.searchsorted(mass, (1 - top_p) * mass[:, -1:], right=True).clamp_(max=weights.shape[-1] - 1)
    edge = ascending.gather(-1, dropped)
    tied = (dropped > 0) & (ascending.gather(-1, (dropped - 1).clamp(min=0)) == edge)
    kept = weights.masked_fill(weights < edge, 0)
    if bool(tied.any()):
        at_edge = weights == edge
        allowed = weights.shape[-1] - dropped - (weights > edge).sum(-1, keepdim=True)
        kept = kept.masked_fill(at_edge & (at_edge.cumsum(-1) > allowed), 0)
    return kept, (edge > ascending[:, :1]).squeeze(-1)


def _drawn(logits: torch.Tensor, uniform: torch.Tensor, temperature: float, top_p: float, most: int) -> torch.Tensor:
    """Draw from rows whose nucleus is looked for among so many tokens; where it is not, among more, at last all."""
    top = logits.amax(-1, keepdim=True)
    if top_p >= 1 or 2 * most >= logits.shape[-1]:
        weights = _weights(logits, top, temperature)
        kept = weights if top_p >= 1 else nucleus(weights, top_p, torch.zeros_like(weights[:, :1]))[0]
        return _inverse_cdf(kept, uniform)
    tokens = _most_probable(logits, most)
    likely = _weights(logits.gather(-1, tokens), top, temperature)
    total = (logits - top).div_(temperature).exp_().sum(-1, keepdim=True, dtype=torch.float64)
    rest = (total - likely.sum(-1, keepdim=True)).clamp_(min=0)
    kept, whole = nucleus(likely, top_p, rest)
    drawn = tokens.gather(-1, _inverse_cdf(kept, uniform)[:, None]).squeeze(-1)
    wider = (~whole).nonzero().squeeze(-1)
    if len(wider):
        drawn[wider] = _drawn(logits[wider], uniform[wider], temperature, top_p, 8 * most)
    return drawn


def _weights(logits: torch.Tensor, top: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return what logits weigh in float64, 1 for a logit that is `top`."""
    return logits.double().sub_(top.double()).div_(temperature).exp_()


def _most_probable(logits: torch.Tensor, count: int) -> torch.Tensor:
    """Return the tokens with the largest logits, in the order of their ids: [rows, count]."""
    if logits.device.type == "cpu":
        tokens = np.argpartition(logits.numpy(), -count, axis=-1)[:, -count:]
        return torch.from_numpy(np.sort(tokens, axis=-1))
    return logits.topk(count, sorted=False).indices.sort(-1).values


def _sorted(values: torch.Tensor) -> torch.Tensor:
    """Sort ascending along the last axis; numpy's sort is some ten times faster than torch's on a CPU."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy(), axis=-1))
    return values.sort(-1).values


def _inverse_cdf(weights: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Return the index at which the sum of the weights of a row passes its share `uniform` of the whole: [rows]."""
    cdf = weights.cumsum(-1)
    total = cdf[:, -1:]
    target = uniform.double()[:, None] * total
    target = torch.minimum(target, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cdf, target, right=True).squeeze(-1).clamp_(max=weights.shape[-1] - 1)
