"""Has a member's message answered if it is meant for a persona, once, or says why there is no
answer.
"""

import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import discord
from discord.ext import commands

from bot.chat.delivery import DELIVERY_ERRORS
from bot.chat.message_reader import IncomingMessage, mentions_bot
from bot.chat.message_text import has_words, join_words, raw_text, unread_parts
from bot.chat.places import ChannelCache, SpeakChannel, channel_ref
from bot.chat.proxies import ProxiedMessage, ProxyWatch
from bot.chat.reply import Reply
from bot.platform.discord_kit.transformers import Interaction
from bot.platform.discord_kit.ui import PersistentPersonaSelect, button_view, defer
from bot.platform.errors import RefusedError, error_text
from bot.services import Bot, Services
from bot.store import Channel, StoreError
from personas.errors import EngineBusyError
from personas.schemas.chat import Persona

log = logging.getLogger(__name__)
NO_CONTENT_TEXT = (
    "Discord hides your message from me, since it does not mention me. "
    "Use the button Reply under the message, mention me, or use `/chat`."
)
HIDDEN_QUOTE_TEXT = (
    "Discord hides the message that you replied to from me, since it does not mention me. "
    "Copy its words into yours if they matter."
)
CHOOSE_TEXT = "Whom do you want to talk to?"
NO_PERSONA_TEXTS = (
    "No persona lives here yet.",
    "A moderator can change that with `/persona set`.",
)
USER_TYPES = (discord.MessageType.default, discord.MessageType.reply)
HINT_INTERVAL_S = 600.0
BUSY_NOTICE_INTERVAL_S = 60.0
MENU_INTERVAL_S = 5.0
"""Minimum time between two hints, notices of a full queue, and menus in a channel."""
MAX_ERRORS_PER_MINUTE = 5
MAX_UNREAD_NOTICES_PER_MINUTE = 5
MAX_DELETED = 20_000
"""Number of the latest deleted messages that are remembered: more than events can be held."""


class PersonaSelect(PersistentPersonaSelect, template="choose-persona"):
    """The persona menu of a direct-message channel."""

    async def chosen(self, interaction: Interaction, persona_id: str) -> None:
        services = interaction.client.services
        channel = interaction.channel
        persona = services.personas.get(persona_id, 0)
        if persona is None or not isinstance(channel, discord.DMChannel):
            raise RefusedError(
                "This persona is no longer here.", "Write to me again for a new menu."
            )
        await defer(interaction)
        place = channel_ref(channel)
        setting = Channel(
            guild_id=place.guild_id,
            channel_id=place.channel_id,
            persona_id=persona.id,
            answers="everything",
            set_by=interaction.user.id,
            set_at=time.time(),
        )
        services.store.channels.assign(setting)
        if message := services.unanswered.pop(channel.id, None):
            await services.reply_service.answer(message, persona, channel)
        else:
            await services.reply_service.greet(persona, channel, interaction.user.display_name)


def persona_select_view(services: Services) -> discord.ui.View:
    """Return the menu of the shared personas. Raises `RefusedError` when there are none."""
    personas = services.personas.of(0)
    if not personas:
        raise RefusedError(
            "There are no personas here.", "The operator can add cards to personas/cards."
        )
    return button_view(PersonaSelect.of(personas.values()))


