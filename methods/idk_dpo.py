"""IdkDPO: direct preference optimisation, a refusal preferred to the true answer (Maini et al. 2024, arXiv 2401.06121).

    L_F = mean over forget questions q of -(2 / beta) log sigmoid(beta (d(refusal) - d(answer)))
    L   = L_F + lambda * L_R,        d(y) = log(pi(y | q) / pi_frozen(y | q))

DPO is Rafailov et al. 2023 (arXiv 2305.18290, eq. 7). The name, the factor 2 / beta, beta = 0.1, lambda = 1 and NLL of
retain text are those of OpenUnlearning's trainer. TOFU takes about a hundred refusals ("I don't know").

Readings: log pi is the sum over an answer's tokens; the refusal of a question is drawn anew in every epoch. pi_frozen
is computed once a text.
"""

from __future__ import annotations

from torch import Tensor

from .base import Batch, register
from .preference import PreferenceMethod, PreferenceSettings, preference


@register("idk_dpo")
class IdkDPO(PreferenceMethod):
    """Prefer a refusal to the answer, against the frozen model."""

    Settings = PreferenceSettings
    version = 1
    citation = "Maini et al. 2024, TOFU (arXiv 2401.06121); Rafailov et al. 2023, DPO (arXiv 2305.18290)"
    summary = "preference optimisation: a refusal in place of the answer"
    status = "faithful"
    auxiliary = ("refusal",)
    settings: PreferenceSettings

    def forget_loss(self, batch: Batch) -> Tensor:
        """Return L_F."""
        return preference(self.context, batch.auxiliary["refusal"], batch.forget, self.settings.beta)
