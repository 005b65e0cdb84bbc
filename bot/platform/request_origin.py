"""Where a change was requested, and by whom."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RequestOrigin:
    """Guild, channel and author of a request."""

    guild_id: int
    channel_id: int
    user_id: int


OPERATOR_ORIGIN = RequestOrigin(guild_id=0, channel_id=0, user_id=0)
"""Origin of what the operator does on the dashboard or over the API, and of what the bot does by
itself.
"""
