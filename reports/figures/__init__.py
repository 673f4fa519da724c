"""Figures: style, trade-off planes, layers, probes, training curves, as SVG."""
