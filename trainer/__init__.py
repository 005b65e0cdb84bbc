"""Turns material into an adapter. A process of its own; never imports `bot`, never opens the bot's database."""
