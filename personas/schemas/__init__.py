"""Types shared by bot and trainer."""
