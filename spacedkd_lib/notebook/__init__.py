"""What notebooks use: a session, the runner, exercises. No torch here."""
