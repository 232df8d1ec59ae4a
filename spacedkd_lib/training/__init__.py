"""Training loop, checkpoints, and faster ways to run it."""
