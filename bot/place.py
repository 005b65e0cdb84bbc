"""Where a persona can speak, and how the store calls that place."""

from __future__ import annotations

from dataclasses import dataclass

import discord

GuildChannel = discord.TextChannel | discord.Thread
SpeakChannel = GuildChannel | discord.DMChannel


@dataclass(frozen=True)
class Place:
    """A channel as the store knows it. `guild_id` 0 stands for direct messages; `parent_id` is a thread's channel."""

    guild_id: int
    channel_id: int
    parent_id: int | None = None


def place_of(channel: SpeakChannel) -> Place:
    """The place of a channel, a thread or a talk in direct messages."""
    if isinstance(channel, discord.DMChannel):
        return Place(0, channel.id)
    return Place(channel.guild.id, channel.id, channel.parent_id if isinstance(channel, discord.Thread) else None)


async def channel_at(client: discord.Client, channel_id: int) -> SpeakChannel | None:
    """The channel with this id; None when it is gone or out of reach. Direct messages are not in the cache at first."""
    channel: object = client.get_channel(channel_id)
    if channel is None:
        try:
            channel = await client.fetch_channel(channel_id)
        except (discord.NotFound, discord.Forbidden):
            return None
    return channel if isinstance(channel, SpeakChannel) else None
