"""Data sets, and batches as a pure function of seed and number."""
