"""From records to rows: resampling, groups of seeds, components, trade-offs, attacks, warnings, verdicts."""
