"""Channels in which a persona can speak, and their ids in the store."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, TypeVar

import discord

from bot.platform.localisation import gettext_lazy
from bot.platform.permissions import VoiceChannel
from bot.store import AnswerMode

GuildChannel = discord.TextChannel | VoiceChannel | discord.Thread
"""A server's channels with messages; the posts of a forum are threads."""
SpeakChannel = GuildChannel | discord.DMChannel
WebhookChannel = discord.TextChannel | VoiceChannel | discord.ForumChannel
"""Channels that have webhooks, which also speak in their threads."""
SPEAK_PLACES = gettext_lazy(
    "text channels, the chats of voice channels, threads and posts of forums"
)
"""Where personas speak in a server, for the errors about other channels."""
V = TypeVar("V")


@dataclass(frozen=True)
class ChannelRef:
    """A channel as the store knows it. `guild_id` 0 stands for direct messages, and for places
    where the bot is not, whose `channel_id` is below 0; `parent_id` is a thread's channel.
    """

    guild_id: int
    channel_id: int
    parent_id: int | None = None

    @property
    def home_id(self) -> int:
        """The channel whose webhook speaks here: a thread's parent, else the channel itself."""
        return self.parent_id or self.channel_id


@dataclass(frozen=True)
class OutsideChannel:
    """A member's conversation in a place where the bot is not: in another server, or in messages
    between people. The member has installed the bot for themself.

    The bot reaches the place through the interactions of its members alone: `webhook` is that of
    one, and sends for 15 minutes. `is_private`: the member alone sees what it sends.
    """

    id: int
    webhook: discord.Webhook
    is_private: bool

    def __str__(self) -> str:
        return "a place where the bot is not"


ReplyChannel = SpeakChannel | OutsideChannel
"""Places of replies."""


def is_outside(interaction: discord.Interaction[Any]) -> bool:
    """Report whether an interaction comes from a place where the bot is not."""
    if interaction.guild_id is None:
        return bool(interaction.context.private_channel)
    return interaction.client.get_guild(interaction.guild_id) is None


def guild_id_of(interaction: discord.Interaction[Any]) -> int:
    """Return the server whose personas and settings an interaction concerns: 0, as in direct
    messages, where the bot is not.
    """
    return 0 if is_outside(interaction) else interaction.guild_id or 0


def outside_channel(interaction: discord.Interaction[Any]) -> OutsideChannel:
    """Return the member's conversation in a place where the bot is not.

    In a server its replies are public where the server lets members use such apps and the member
    may write, and else private, as Discord wants it.
    """
    allowed = interaction.permissions
    can_speak = allowed.send_messages
    if isinstance(interaction.channel, discord.Thread):
        can_speak = allowed.send_messages_in_threads
    is_public = interaction.guild_id is None or (allowed.use_external_apps and can_speak)
    conversation = outside_id(interaction.user.id, interaction.channel_id or 0)
    return OutsideChannel(conversation, interaction.followup, not is_public)


def outside_id(user_id: int, channel_id: int) -> int:
    """Return the id of a member's conversation in a channel where the bot is not: a negative one,
    which Discord gives to no channel. It is a hash: only who knows a channel's id can tell whether it
    is this one.

    Each member has a conversation of their own, because others may not see private replies.
    """
    digest = hashlib.blake2b(f"{user_id}/{channel_id}".encode(), digest_size=8).digest()
    return -1 - (int.from_bytes(digest) >> 2)


def reply_channel(interaction: discord.Interaction[Any]) -> ReplyChannel | None:
    """Return the place of an interaction where personas reply; None elsewhere."""
    if is_outside(interaction):
        return outside_channel(interaction)
    channel = interaction.channel
    return channel if isinstance(channel, SpeakChannel) else None


def channel_ref(channel: ReplyChannel) -> ChannelRef:
    """Return the ids of a channel, a thread, a direct-message channel, or a conversation where the
    bot is not.
    """
    if isinstance(channel, discord.DMChannel | OutsideChannel):
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


def may_see(channel: object, member: discord.Member) -> bool:
    """Report whether a member sees a channel with messages of their server; of private threads, only
    who may manage them sees all.
    """
    if not isinstance(channel, GuildChannel) or channel.guild.id != member.guild.id:
        return False
    try:
        allowed = channel.permissions_for(member)
    except discord.ClientException:  # a thread whose channel is gone
        return False
    if isinstance(channel, discord.Thread) and channel.is_private():
        return allowed.view_channel and allowed.manage_threads
    return allowed.view_channel


async def fetch_channel(client: discord.Client, channel_id: int) -> SpeakChannel | None:
    """Return the channel with this id; None when it is gone or out of reach."""
    try:
        return await find_channel(client, channel_id)
    except discord.Forbidden:
        return None


async def find_channel(client: discord.Client, channel_id: int) -> SpeakChannel | None:
    """Return the channel with this id; None when it is gone. Raises `discord.Forbidden` where the
    bot may not see it.
    """
    if channel_id < 0:  # a conversation where the bot is not (`OutsideChannel`)
        return None
    channel: object = client.get_channel(channel_id)
    if channel is None:  # discord.py caches no direct messages before their first event
        try:
            channel = await client.fetch_channel(channel_id)
        except discord.NotFound:
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
