"""Comparison reports from the same rows and records. Free of torch."""
