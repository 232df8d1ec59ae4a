"""Tables and figures from records. No torch here."""
