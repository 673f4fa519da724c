"""AltPO: alternate preference optimisation, another answer preferred to the true one (Mekala et al., arXiv 2409.13474).

    L_F = mean over forget questions q of -(2 / beta) log sigmoid(beta (d(alternate) - d(answer)))
    L   = L_F + lambda * L_R,        d(y) = log(pi(y | q) / pi_frozen(y | q))

The formula is DPO's, as IdkDPO's: what differs is what is preferred, an answer in the domain, of plausible but changed
facts. beta = 0.1 and lambda = 1 are in the authors' grids (beta 0.05 to 0.5, lambda 1 to 5), NLL of retain text too.

Readings: the paper's alternates are five answers a question that the model itself gives at temperature 1 when it is
asked to change the facts. Here they are those of the data: a column `alternate`, of one text or a list of them. One
that equals the true answer has a margin of 0 and no gradient. log pi is the sum over an answer's tokens; the alternate
of a question is drawn anew in every epoch.
"""

from __future__ import annotations

from torch import Tensor

from .base import Batch, register
from .preference import PreferenceMethod, PreferenceSettings, preference


@register("alt_po")
class AltPO(PreferenceMethod):
    """Prefer an alternate answer to the true one, against the frozen model."""

    Settings = PreferenceSettings
    version = 1
    citation = "Mekala et al. 2024, Alternate Preference Optimization for Unlearning (arXiv 2409.13474)"
    summary = "preference optimisation: an alternate answer of the data in place of the true one"
    status = "reading"
    auxiliary = ("alternate",)
    settings: PreferenceSettings

    def forget_loss(self, batch: Batch) -> Tensor:
        """Return L_F."""
        return preference(self.context, batch.auxiliary["alternate"], batch.forget, self.settings.beta)
