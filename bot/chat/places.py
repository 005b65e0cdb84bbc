"""Channels in which a persona can speak, and their ids in the store."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import TypeVar

import discord

from bot.platform.permissions import VoiceChannel
from bot.store import AnswerMode

GuildChannel = discord.TextChannel | VoiceChannel | discord.Thread
"""A server's channels with messages; the posts of a forum are threads."""
SpeakChannel = GuildChannel | discord.DMChannel
WebhookChannel = discord.TextChannel | VoiceChannel | discord.ForumChannel
"""Channels that have webhooks, which also speak in their threads."""
SPEAK_PLACES = "text channels, the chats of voice channels, threads and posts of forums"
"""Where personas speak in a server, for the errors about other channels."""
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


def may_read(channel: GuildChannel, member: discord.Member) -> bool:
    """Report whether a member has access to the messages of a channel; to those of a voice channel,
    only who may join it has.
    """
    allowed = channel.permissions_for(member)
    if isinstance(channel, VoiceChannel) and not allowed.connect:
        return False
    return allowed.view_channel and allowed.read_message_history


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
