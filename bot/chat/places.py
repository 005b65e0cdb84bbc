"""Channels in which a persona can speak, and their ids in the store."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import TypeVar

import discord

from bot.store import AnswerMode

GuildChannel = discord.TextChannel | discord.Thread
SpeakChannel = GuildChannel | discord.DMChannel
V = TypeVar("V")


@dataclass(frozen=True)
class ChannelRef:
    """A channel as the store knows it. `guild_id` 0 stands for direct messages; `parent_id` is a
    thread's channel.
    """

    guild_id: int
    channel_id: int
    parent_id: int | None = None

    @property
    def home_id(self) -> int:
        """The channel whose webhook speaks here: a thread's parent, else the channel itself."""
        return self.parent_id or self.channel_id


def channel_ref(channel: SpeakChannel) -> ChannelRef:
    """Return the ids of a channel, a thread or a direct-message channel."""
    if isinstance(channel, discord.DMChannel):
        return ChannelRef(0, channel.id)
    if isinstance(channel, discord.Thread):
        return ChannelRef(channel.guild.id, channel.id, channel.parent_id)
    return ChannelRef(channel.guild.id, channel.id)


async def fetch_channel(client: discord.Client, channel_id: int) -> SpeakChannel | None:
    """Return the channel with this id; None when it is gone or out of reach."""
    channel: object = client.get_channel(channel_id)
    if channel is None:  # discord.py caches no direct messages before their first event
        try:
            channel = await client.fetch_channel(channel_id)
        except (discord.NotFound, discord.Forbidden):
            return None
    return channel if isinstance(channel, SpeakChannel) else None


def usual_answers(client: discord.Client) -> AnswerMode:
    """Return which messages a persona answers where nobody has decided it: all that the bot may
    read.
    """
    return "everything" if client.intents.message_content else "mentions"


class ChannelCache(OrderedDict[int, V]):
    """A value for each of the channels that got one most recently."""

    def __init__(self, max_channels: int) -> None:
        super().__init__()
        self._max_channels = max_channels

    def __setitem__(self, channel_id: int, value: V) -> None:
        super().__setitem__(channel_id, value)
        self.move_to_end(channel_id)
        while len(self) > self._max_channels:
            self.popitem(last=False)