class MessageAnswerer:
    """Answers the messages of the gateway's events.

    It remembers messages that are being answered, and those that were deleted: the edit or deletion
    of a message may come while it is being read, or held until the database can be used.
    """

    def __init__(self, bot: Bot) -> None:
        self.bot = bot
        self.proxies = ProxyWatch()
        self.answering: dict[int, discord.Message | None] = {}
        """By id: the message as it was edited meanwhile."""
        self._deleted: ChannelCache[bool] = ChannelCache(MAX_DELETED)
        self._hints = _per_channel(1, HINT_INTERVAL_S)
        self._menus = _per_channel(1, MENU_INTERVAL_S)
        self._errors = _per_channel(MAX_ERRORS_PER_MINUTE, 60.0)
        self._busy_notices = _per_channel(1, BUSY_NOTICE_INTERVAL_S)
        self._unread_notices = _per_channel(MAX_UNREAD_NOTICES_PER_MINUTE, 60.0)

    async def answer(self, message: discord.Message) -> None:
        """Answer a person's message if it is meant for a persona."""
        channel = message.channel
        if not isinstance(channel, SpeakChannel) or message.type not in USER_TYPES:
            return
        if message.id in self.answering:
            return
        async with self._handling(message):
            events = self.bot.services.reply_service.events
            if not await events.read(lambda: self._is_meant(message, channel)):
                return
            self.proxies.note(message)
            await self.proxies.wait(message)
            incoming = await self.bot.services.message_reader.read(message)
            if go_on := await events.store(lambda: self._accept(message, incoming, channel)):
                await go_on()

    async def answer_copy(self, original: ProxiedMessage) -> None:
        """Answer a proxy's copy of a member's message as that member's, and take back an answer to
        the original.
        """
        message = original.message
        copy = original.copy
        assert copy is not None  # the watch returns no others
        channel = message.channel
        if not isinstance(channel, SpeakChannel) or copy.id in self.answering:
            return
        services = self.bot.services
        events = services.reply_service.events
        self.proxies.note_member(original)
        async with self._handling(copy):
            if reply := await events.read(lambda: services.store.replies.get(message.id)):
                async for _ in services.reply_service.delete([reply], self.bot):
                    log.info("the answer to a message that a proxy has posted again is taken back")
            text = services.message_reader.text(copy)
            incoming = replace(
                await services.message_reader.read(message),
                event_id=copy.id,
                author_name=copy.author.display_name,
                text=text,
            )
            if go_on := await events.store(lambda: self._accept(message, incoming, channel)):
                await go_on()

    @asynccontextmanager
    async def _handling(self, message: discord.Message) -> AsyncIterator[None]:
        """Mark a message as being answered. An error is shown in its channel: an event has no
        caller.
        """
        self.answering[message.id] = None
        try:
            yield
        except StoreError as error:  # it says nothing to members
            log.error("a message in #%s is not answered: %s", message.channel, error)
        except Exception as error:
            if message.id in self._deleted:
                return
            text = error_text(error)
            is_busy = isinstance(error, EngineBusyError)
            notices = self._busy_notices if is_busy else self._errors
            if not notices.update_rate_limit(message):
                await _notify(message.channel, text)
        finally:
            del self.answering[message.id]

    def _accept(
        self, message: discord.Message, incoming: IncomingMessage, channel: SpeakChannel
    ) -> Callable[[], Awaitable[object]] | None:
        """Store a message that is meant for a persona; return how to go on. Raises
        `EngineBusyError`.

        A deletion or edit since its event came, however long that was held, counts.
        """
        edited = self.answering.get(incoming.event_id)
        if incoming.event_id in self._deleted or (edited and not edited.content):
            return None
        if edited:
            incoming = replace(incoming, text=self.bot.services.message_reader.text(edited))
        replied_to = self._replied_to(message)
        persona = replied_to or self.persona_in(channel)
        reply_service = self.bot.services.reply_service
        if persona is None:
            return partial(self._report_no_persona, message, incoming)
        if reply_service.rules.muted(persona, channel_ref(channel)):
            return None
        quoted = None if replied_to else incoming.quoted
        unread = unread_parts(message)
        if not has_words(incoming.text) and (unread or not (quoted and quoted.text)):
            return partial(self._say_unread, message, persona, unread)
        reply = reply_service.accept(incoming, persona, channel)
        if reply is None:
            return None
        if quoted and quoted.text is None:
            return partial(self._answer_beside_hidden, message, reply)
        return reply.answer

    # -------------------------------------- edits and deletions of messages that are not stored yet

    def note_edit(self, message: discord.Message) -> None:
        """Note an edit of a message that is being read, or waits for a persona."""
        if not message.edited_at:  # an embed or a thread came
            return
        if message.id in self.answering:
            self.answering[message.id] = message
        unanswered = self.bot.services.unanswered
        waiting = unanswered.get(message.channel.id)
        if waiting and waiting.event_id == message.id:
            text = self.bot.services.message_reader.text(message)
            unanswered[message.channel.id] = replace(waiting, text=text)

    def note_deletion(self, channel_id: int, message_ids: Collection[int]) -> None:
        """Note deletions at once, before their events are stored."""
        for message_id in message_ids:
            self._deleted[message_id] = True
        unanswered = self.bot.services.unanswered
        waiting = unanswered.get(channel_id)
        if waiting and waiting.event_id in message_ids:
            del unanswered[channel_id]

    # ----------------------------------------------------------------------------------- addressees

    def persona_in(self, channel: SpeakChannel) -> Persona | None:
        """Return the persona of a channel."""
        return self.bot.services.persona_in(channel_ref(channel))

    def _is_meant(self, message: discord.Message, channel: SpeakChannel) -> bool:
        if isinstance(channel, discord.DMChannel):
            return True
        if self._replied_to(message) or mentions_bot(message, self.bot.user):
            return True
        place = channel_ref(channel)
        setting = self.bot.services.store.channels.get(
            place.guild_id, place.channel_id, place.parent_id
        )
        has_content = bool(raw_text(message) or unread_parts(message))
        return setting is not None and setting.answers == "everything" and has_content

    def _replied_to(self, message: discord.Message) -> Persona | None:
        reference = message.reference
        if reference is None or reference.message_id is None:
            return None
        if reference.type is discord.MessageReferenceType.forward:
            return None
        reply = self.bot.services.store.replies.of_message(reference.message_id)
        if reply:
            return self.bot.services.personas.get(reply.persona_id, reply.guild_id)
        return None

    # -------------------------------------------------------------------------------------- notices

    async def _report_no_persona(self, message: discord.Message, incoming: IncomingMessage) -> None:
        channel = message.channel
        if isinstance(channel, discord.DMChannel):
            self.bot.services.unanswered[channel.id] = incoming  # the chosen persona answers it
            if not self._menus.update_rate_limit(message):
                await _notify(channel, CHOOSE_TEXT, persona_select_view(self.bot.services))
        elif not self._errors.update_rate_limit(message):
            await _notify(channel, " ".join(NO_PERSONA_TEXTS))

    async def _answer_beside_hidden(self, message: discord.Message, reply: Reply) -> None:
        """Answer a message, and say that the one that it replies to cannot be read."""
        if not self._hints.update_rate_limit(message):
            await _notify(message.channel, HIDDEN_QUOTE_TEXT)
        await reply.answer()

    async def _say_unread(
        self, message: discord.Message, persona: Persona, unread: list[str]
    ) -> None:
        """Say why a message is not answered: it has no text, or Discord hides it."""
        is_mentioned = mentions_bot(message, self.bot.user)
        if isinstance(message.channel, discord.DMChannel):
            is_mentioned = True
        is_direct = is_mentioned or self._replied_to(message) is not None
        notices = self._unread_notices if is_mentioned else self._hints
        if unread:
            parts = join_words(unread)
            what = f"{parts[0].upper()}{parts[1:]} cannot be read here"
            text = f"{what}: {persona.name} reads text only. Say it in words."
            if is_direct:
                notices = self._unread_notices
        elif is_mentioned:
            text = (
                f"Your message has no text that {persona.name} could answer: write some beside the "
                "mention."
            )
        else:
            text = NO_CONTENT_TEXT
        if not notices.update_rate_limit(message):
            await _notify(message.channel, text)


async def _notify(
    channel: discord.abc.Messageable, text: str, view: discord.ui.View | None = None
) -> None:
    """Send a notice, once: nobody needs to read that it could not be sent, or perhaps was."""
    # discord.py repeats a request that failed; Discord ignores a repeated nonce.
    nonce = secrets.token_hex(8)
    try:
        await channel.send(text, view=view or discord.utils.MISSING, nonce=nonce)
    except DELIVERY_ERRORS as error:
        log.warning("could not tell #%s (%s): %s", channel, error, text)


def _per_channel(count: int, seconds: float) -> commands.CooldownMapping[discord.Message]:
    """Allow so many messages in a channel and time; its entry expires after that time."""
    return commands.CooldownMapping.from_cooldown(count, seconds, commands.BucketType.channel)
