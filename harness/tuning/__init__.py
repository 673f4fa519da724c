"""Hyperparameter search: a study of trials in a search space, and the suite file that it writes."""
