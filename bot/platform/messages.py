"""Facts about Discord's messages that every feature needs."""

import discord

MAX_MESSAGE_CHARS = 2000
NO_MENTIONS = discord.AllowedMentions.none()
