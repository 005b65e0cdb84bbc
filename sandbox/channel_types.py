"""Discord's types of channels, as far as the sandbox has them."""

TEXT_CHANNEL = 0
DIRECT_CHANNEL = 1
VOICE_CHANNEL = 2
GROUP_CHANNEL = 3
THREAD_CHANNEL = 11
STAGE_CHANNEL = 13
FORUM_CHANNEL = 15

VOICE_TYPES = (VOICE_CHANNEL, STAGE_CHANNEL)
"""Channels with voice, of which the sandbox has the text chat alone."""
GUILD_TYPES = (TEXT_CHANNEL, *VOICE_TYPES, FORUM_CHANNEL)
"""Channels of a guild that are no threads."""
THREAD_PARENT_TYPES = (TEXT_CHANNEL, FORUM_CHANNEL)
WEBHOOK_TYPES = GUILD_TYPES
"""Channels that may have webhooks; a thread uses its parent's."""
