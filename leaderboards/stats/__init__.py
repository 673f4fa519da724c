"""Statistics on arrays: metrics, bootstrap, confidence intervals, significance, simultaneous comparison and ranks."""
