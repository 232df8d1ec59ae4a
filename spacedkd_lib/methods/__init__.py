"""Methods, one a file, and losses: the updates of teacher and student."""
