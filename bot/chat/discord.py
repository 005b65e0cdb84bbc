"""Receives messages to a persona: `/chat`, mentions, replies, and direct messages with a persona
select.
"""

import datetime
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import replace
from functools import partial

import discord
from discord import app_commands
from discord.ext import commands

from bot.chat.delivery import DELIVERY_ERRORS
from bot.chat.discord_buttons import MAX_QUESTION_CHARS, ask_publicly
from bot.chat.discord_missed import MAX_MISSED_AGE, answer_missed
from bot.chat.memory_text import edit_memory_copies
from bot.chat.message_reader import IncomingMessage
from bot.chat.message_text import has_words, join_words, raw_text, unread_parts
from bot.chat.places import ChannelCache, SpeakChannel, channel_ref
from bot.chat.proxies import ProxiedMessage, ProxyWatch
from bot.chat.reply import Reply
from bot.memory.discord import own_words
from bot.platform.discord_kit.transformers import Interaction
from bot.platform.discord_kit.ui import (
    PersistentPersonaSelect,
    button_view,
    defer,
    respond,
    respond_privately,
)
from bot.platform.errors import RefusedError, error_text
from bot.privacy.home_files import discard_pending_history_folders
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
USER_TYPES = (discord.MessageType.default, discord.MessageType.reply)
HINT_INTERVAL_S, BUSY_NOTICE_INTERVAL_S, MENU_INTERVAL_S = 600.0, 60.0, 5.0
"""Minimum time between two such hints, notices of a full queue, and menus in a channel."""
MAX_ERRORS_PER_MINUTE = MAX_UNREAD_NOTICES_PER_MINUTE = 5
MAX_DELETED = 20_000
"""Number of the latest deleted messages that are remembered: more than events can be held."""
CHOOSE_TEXT = "Whom do you want to talk to?"
NO_PERSONA_TEXTS = "No persona lives here yet.", "A moderator can change that with `/persona set`."


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
            place.guild_id,
            place.channel_id,
            persona.id,
            "everything",
            interaction.user.id,
            time.time(),
        )
        services.store.channels.assign(setting)
        if message := services.unanswered.pop(channel.id, None):
            await services.reply_service.answer(message, persona, channel)
        else:
            await services.reply_service.greet(persona, channel, interaction.user.display_name)


def persona_select_view(services: Services) -> discord.ui.View:
    """The menu of the shared personas. Raises `RefusedError` when there are none."""
    personas = services.personas.of(0)
    if not personas:
        raise RefusedError(
            "There are no personas here.", "The operator can add cards to personas/cards."
        )
    return button_view(PersonaSelect.of(personas.values()))


