"""Keeping a store: verify, merge, garbage collection, export to a model folder; and a doctor for the machine."""
