"""Tasks and scorers: what a checkpoint is asked, and what its answers mean."""
