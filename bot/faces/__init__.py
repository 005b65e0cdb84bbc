"""The bot's own face in a server: the name and picture of one persona, which then speaks as the bot."""
