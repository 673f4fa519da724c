"""Unlearning methods: one file each; shared mathematics beside them."""