class ChatCog(commands.Cog):
    """Has messages to personas answered, and keeps the message history in step with Discord."""

    def __init__(self, bot: Bot) -> None:
        self.bot = bot
        self._hints = _per_channel(1, HINT_INTERVAL_S)
        self._busy_notices = _per_channel(1, BUSY_NOTICE_INTERVAL_S)
        self._menus = _per_channel(1, MENU_INTERVAL_S)
        self._errors = _per_channel(MAX_ERRORS_PER_MINUTE, 60.0)
        self._unread_notices = _per_channel(MAX_UNREAD_NOTICES_PER_MINUTE, 60.0)
        self._proxies = ProxyWatch()
        self._answering: dict[
            int, discord.Message | None
        ] = {}  # by id: the message as it was edited meanwhile
        self._deleted: ChannelCache[bool] = ChannelCache(MAX_DELETED)
        self._lost_at: datetime.datetime | None = None
        self._delete = app_commands.ContextMenu(
            name="Delete this reply", callback=self.delete_reply
        )

    async def cog_load(self) -> None:
        self.bot.tree.add_command(self._delete)
        events = self.bot.services.reply_service.events
        self.bot.services.background.append(events.task)
        events.task.start()

    async def cog_unload(self) -> None:
        self.bot.tree.remove_command(self._delete.name, type=self._delete.type)
        events = self.bot.services.reply_service.events
        await events.task.stop()
        try:
            await events.store_held()
        except (StoreError, OSError) as error:
            log.error(
                "%d messages, edits and deletions could not be stored: %s", len(events), error
            )

    @app_commands.command(description="Say something to this channel's persona.")
    @app_commands.describe(message="What you want to say")
    @app_commands.allowed_contexts(guilds=True, dms=True)
    async def chat(
        self, interaction: Interaction, message: app_commands.Range[str, 1, MAX_QUESTION_CHARS]
    ) -> None:
        channel = interaction.channel
        if not isinstance(channel, SpeakChannel):
            raise RefusedError(
                "Personas speak in text channels, threads and direct messages.", "Try it there."
            )
        persona = self._persona(channel)
        if persona is None and isinstance(channel, discord.DMChannel):
            await respond(
                interaction, CHOOSE_TEXT, persona_select_view(self.bot.services), ephemeral=False
            )
            return
        if persona is None:
            raise RefusedError(*NO_PERSONA_TEXTS)
        await ask_publicly(interaction, persona, channel, message)

    async def delete_reply(self, interaction: Interaction, message: discord.Message) -> None:
        """The command in a message's menu: delete a persona's reply, for its author or a
        moderator.
        """
        reply_service = self.bot.services.reply_service
        reply = reply_service.rules.require_reply(
            self.bot.services.store.replies.of_message(message.id)
        )
        reply_service.rules.require_owner(reply.asked_by, interaction.user, "delete this reply")
        await defer(interaction, ephemeral=True)
        async for is_deleted in reply_service.delete([reply], self.bot):
            text = (
                "Deleted."
                if is_deleted
                else "I lack the permission Manage Messages to delete that."
            )
            await respond_privately(interaction, text)

    @commands.Cog.listener()
    async def on_message(self, message: discord.Message) -> None:
        """Answer a person's message that is meant for a persona, also as a proxy's copy; no other
        bots and webhooks.
        """
        if not message.author.bot and not message.webhook_id:
            await self._answer(message)
        elif message.webhook_id and (original := self._proxies.note_copy(message)):
            await self._answer_copy(original)

    @commands.Cog.listener()
    async def on_ready(self) -> None:
        """Answer what was said to personas while there was no connection: a new session repeats no
        events.
        """
        since = self._lost_at or discord.utils.utcnow() - MAX_MISSED_AGE
        self._lost_at = None
        await answer_missed(self.bot, self.bot.services, since, self._answer)

    @commands.Cog.listener()
    async def on_disconnect(self) -> None:
        self._lost_at = self._lost_at or discord.utils.utcnow()

    @commands.Cog.listener()
    async def on_resumed(self) -> None:
        self._lost_at = None

    async def _answer(self, message: discord.Message) -> None:
        """Answer a person's message if it is meant for a persona, once, or say why there is no
        answer.
        """
        channel = message.channel
        events = self.bot.services.reply_service.events
        if (
            not isinstance(channel, SpeakChannel)
            or message.type not in USER_TYPES
            or message.id in self._answering
        ):
            return
        self._answering[message.id] = None
        try:
            if not await events.read(lambda: self._is_meant(message)):
                return
            self._proxies.note(message)
            await self._proxies.wait(message)
            incoming = await self.bot.services.message_reader.read(message)
            if act := await events.store(lambda: self._take(message, incoming, channel)):
                await act()
        except StoreError as error:  # it says nothing to members
            log.error("a message in #%s is not answered: %s", channel, error)
        except Exception as error:  # an event has no caller: the error is shown in the channel
            if message.id not in self._deleted:
                await self._send_error(message, error)
        finally:
            del self._answering[message.id]

    async def _answer_copy(self, original: ProxiedMessage) -> None:
        """Answer a proxy's copy of a member's message as that member's, and take back an answer to
        the original.
        """
        message = original.message
        copy = original.copy
        assert copy is not None  # the watch returns no others
        channel = message.channel
        services = self.bot.services
        if not isinstance(channel, SpeakChannel) or copy.id in self._answering:
            return
        self._proxies.note_member(original)
        self._answering[copy.id] = None
        try:
            if reply := await services.reply_service.events.read(
                lambda: services.store.replies.get(message.id)
            ):
                async for _ in services.reply_service.delete([reply], self.bot):
                    log.info("the answer to a message that a proxy has posted again is taken back")
            text = services.message_reader.text(copy)
            name = copy.author.display_name
            read = await services.message_reader.read(message)
            incoming = replace(read, event_id=copy.id, author_name=name, text=text)
            take = partial(self._take, message, incoming, channel)
            if act := await services.reply_service.events.store(take):
                await act()
        except StoreError as error:
            log.error("a message in #%s is not answered: %s", channel, error)
        except Exception as error:
            if copy.id not in self._deleted:
                await self._send_error(copy, error)
        finally:
            del self._answering[copy.id]

    def _take(
        self, message: discord.Message, incoming: IncomingMessage, channel: SpeakChannel
    ) -> Callable[[], Awaitable[object]] | None:
        """Store a message that is meant for a persona; returns what is to be done then. Raises
        `EngineBusyError`.

        What was deleted or edited since its event came, however long that was held, is not taken as
        it was.
        """
        edited = self._answering.get(incoming.event_id)
        if incoming.event_id in self._deleted or (edited and not edited.content):
            return None
        if edited:
            incoming = replace(incoming, text=self.bot.services.message_reader.text(edited))
        replied_to = self._replied_to(message)
        persona = replied_to or self._persona(channel)
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
            return partial(self._reply_beside_hidden, message, reply)
        return reply.answer

    @commands.Cog.listener()
    async def on_raw_message_edit(self, payload: discord.RawMessageUpdateEvent) -> None:
        """Store an edit, and answer a message to which it adds a mention of the bot."""
        message = payload.message
        self._note_edit(message)
        await self._store_change(lambda: self._store_edit(message))
        with suppress(StoreError):
            if await self.bot.services.reply_service.events.store(
                lambda: self._is_newly_mentioned(message)
            ):
                await self._answer(message)

    def _note_edit(self, message: discord.Message) -> None:
        """Note an edit of a message that is not stored yet: it is being read, or waits for a
        persona.
        """
        if not message.edited_at:  # an embed or a thread came
            return
        if message.id in self._answering:
            self._answering[message.id] = message
        unanswered = self.bot.services.unanswered
        waiting = unanswered.get(message.channel.id)
        if waiting and waiting.event_id == message.id:
            unanswered[message.channel.id] = replace(
                waiting, text=self.bot.services.message_reader.text(message)
            )

    def _note_deletion(self, channel_id: int, message_ids: Collection[int]) -> None:
        """Note deletions at once, also of messages that are not stored yet."""
        for message_id in message_ids:
            self._deleted[message_id] = True
        unanswered = self.bot.services.unanswered
        waiting = unanswered.get(channel_id)
        if waiting and waiting.event_id in message_ids:
            del unanswered[channel_id]

    def _store_edit(self, message: discord.Message) -> None:
        """Store an edit. A message whose text was removed, or may not be seen any more, is
        forgotten.
        """
        store = self.bot.services.store
        reader = self.bot.services.message_reader
        if store.quoted.has(message.id):
            store.quoted.update(message.id, reader.quoted(message).text)
        if message.author.bot and not store.messages.is_of_member(
            message.id
        ):  # else it is a proxy's copy
            return
        if message.content:
            self._update(message.id, reader.text(message), own_words(message, message.author))
        elif (
            message.edited_at
        ):  # else an embed or a thread came, or it is a forward, which has no text of its own
            self._forget(message.id)

    def _is_newly_mentioned(self, message: discord.Message) -> bool:
        """Report whether an edit mentions the bot in a recent message that was not said to a
        persona before.
        """
        store = self.bot.services.store
        if message.author.bot or message.edited_at is None or not self._is_mentioned(message):
            return False
        is_recent = discord.utils.utcnow() - message.created_at < MAX_MISSED_AGE
        is_known = store.replies.get(message.id) or store.messages.is_of_member(message.id)
        return is_recent and not is_known and not store.messages.is_deleted(message.id)

    @commands.Cog.listener()
    async def on_raw_message_delete(self, payload: discord.RawMessageDeleteEvent) -> None:
        self._note_deletion(payload.channel_id, {payload.message_id})
        original = self._proxies.note_deletion(payload.message_id)
        await self._store_change(lambda: self._forget(payload.message_id))
        if original:
            await self._answer_copy(original)

    @commands.Cog.listener()
    async def on_raw_bulk_message_delete(self, payload: discord.RawBulkMessageDeleteEvent) -> None:
        self._note_deletion(payload.channel_id, payload.message_ids)
        await self._store_change(lambda: self._forget(*sorted(payload.message_ids)))

    @commands.Cog.listener()
    async def on_guild_channel_delete(self, channel: discord.abc.GuildChannel) -> None:
        """Delete a deleted channel's messages from the history: Discord sends no events for
        them.
        """
        await self._store_change(lambda: self._forget_channel(channel.guild.id, channel.id))

    @commands.Cog.listener()
    async def on_raw_thread_delete(self, payload: discord.RawThreadDeleteEvent) -> None:
        """Delete a deleted thread's messages, likewise."""
        await self._store_change(lambda: self._forget_channel(payload.guild_id, payload.thread_id))

    @commands.Cog.listener()
    async def on_raw_thread_update(self, payload: discord.RawThreadUpdateEvent) -> None:
        """Store the parent of a thread from before parents were stored, at the latest when it is
        archived.
        """
        place = payload.guild_id, payload.thread_id, payload.parent_id
        channels = self.bot.services.store.channels
        await self._store_change(lambda: channels.record_thread(*place))

    def _forget_channel(self, guild_id: int, channel_id: int) -> None:
        """Delete what is stored of a channel and its threads: discord.py tells of those alone that
        are not archived.
        """
        store = self.bot.services.store
        with store.atomic():
            store.channels.delete_webhook(channel_id)
            gone = [channel_id, *store.channels.threads_of(channel_id)]
            for one in gone:
                store.channels.clear(guild_id, one)
            if any([store.messages.delete_channel(one) for one in gone]):
                discard_pending_history_folders(self.bot.services.home, store)

    def _update(self, message_id: int, text: str, kept: str) -> None:
        store = self.bot.services.store
        with store.atomic():
            edit_memory_copies(store, message_id, kept)
            if store.messages.update(message_id, text):
                discard_pending_history_folders(self.bot.services.home, store)

    def _forget(self, *message_ids: int) -> None:
        store = self.bot.services.store
        with store.atomic():
            if any([store.messages.delete(message_id) for message_id in message_ids]):
                discard_pending_history_folders(self.bot.services.home, store)
            for message_id in message_ids:
                store.replies.delete_part(message_id)

    async def _store_change(self, store_it: Callable[[], None]) -> None:
        """Store a change, a transaction, as soon as the database can be used, in the order of the
        events.
        """
        try:
            await self.bot.services.reply_service.events.store(store_it)
        except StoreError as error:
            log.error("an edit or deletion of a message is not stored: %s", error)

    def _is_meant(self, message: discord.Message) -> bool:
        channel = message.channel
        if (
            isinstance(channel, discord.DMChannel)
            or self._replied_to(message)
            or self._is_mentioned(message)
        ):
            return True
        assert isinstance(
            channel, discord.TextChannel | discord.Thread
        )  # `on_message` has checked it
        place = channel_ref(channel)
        setting = self.bot.services.store.channels.get(
            place.guild_id, place.channel_id, place.parent_id
        )
        has_content = bool(raw_text(message) or unread_parts(message))
        return setting is not None and setting.answers == "everything" and has_content

    def _is_mentioned(self, message: discord.Message) -> bool:
        return self.bot.user in message.mentions or any(
            self._is_mine(role) for role in message.role_mentions
        )

    def _is_mine(self, role: discord.Role) -> bool:
        """Report whether this is the bot's own role: clients offer it beside the bot, under the
        same name.
        """
        return (
            role.tags is not None
            and self.bot.user is not None
            and role.tags.bot_id == self.bot.user.id
        )

    def _replied_to(self, message: discord.Message) -> Persona | None:
        reference = message.reference
        if (
            reference is None
            or reference.message_id is None
            or reference.type is discord.MessageReferenceType.forward
        ):
            return None
        reply = self.bot.services.store.replies.of_message(reference.message_id)
        return self.bot.services.personas.get(reply.persona_id, reply.guild_id) if reply else None

    def _persona(self, channel: SpeakChannel) -> Persona | None:
        return self.bot.services.request_builder.persona_in(channel_ref(channel))

    async def _report_no_persona(self, message: discord.Message, incoming: IncomingMessage) -> None:
        channel = message.channel
        if isinstance(channel, discord.DMChannel):
            self.bot.services.unanswered[channel.id] = incoming  # the chosen persona answers it
            if not self._menus.update_rate_limit(message):
                await _notify(channel, CHOOSE_TEXT, persona_select_view(self.bot.services))
        elif not self._errors.update_rate_limit(message):
            await _notify(channel, " ".join(NO_PERSONA_TEXTS))

    async def _reply_beside_hidden(self, message: discord.Message, reply: Reply) -> None:
        """Reply to a message, and say that the one that it replies to cannot be read."""
        if not self._hints.update_rate_limit(message):
            await _notify(message.channel, HIDDEN_QUOTE_TEXT)
        await reply.answer()

    async def _say_unread(
        self, message: discord.Message, persona: Persona, unread: list[str]
    ) -> None:
        """Say why a message is not answered: it has no text, or Discord hides it."""
        is_mentioned = isinstance(message.channel, discord.DMChannel) or self._is_mentioned(message)
        is_direct = is_mentioned or self._replied_to(message) is not None
        if unread:
            what = f"{join_words(unread)[0].upper()}{join_words(unread)[1:]} cannot be read here"
            text = f"{what}: {persona.name} reads text only. Say it in words."
        elif is_mentioned:
            text = (
                f"Your message has no text that {persona.name} could answer: write some beside the "
                "mention."
            )
        else:
            text = NO_CONTENT_TEXT
        notices = self._unread_notices if (unread and is_direct) or is_mentioned else self._hints
        if not notices.update_rate_limit(message):
            await _notify(message.channel, text)

    async def _send_error(self, message: discord.Message, error: Exception) -> None:
        text = error_text(error)
        notices = self._busy_notices if isinstance(error, EngineBusyError) else self._errors
        if not notices.update_rate_limit(message):
            await _notify(message.channel, text)


async def _notify(
    channel: discord.abc.Messageable, text: str, view: discord.ui.View | None = None
) -> None:
    """Send a notice, once: nobody needs to read that it could not be sent, or perhaps was."""
    nonce = secrets.token_hex(
        8
    )  # discord.py repeats a request that failed; Discord ignores a repeated nonce
    try:
        await channel.send(text, view=view or discord.utils.MISSING, nonce=nonce)
    except DELIVERY_ERRORS as error:
        log.warning("could not tell #%s (%s): %s", channel, error, text)


def _per_channel(count: int, seconds: float) -> commands.CooldownMapping[discord.Message]:
    """Allow so many messages in a channel and time; what it keeps of a channel expires after that
    time.
    """
    return commands.CooldownMapping.from_cooldown(count, seconds, commands.BucketType.channel)
