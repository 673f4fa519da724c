"""Executors run jobs: in this process or in workers on this machine."""
