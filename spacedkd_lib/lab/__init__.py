"""What is compared: profiles, arms, tuning and claims. No torch here."""
