"""The store: finished things by id and manifest; files, resume of partial results, deltas (changed weights), locks."""
