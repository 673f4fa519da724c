"""NPO: negative preference optimisation (Zhang et al. 2024, arXiv 2404.05868).

    L_F = mean over forget texts x of -(2 / beta) log sigmoid(-beta log(pi(x) / pi_frozen(x)))      (eq. 3)
    L   = L_F + lambda * L_R

log pi(x) is the sum over the text's tokens that count. As beta goes to 0 its gradient is that of gradient ascent; it
fades where a text has become unlikely, at the speed that beta sets. beta = 0.1 and lambda = 1 are the paper's, as are
three forms: NPO+RT (`retain: nll`, the default, its best), NPO+KL (`kl`) and NPO (`none`).

Readings: of a question and its answer the answer's tokens count, as the paper's y given its prompt x; of a document all
do. pi_frozen is computed once a text.
"""

from __future__ import annotations

from torch import Tensor

from .base import Batch, register
from .preference import PreferenceMethod, PreferenceSettings, negative_preference


@register("npo")
class NPO(PreferenceMethod):
    """Make the forget text less likely than the frozen model finds it, ever more gently."""

    Settings = PreferenceSettings
    version = 2
    citation = "Zhang et al. 2024, Negative Preference Optimization (arXiv 2404.05868)"
    summary = "negative preference optimisation of forget text against the frozen model"
    status = "faithful"
    settings: PreferenceSettings

    def forget_loss(self, batch: Batch) -> Tensor:
        """Return L_F (eq. 3)."""
        return negative_preference(self.context, batch.forget, self.settings.beta)
