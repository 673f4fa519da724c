"""What `make micro` needs: the invented world, how its model and classifier are trained, and what they are worth."""
