"""What a table claims of its rows: above base, above noise, with intervals that hold for all rows together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .compare import cut, family
from .intervals import Estimate, Side, contrast
from .metrics import Floats


def against(
    rows: Sequence[Floats], others: Sequence[Floats], confidence: float, freedom: float = np.inf
) -> list[list[Estimate]]:
    """Return each row less each other (base, noise), with intervals that hold for all of them at once.

    Args:
        rows, others: a statistic by seed [B + 1, k_i], with the same resamples.
        confidence: that all intervals hold at once.
        freedom: degrees of freedom of the variance over items.
    """
    rivals = [Side.of(other) for other in others]
    contrasts = (contrast([(1.0, row), (-1.0, other)]) for row in map(Side.of, rows) for other in rivals)
    found = iter([cut(each, -1.0, 1.0) for each in family(contrasts, confidence, freedom)])
    return [[next(found) for _ in others] for _ in rows]
