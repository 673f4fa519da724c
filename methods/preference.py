"""Preference methods: what they share, d(x) = log(pi(x) / pi_frozen(x)), summed over the tokens of a text that count.

Of a question and its answer the answer's tokens count, as the papers' y given its prompt x; of a document all but the
first. The other answer of a question is `Batch.auxiliary`'s, drawn anew in every epoch; d is 0 of what is cut away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from .base import Batch, Context, Depth, Range, Tokens
from .likelihood import RetainMethod, RetainSettings


class PreferenceSettings(RetainSettings):
    """Settings of a preference method; beta is DPO's and NPO's."""

    beta: float = Field(0.1, gt=0, description="inverse temperature: how soon a text that gave way is left alone")


class PreferenceMethod(RetainMethod):
    """One whose forget loss is a mean over texts of a function of beta d(x); settings: `PreferenceSettings`."""

    family = "preference"
    search: ClassVar[Mapping[str, Range | Depth]] = {**RetainMethod.search, "beta": Range(0.01, 1.0)}

    def units(self, batch: Batch) -> Mapping[str, Tensor | int]:
        """Return over what the losses are means: L_F over texts."""
        return {**super().units(batch), "forget": len(batch.forget.ids)}


def log_ratio(context: Context, tokens: Tokens) -> Tensor:
    """Return d(x) = log(pi(x) / pi_frozen(x)) of each text, (batch,)."""
    return (context.logprobs(tokens) - context.frozen_logprobs(tokens)).sum(1)


def preference(context: Context, preferred: Tokens, rejected: Tokens, beta: float) -> Tensor:
    """Return 2/beta times DPO's loss, mean over pairs of -2/beta log sigmoid(beta (d(preferred) - d(rejected)))."""
    margin = log_ratio(context, preferred) - log_ratio(context, rejected)
    return -2 / beta * F.logsigmoid(beta * margin).mean()


def negative_preference(context: Context, tokens: Tokens, beta: float) -> Tensor:
    """Return NPO's loss, mean over texts of -2/beta log sigmoid(-beta d(x))."""
    return -2 / beta * F.logsigmoid(-beta * log_ratio(context, tokens)).mean()
