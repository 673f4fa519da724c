"""Scorers: judges (classifiers) of texts, by kind."""
