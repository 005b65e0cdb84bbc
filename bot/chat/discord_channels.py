"""Channels a persona can speak in, the policy for speaking there, and the webhooks that give it name and avatar."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import discord

from bot.errors import RefusedError
from bot.permissions import is_moderator
from bot.store import Store, StoredReply
from personas.schemas.chat import Persona

GuildChannel = discord.TextChannel | discord.Thread
SpeakChannel = GuildChannel | discord.DMChannel
log = logging.getLogger(__name__)
NO_MENTIONS = discord.AllowedMentions.none()
BAD_REQUEST_STATUS = 400


@dataclass(frozen=True)
class ChannelRef:
    """A channel as the store knows it. `guild_id` 0 stands for direct messages; `parent_id` is a thread's channel."""

    guild_id: int
    channel_id: int
    parent_id: int | None = None


def channel_ref(channel: SpeakChannel) -> ChannelRef:
    """The place of a channel, a thread or a talk in direct messages."""
    if isinstance(channel, discord.DMChannel):
        return ChannelRef(0, channel.id)
    return ChannelRef(channel.guild.id, channel.id, channel.parent_id if isinstance(channel, discord.Thread) else None)


async def fetch_channel(client: discord.Client, channel_id: int) -> SpeakChannel | None:
    """The channel with this id; None when it is gone or out of reach. Direct messages are not in the cache at first."""
    channel: object = client.get_channel(channel_id)
    if channel is None:
        try:
            channel = await client.fetch_channel(channel_id)
        except (discord.NotFound, discord.Forbidden):
            return None
    return channel if isinstance(channel, SpeakChannel) else None


@dataclass(frozen=True)
class ReplyPolicy:
    """The rules, checked where something is done; hidden buttons and default permissions are a courtesy besides."""

    store: Store

    def require_owner(self, asked_by: int, user: discord.abc.User, what: str) -> None:
        """Refuse whoever neither asked for the reply nor moderates."""
        if user.id != asked_by and not is_moderator(user):
            raise RefusedError(f"Only the one who asked, or a moderator, can {what}.")

    def require_can_write(self, interaction: discord.Interaction[Any]) -> None:
        """Refuse whoever may not write here: what goes through a form or a command stands in the channel, too."""
        may = interaction.permissions
        speaks = may.send_messages_in_threads if isinstance(interaction.channel, discord.Thread) else may.send_messages
        if interaction.guild_id and not speaks:
            raise RefusedError("You may not send messages in this channel.", "A moderator can change that.")

    def require_reply(self, reply: StoredReply | None) -> StoredReply:
        """Refuse where a reply is not, or no longer, known."""
        if reply is None:
            raise RefusedError("This is no reply of a persona, or it is no longer kept.", "Choose another message.")
        return reply

    def require_unmuted(self, persona: Persona, at: ChannelRef) -> None:
        """Refuse where a moderator has silenced the persona."""
        if self.muted(persona, at):
            raise RefusedError(f"A moderator has silenced {persona.name} here.", "`/persona unmute` lifts that.")

    def muted(self, persona: Persona, at: ChannelRef) -> bool:
        """Report whether a moderator has muted the persona in this channel."""
        return self.store.mutes.find_applying(at.guild_id, at.channel_id, at.parent_id, persona.id) is not None


class MessageSender(Protocol):
    """Sender of a persona's messages in one channel."""

    @property
    def persona(self) -> Persona:
        """The persona."""
        ...

    async def say(self, text: str, view: discord.ui.View | None = None) -> int:
        """Send a message and give its id."""
        ...

    async def change(self, message_id: int, text: str, view: discord.ui.View | None = None) -> None:
        """Edit a message; a view of None takes its buttons away."""
        ...

    async def remove(self, message_id: int) -> None:
        """Delete a message; one that is gone already is no error. Raises `discord.Forbidden`."""
        ...


@dataclass(frozen=True)
class WebhookSender:
    """Speaks as the persona."""

    webhook: discord.Webhook
    persona: Persona
    channel: discord.TextChannel | discord.Thread

    @property
    def thread(self) -> discord.Thread | None:
        """The thread that it speaks in, if it is one."""
        return self.channel if isinstance(self.channel, discord.Thread) else None

    async def say(self, text: str, view: discord.ui.View | None = None) -> int:
        message = await self.webhook.send(
            text,
            username=self.persona.name,
            wait=True,
            allowed_mentions=NO_MENTIONS,
            suppress_embeds=True,
            thread=self.thread or discord.utils.MISSING,
            view=view or discord.utils.MISSING,
        )
        return message.id

    async def change(self, message_id: int, text: str, view: discord.ui.View | None = None) -> None:
        await self.webhook.edit_message(
            message_id,
            content=text,
            view=view,
            allowed_mentions=NO_MENTIONS,
            thread=self.thread or discord.utils.MISSING,
        )

    async def remove(self, message_id: int) -> None:
        try:
            await self.webhook.delete_message(message_id, thread=self.thread or discord.utils.MISSING)
        except discord.NotFound:  # gone; or said through a webhook that is gone, which takes Manage Messages
            with suppress(discord.NotFound):
                await self.channel.get_partial_message(message_id).delete()


