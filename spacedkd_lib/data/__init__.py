"""Pictures: data sets, and batches that are a pure function of seed and number."""
