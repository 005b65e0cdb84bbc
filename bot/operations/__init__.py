"""Running the bot: backup, doctor, shards, metrics and state."""
