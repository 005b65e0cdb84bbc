"""Running the bot: backup, doctor, metrics and state."""
