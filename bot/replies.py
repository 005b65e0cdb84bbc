"""How a persona's reply appears: under its own name and face, growing as it is made, with a Stop button.

A persona speaks through one webhook a channel. Where the bot may not manage webhooks it speaks as itself, with the
persona's name in front. Nothing a persona says can mention anyone, unfold a link preview, or carry a link.
"""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass, field
from typing import Protocol

import discord

from bot.store import Store
from personas.contracts import LoreHit, Persona, Reply
from personas.engine import ReplyStream

log = logging.getLogger(__name__)

LIMIT = 2000
"""Characters in one Discord message."""
ROOM_FOR_FOOTER = 160
EDIT_EVERY_S = 1.0
PLACEHOLDER = "…"
LINK = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
NO_MENTIONS = discord.AllowedMentions.none()

SpeakChannel = discord.TextChannel | discord.Thread


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


@dataclass(frozen=True)
class WebhookVoice:
    """Speaks as the persona."""

    webhook: discord.Webhook
    persona: Persona
    thread: discord.Thread | None

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


@dataclass(frozen=True)
class OwnVoice:
    """Speaks as the bot, where webhooks are not allowed."""

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

    def _named(self, text: str) -> str:
        return f"**{self.persona.name}:** {text}"


class Voices:
    """Finds or makes the voice of a persona in a channel, and remembers webhooks in the store."""

    def __init__(self, client: discord.Client, store: Store) -> None:
        self._client, self._store = client, store
        self._faces: dict[int, str] = {}  # channel id → id of the persona whose face its webhook wears
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
        return WebhookVoice(webhook, persona, channel if isinstance(channel, discord.Thread) else None)

    async def _webhook(self, persona: Persona, channel: discord.TextChannel) -> discord.Webhook:
        if known := self._store.channels.webhook(channel.id):
            webhook = discord.Webhook.partial(*known, client=self._client)
            try:
                await self._wear(webhook, persona, channel.id)
            except discord.NotFound:
                log.info("the webhook of #%s was deleted; making another", channel.name)
            else:
                return webhook
        made = await channel.create_webhook(name="Understudy", avatar=_face(persona), reason="a persona's voice")
        assert made.token is not None  # webhooks that a bot creates always carry one
        self._store.channels.set_webhook(channel.guild.id, channel.id, made.id, made.token)
        self._faces[channel.id] = persona.id
        return made

    async def _wear(self, webhook: discord.Webhook, persona: Persona, channel_id: int) -> None:
        """Give the webhook the persona's face: its own picture, so that no public address is needed for one."""
        if self._faces.get(channel_id) != persona.id:
            await webhook.edit(avatar=_face(persona), prefer_auth=False)
            self._faces[channel_id] = persona.id

    def forget(self, channel: SpeakChannel) -> None:
        """The webhook of this channel has gone; the next reply makes another."""
        home_id = channel.parent_id if isinstance(channel, discord.Thread) else channel.id
        self._faces.pop(home_id, None)
        self._store.channels.forget_webhook(home_id)


@dataclass
class LiveReply:
    """One reply from the first word to the last, over as many messages as it needs."""

    voice: Voice
    stop_view: discord.ui.View
    lore: tuple[LoreHit, ...] = ()
    parts: list[int] = field(default_factory=list)
    _text: str = ""
    _done: int = 0  # characters that finished parts show

    async def begin(self, message_id: int | None = None) -> None:
        """Show that a reply is coming: a new message, or one that a crash left unfinished."""
        if message_id is None:
            message_id = await self.voice.say(PLACEHOLDER, self.stop_view)
        else:
            await self.voice.change(message_id, PLACEHOLDER, self.stop_view)
        self.parts.append(message_id)

    async def follow(self, stream: ReplyStream) -> Reply:
        """Edit the message about once a second until the stream ends. Errors of the stream come out of here."""
        shown_at = asyncio.get_running_loop().time()
        async for piece in stream:
            self._text += piece
            if asyncio.get_running_loop().time() - shown_at >= EDIT_EVERY_S:
                await self._show(self.stop_view)
                shown_at = asyncio.get_running_loop().time()
        await self._finish(stream.reply)
        return stream.reply

    async def fail(self, words: str) -> None:
        """End the reply with an apology in place of what did not come."""
        shown = clean(self._text[self._done :])
        await self.voice.change(self.parts[-1], f"{shown}\n-# {words}".strip())

    async def _show(self, view: discord.ui.View | None, footer: str = "") -> None:
        while len(self._text) - self._done > LIMIT - ROOM_FOR_FOOTER:
            await self._next_part()
        text = clean(self._text[self._done :]) or PLACEHOLDER
        await self.voice.change(self.parts[-1], text + footer, view)

    async def _next_part(self) -> None:
        cut = self._done + split_at(self._text[self._done :], LIMIT - ROOM_FOR_FOOTER)
        await self.voice.change(self.parts[-1], clean(self._text[self._done : cut]))
        self._done = cut
        self.parts.append(await self.voice.say(PLACEHOLDER, self.stop_view))

    async def _finish(self, reply: Reply) -> None:
        self._text = reply.text
        await self._show(None, "\n" + footer(reply, self.lore))


def footer(reply: Reply, lore: tuple[LoreHit, ...]) -> str:
    """The small print under a reply: that it is AI-written, by which version, from which lore."""
    parts = ["AI-written", reply.version or "base model"]
    if reply.finish == "cancelled":
        parts.append("stopped")
    if lore:
        parts.append("lore: " + ", ".join(dict.fromkeys(hit.source for hit in lore)))
    return "-# " + " · ".join(parts)


def clean(text: str) -> str:
    """Text fit to be shown: without links, which nobody allowed this persona to spread."""
    return LINK.sub("(link left out)", text).strip()


def split_at(text: str, limit: int) -> int:
    """Where to cut a text that is longer than `limit`: after a paragraph, a sentence, a word, or at the limit."""
    window = text[:limit]
    for mark in ("\n\n", "\n", ". ", "! ", "? ", " "):
        at = window.rfind(mark)
        if at > limit // 2:
            return at + len(mark)
    return limit


def _face(persona: Persona) -> bytes | None:
    return persona.avatar.read_bytes() if persona.avatar and persona.avatar.is_file() else None
