"""How a persona's reply appears: under its own name and face, growing as it is made, with a Stop button.

A persona speaks through one webhook a channel. Where the bot may not manage webhooks it speaks as itself, with the
persona's name in front. Nothing a persona says can mention anyone, unfold a link preview, or carry a link.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import discord

from bot.place import SpeakChannel
from bot.store import Store
from personas.contracts import LoreHit, Persona, Reply
from personas.engine import ReplyStream

log = logging.getLogger(__name__)

LIMIT = 2000
"""Characters in one Discord message."""
ROOM_FOR_FOOTER = 160
BAD_REQUEST = 400
EDIT_EVERY_S = 1.0
PLACEHOLDER = "…"
ENDINGS = {"cancelled": "stopped", "length": "cut off at the length limit"}
LINK = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
NO_MENTIONS = discord.AllowedMentions.none()


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

    def forget(self, channel: SpeakChannel) -> None:
        """The webhook of this channel has gone; the next reply makes another."""
        home_id = channel.parent_id if isinstance(channel, discord.Thread) else channel.id
        self._faces.pop(home_id, None)
        self._store.channels.forget_webhook(home_id)


@dataclass
class LiveReply:
    """One reply from the first word to the last, over as many messages as it needs.

    `parts` are the messages that it fills; at the start those of an earlier attempt, whose text `before` returns when
    this one fails. `on_parts` is told whenever they change. `growing` and `ended` make the buttons.
    """

    voice: Voice
    growing: Callable[[], discord.ui.View]
    ended: Callable[[], discord.ui.View]
    on_parts: Callable[[list[int]], None]
    lore: tuple[LoreHit, ...] = ()
    parts: list[int] = field(default_factory=list)
    before: str = ""
    _text: str = ""
    _done: int = 0  # characters that finished parts show

    async def begin(self) -> None:
        """Show that a reply is coming: in a new message, or in the first of those that are there."""
        if self.parts:
            first, *others = self.parts
            await self.voice.change(first, PLACEHOLDER, self.growing())
            for message_id in others:
                await self.voice.remove(message_id)
            self.parts = [first]
        else:
            self.parts = [await self.voice.say(PLACEHOLDER, self.growing())]
        self.on_parts(self.parts)

    async def follow(self, stream: ReplyStream) -> Reply:
        """Edit the message about once a second until the stream ends. Errors of the stream come out of here."""
        shown_at = asyncio.get_running_loop().time()
        async for piece in stream:
            self._text += piece
            if asyncio.get_running_loop().time() - shown_at >= EDIT_EVERY_S:
                await self._show(self.growing())
                shown_at = asyncio.get_running_loop().time()
        self._text = stream.reply.text
        await self._show(self.ended(), "\n" + footer(stream.reply, self.lore))
        return stream.reply

    async def fail(self, words: str) -> None:
        """End the reply with an apology in place of what did not come."""
        shown = clean(self._text[self._done :]) or clean(self.before)[: LIMIT - len(words) - len("\n-# ")]
        await self.voice.change(self.parts[-1], f"{shown}\n-# {words}".strip(), self.ended())

    async def _show(self, view: discord.ui.View | None, footer: str = "") -> None:
        while len(self._text) - self._done > LIMIT - ROOM_FOR_FOOTER:
            await self._next_part()
        text = clean(self._text[self._done :]) or ("" if footer else PLACEHOLDER)
        await self.voice.change(self.parts[-1], (text + footer).strip(), view)

    async def _next_part(self) -> None:
        cut = self._done + split_at(self._text[self._done :], LIMIT - ROOM_FOR_FOOTER)
        await self.voice.change(self.parts[-1], clean(self._text[self._done : cut]))
        self._done = cut
        self.parts.append(await self.voice.say(PLACEHOLDER, self.growing()))
        self.on_parts(self.parts)


def footer(reply: Reply, lore: tuple[LoreHit, ...]) -> str:
    """The small print under a reply: that it is AI-written, by which version, from which lore."""
    if not reply.text:
        return "-# stopped before it began" if reply.finish == "cancelled" else "-# AI-written · nothing came out"
    parts = ["AI-written", reply.version or "base model"]
    if reply.finish in ENDINGS:
        parts.append(ENDINGS[reply.finish])
    if lore:
        parts.append("lore: " + ", ".join(dict.fromkeys(hit.source for hit in lore)))
    return "-# " + " · ".join(parts)


def clean(text: str) -> str:
    """Text fit to be shown: without links, which nobody allowed this persona to spread."""
    return LINK.sub("(link left out)", text).strip()


def parts_of(text: str, footer: str) -> list[str]:
    """A finished text as messages, the last of them with its footer."""
    parts, left = [], clean(text)
    while len(left) > LIMIT - ROOM_FOR_FOOTER:
        cut = split_at(left, LIMIT - ROOM_FOR_FOOTER)
        parts.append(left[:cut])
        left = left[cut:]
    return [*parts, f"{left}\n{footer}"]


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