@dataclass(frozen=True)
class BotSender:
    """Speaks as the bot: in direct messages, and where webhooks are not allowed."""

    channel: SpeakChannel
    persona: Persona

    async def say(self, text: str, view: discord.ui.View | None = None) -> int:
        sent = await self.channel.send(
            self._named(text), allowed_mentions=NO_MENTIONS, suppress_embeds=True, view=view or discord.utils.MISSING
        )
        return sent.id

    async def change(self, message_id: int, text: str, view: discord.ui.View | None = None) -> None:
        message = self.channel.get_partial_message(message_id)
        await message.edit(content=self._named(text), allowed_mentions=NO_MENTIONS, view=view)

    async def remove(self, message_id: int) -> None:
        with suppress(discord.NotFound):
            await self.channel.get_partial_message(message_id).delete()

    def _named(self, text: str) -> str:
        return f"**{self.persona.name}:** {text}"


class SenderRegistry:
    """Finds or makes the voice of a persona in a channel, and remembers webhooks in the store."""

    def __init__(self, client: discord.Client | None, store: Store) -> None:
        self._client, self._store = client, store
        self._faces: dict[int, Path | None] = {}  # channel id → the picture that its webhook wears
        self._locks: dict[int, asyncio.Lock] = {}

    async def of(self, persona: Persona, channel: SpeakChannel) -> MessageSender:
        """The persona's voice; `BotSender` when the bot may not manage webhooks here."""
        home = channel.parent if isinstance(channel, discord.Thread) else channel
        if not isinstance(home, discord.TextChannel):
            return BotSender(channel, persona)
        async with self._locks.setdefault(home.id, asyncio.Lock()):
            try:
                webhook = await self._webhook(persona, home)
            except discord.Forbidden:
                return BotSender(channel, persona)
        assert not isinstance(channel, discord.DMChannel)  # it is `home` or a thread of it
        return WebhookSender(webhook, persona, channel)

    async def _webhook(self, persona: Persona, channel: discord.TextChannel) -> discord.Webhook:
        if known := self._store.channels.webhook(channel.id):
            assert self._client is not None  # channels come from a client
            webhook = discord.Webhook.partial(*known, client=self._client)
            try:
                await self._wear(webhook, persona, channel.id)
            except discord.NotFound:
                log.info("the webhook of #%s was deleted; making another", channel.name)
            else:
                return webhook
        made = await channel.create_webhook(name="Understudy", reason="a persona's voice")
        assert made.token is not None  # webhooks that a bot creates always carry one
        self._store.channels.set_webhook(channel.guild.id, channel.id, made.id, made.token)
        await self._wear(made, persona, channel.id)
        return made

    async def _wear(self, webhook: discord.Webhook, persona: Persona, channel_id: int) -> None:
        """Give the webhook the persona's face: its own picture, so that no public address is needed for one."""
        if channel_id not in self._faces or self._faces[channel_id] != persona.avatar:
            try:
                await webhook.edit(avatar=_avatar(persona), prefer_auth=False)
            except discord.HTTPException as error:
                if error.status != BAD_REQUEST_STATUS:
                    raise
                log.warning("%s speaks without a face: Discord does not take the picture (%s)", persona.name, error)
                await webhook.edit(avatar=None, prefer_auth=False)
            self._faces[channel_id] = persona.avatar

    async def renew(self, voice: MessageSender, channel: SpeakChannel) -> MessageSender:
        """A voice in place of one whose webhook has gone; several replies may ask for it at once."""
        home_id = channel.parent_id if isinstance(channel, discord.Thread) else channel.id
        known = self._store.channels.webhook(home_id or 0)
        if isinstance(voice, WebhookSender) and known and known[0] == voice.webhook.id:
            self.forget(channel)
        return await self.of(voice.persona, channel)

    def forget(self, channel: SpeakChannel) -> None:
        """The webhook of this channel has gone; the next reply makes another."""
        home_id = channel.parent_id if isinstance(channel, discord.Thread) else channel.id
        self._faces.pop(home_id, None)
        self._store.channels.delete_webhook(home_id)


def _avatar(persona: Persona) -> bytes | None:
    return persona.avatar.read_bytes() if persona.avatar and persona.avatar.is_file() else None
