"""The guilds that the bot is in or has left."""
