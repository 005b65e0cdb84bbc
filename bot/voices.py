"""Whose name and face a persona's words appear under.

A persona speaks through one webhook a channel. Where the bot may not manage webhooks, and in direct messages, it speaks
as itself, with the persona's name in front. Nothing that is said can mention anyone or unfold a link preview.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import discord

from bot.place import SpeakChannel
from bot.store import Store
from personas.contracts import Persona

log = logging.getLogger(__name__)

NO_MENTIONS = discord.AllowedMentions.none()
BAD_REQUEST = 400


class Voice(Protocol):
    """Where a persona's words go in one channel."""

    @property
    def persona(self) -> Persona:
        """Who speaks."""
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
class WebhookVoice:
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
class OwnVoice:
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


class Voices:
    """Finds or makes the voice of a persona in a channel, and remembers webhooks in the store."""

    def __init__(self, client: discord.Client, store: Store) -> None:
        self._client, self._store = client, store
        self._faces: dict[int, Path | None] = {}  # channel id → the picture that its webhook wears
        self._locks: dict[int, asyncio.Lock] = {}

    async def of(self, persona: Persona, channel: SpeakChannel) -> Voice:
        """The persona's voice; `OwnVoice` when the bot may not manage webhooks here."""
        home = channel.parent if isinstance(channel, discord.Thread) else channel
        if not isinstance(home, discord.TextChannel):
            return OwnVoice(channel, persona)
        async with self._locks.setdefault(home.id, asyncio.Lock()):
            try:
                webhook = await self._webhook(persona, home)
            except discord.Forbidden:
                return OwnVoice(channel, persona)
        assert not isinstance(channel, discord.DMChannel)  # it is `home` or a thread of it
        return WebhookVoice(webhook, persona, channel)

    async def _webhook(self, persona: Persona, channel: discord.TextChannel) -> discord.Webhook:
        if known := self._store.channels.webhook(channel.id):
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
                await webhook.edit(avatar=_face(persona), prefer_auth=False)
            except discord.HTTPException as error:
                if error.status != BAD_REQUEST:
                    raise
                log.warning("%s speaks without a face: Discord does not take the picture (%s)", persona.name, error)
                await webhook.edit(avatar=None, prefer_auth=False)
            self._faces[channel_id] = persona.avatar

    async def renewed(self, voice: Voice, channel: SpeakChannel) -> Voice:
        """A voice in place of one whose webhook has gone; several replies may ask for it at once."""
        home_id = channel.parent_id if isinstance(channel, discord.Thread) else channel.id
        known = self._store.channels.webhook(home_id or 0)
        if isinstance(voice, WebhookVoice) and known and known[0] == voice.webhook.id:
            self.forget(channel)
        return await self.of(voice.persona, channel)

    def forget(self, channel: SpeakChannel) -> None:
        """The webhook of this channel has gone; the next reply makes another."""
        home_id = channel.parent_id if isinstance(channel, discord.Thread) else channel.id
        self._faces.pop(home_id, None)
        self._store.channels.forget_webhook(home_id)


def _face(persona: Persona) -> bytes | None:
    return persona.avatar.read_bytes() if persona.avatar and persona.avatar.is_file() else None
