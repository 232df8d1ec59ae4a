"""Networks, and how they are scored."""
