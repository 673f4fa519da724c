"""Task vector: what fine-tuning on the forget text adds is taken away (Ilharco et al. 2022, arXiv 2212.04089).

    L       = mean over tokens of the forget text of -log p(x_t | x_<t), minimised: theta_0 becomes theta_F
    theta   = theta_0 - a (theta_F - theta_0)

A baseline of unlearning in MUSE (Shi et al. 2024, arXiv 2407.06460); a = 1 is its code's default, its scripts take 5.

Readings: the mean is over the tokens that count, of a question and its answer the answer's; all parameters train, or a
LoRA. What a model knows already moves little or at random: a is to be searched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from .base import Depth, Range, register
from .likelihood import LanguageModelling, LikelihoodSettings


class TaskVectorSettings(LikelihoodSettings):
    """Settings of the task vector."""

    scale: float = Field(1.0, gt=0, description="a, how far to go the other way")


@register("task_vector")
class TaskVector(LanguageModelling):
    """Learn the forget text, then go the other way."""

    Settings = TaskVectorSettings
    version = 1
    citation = "Ilharco et al. 2022, Editing Models with Task Arithmetic (arXiv 2212.04089); MUSE (arXiv 2407.06460)"
    summary = "fine-tuning on forget text, its change of the weights negated"
    family = "editing"
    status = "faithful"
    search: ClassVar[Mapping[str, Range | Depth]] = {"scale": Range(0.5, 10.0)}
    settings: TaskVectorSettings

    def finish(self, delta: Mapping[str, Tensor], originals: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return -a (theta_F - theta_0)."""
        return {name: -self.settings.scale * change for name, change in delta.items()}
