"""Scorers (classifiers) of texts, by kind."""
