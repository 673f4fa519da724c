"""Engines run a model: they score choices and generate continuations, batch-invariantly."""
