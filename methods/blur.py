"""BLUR: bi-level unlearning, forgetting before retaining (Reisizadeh et al. 2025, arXiv 2506.08164).

    lower level   g_F = gradient of L_F, the forget loss: NPO's, or gradient ascent's
    upper level   g_R = gradient of L_R, the mean NLL of retain text
    the step goes along   gamma * g_F + g_R - (<g_R, g_F> / ||g_F||^2) g_F

What the retain gradient has along the forget gradient is taken out of it, so that holding the retain text neither
undoes the forgetting nor does any of it; gamma sets how fast to forget. One inner product over all trained parameters
together, taken out whatever its sign, and nothing is normalised, as in the authors' code; gamma = 1 is theirs for MUSE.

Readings: the gradients are projected before the optimiser, so with Adam the step itself is only about orthogonal. L_F
is NPO's of whole texts, or answers, with its paper's beta (their code for MUSE applies the formula logit by logit). For
WMDP they use RMU's two losses in the place of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..harness.records import LogRole
from .base import Batch, Context, Depth, Gradients, Range, register
from .likelihood import LikelihoodMethod, LikelihoodSettings, nll
from .preference import negative_preference


class BLURSettings(LikelihoodSettings):
    """Settings of BLUR."""

    forget: Literal["npo", "grad_ascent"] = Field("npo", description="the forget loss")
    beta: float = Field(0.1, gt=0, description="inverse temperature of NPO")
    gamma: float = Field(1.0, gt=0, description="weight of the forget gradient")


@register("blur")
class BLUR(LikelihoodMethod):
    """Descend the forget loss, and the retain loss only where it does not oppose it."""

    Settings = BLURSettings
    version = 2
    citation = "Reisizadeh et al. 2025, BLUR: A Bi-Level Optimization Approach for LLM Unlearning (arXiv 2506.08164)"
    summary = "bi-level: the retain gradient is projected off the forget gradient"
    family = "preference"
    status = "reading"
    log_schema: ClassVar[Mapping[str, LogRole]] = {"forget": "log_likelihood"}
    """Gradient ascent's; NPO's is never negative."""
    search: ClassVar[Mapping[str, Range | Depth]] = {"gamma": Range(0.1, 10.0), "beta": Range(0.01, 1.0)}
    settings: BLURSettings

    def setup(self, context: Context) -> None:
        """Nothing was projected yet."""
        self.along = 0.0

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return L_F and L_R."""
        s, text = self.settings, batch.forget
        forget = negative_preference(self.context, text, s.beta) if s.forget == "npo" else -nll(self.context, text)
        return {"forget": forget, "retain": nll(self.context, batch.retain)}

    def units(self, batch: Batch) -> Mapping[str, Tensor | int]:
        """Return over what the losses are means: NPO's over texts."""
        own = {"forget": len(batch.forget.ids)} if self.settings.forget == "npo" else {}
        return {**super().units(batch), **own}

    def combine_gradients(self, gradients: Mapping[str, Gradients]) -> Gradients:
        """Return gamma g_F plus what of g_R is orthogonal to g_F."""
        forget, retain = gradients["forget"], gradients["retain"]
        along = (inner(retain, forget) / inner(forget, forget).clamp(min=1e-30)).item()
        self.along = along
        return {name: retain[name] + (self.settings.gamma - along) * forget[name] for name in forget}

    def after_step(self, batch: Batch, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """Log what share of the forget gradient the retain gradient had along it: negative where they conflict."""
        return {"retain_along_forget": self.along}


def inner(one: Gradients, other: Gradients) -> Tensor:
    """Return the inner product over all parameters, float32."""
    return torch.stack([torch.sum(one[name].float() * other[name].float()) for name in one]).sum()
