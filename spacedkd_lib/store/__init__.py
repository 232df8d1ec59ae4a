"""Files: records, clean stops, and the caps that make bits repeat. No torch here."""
