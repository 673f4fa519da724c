"""Transforms make a checkpoint from a checkpoint: training by a method, noise, import, and stress."""
