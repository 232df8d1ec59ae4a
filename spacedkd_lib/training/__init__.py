"""The loop, checkpoints, and ways to run it faster."""
