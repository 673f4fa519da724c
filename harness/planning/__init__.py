"""From a request to a plan: variants, sweeps, baselines (nulls), attacks (stress), scorers, cost, status of cells."""

from .request import Request

__all__ = ["Request"]
