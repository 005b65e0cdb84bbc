"""The bot's own web server, on this machine only: training jobs, and whether the bot is well.

A resource is a module with a `ROUTES` table; `bot.web.front` serves them all. In the sandbox they share the server and
port of its page, on Discord they have a server of their own. `docs/rest.md` is the reference.
"""

from bot.web.front import Front, listening

__all__ = ["Front", "listening"]
