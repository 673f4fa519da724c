"""From a request to a plan: variants and sweeps, baselines (nulls), attacks (stress), scorers, cost, the status of cells."""
