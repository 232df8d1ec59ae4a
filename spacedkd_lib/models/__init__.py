"""Networks and their scores."""
