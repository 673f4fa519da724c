"""Gradient ascent: the forget text is made less likely, without a bound and without a retain term.

    L = mean over tokens of the forget text of log p(x_t | x_<t)

Jang et al. 2022 (arXiv 2210.01504). Reading: the mean over all tokens of a batch that count (of a question and its
answer the answer's), as the usual language modelling loss, of which this is the negative. It has no minimum: learning
rate and steps decide where it ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from ..harness.records import LogRole
from .base import Batch, register
from .likelihood import LikelihoodMethod, LikelihoodSettings, nll


@register("grad_ascent")
class GradAscent(LikelihoodMethod):
    """Raise the loss of the forget text."""

    Settings = LikelihoodSettings
    version = 1
    citation = "Jang et al. 2022, Knowledge Unlearning for Mitigating Privacy Risks (arXiv 2210.01504)"
    summary = "gradient ascent on the forget text's likelihood loss"
    status = "faithful"
    log_schema: ClassVar[Mapping[str, LogRole]] = {"forget": "log_likelihood"}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the negative of the forget text's mean NLL."""
        return {"forget": -nll(self.context, batch.forget)}
