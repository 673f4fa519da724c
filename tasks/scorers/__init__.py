"""Judges of texts."""
