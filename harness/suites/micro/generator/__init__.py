"""What `make micro` needs: the invented world, how its model and judge are trained, and what they are worth."""
