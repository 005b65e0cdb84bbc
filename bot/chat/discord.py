"""The commands and listeners of chats: `/chat`, messages, and their edits and deletions."""

import asyncio
import datetime
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

import discord
from discord import app_commands
from discord.ext import commands

from bot.chat.discord_addressing import addressees
from bot.chat.discord_answers import (
    NO_PERSONA_TEXTS,
    MessageAnswerer,
    persona_select_view,
    say_age_restricted,
)
from bot.chat.discord_buttons import show_untrained
from bot.chat.discord_missed import answer_missed
from bot.chat.discord_outside import CHOOSE_TEXT, ask_outside
from bot.chat.discord_questions import ASK_HELP, MAX_QUESTION_CHARS, ask_publicly
from bot.chat.memory_text import edit_memory_copies
from bot.chat.message_reader import mentions_bot
from bot.chat.message_text import said_text
from bot.chat.places import SPEAK_PLACES, SpeakChannel, WebhookChannel, channel_ref, is_outside
from bot.memory.discord import own_words
from bot.platform.discord_kit.transformers import Interaction
from bot.platform.discord_kit.ui import defer, respond, respond_privately
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy, gettext_noop
from bot.privacy.pending_jobs import remove_set_aside, set_aside_history
from bot.services import Bot
from bot.store import StoreError

T = TypeVar("T")
log = logging.getLogger(__name__)
MAX_EDITED_AGE = datetime.timedelta(hours=1)
"""A mention that an edit adds to an older message is not answered."""
DELETED_AT_ONCE = 100
"""Messages of a deleted channel that one transaction deletes at most: the event loop waits so long."""
MarkedChannel = WebhookChannel
"""Channels with Discord's mark of an age restriction; their threads have it, too."""


class ChatCog(commands.Cog):
    """Has messages to personas answered, and keeps the message history in step with Discord."""

    def __init__(self, bot: Bot) -> None:
        self.bot = bot
        self.answerer = MessageAnswerer(bot)
        self._away_since: float | None = None
        self._has_set_aside = False
        self._delete = app_commands.ContextMenu(
            name=gettext_noop("Delete this reply"), callback=self.delete_reply
        )
        self._untrained = app_commands.ContextMenu(
            name=gettext_noop("Reply without training"), callback=self.reply_without_training
        )

    async def cog_load(self) -> None:
        self.bot.tree.add_command(self._delete)
        self.bot.tree.add_command(self._untrained)
        events = self.bot.services.reply_service.events
        self.bot.services.background.append(events.task)
        events.task.start()

    async def cog_unload(self) -> None:
        for command in (self._delete, self._untrained):
            self.bot.tree.remove_command(command.name, type=command.type)
        events = self.bot.services.reply_service.events
        await events.task.stop()
        try:
            await events.store_held()
        except (StoreError, OSError) as error:
            log.error(
                "%d messages, edits and deletions could not be stored: %s", len(events), error
            )

    # ------------------------------------------------------------------------------------- commands

    @app_commands.command(description=gettext_noop("Say something to this channel's persona."))
    @app_commands.describe(message=ASK_HELP)
    @app_commands.allowed_contexts(guilds=True, dms=True)
    async def chat(
        self, interaction: Interaction, message: app_commands.Range[str, 1, MAX_QUESTION_CHARS]
    ) -> None:
        # First, as in `ask_publicly`: also where no persona lives, or the question has to wait.
        self.bot.services.safety.require_safe(message)
        if is_outside(interaction):
            await ask_outside(interaction, message)
            return
        channel = interaction.channel
        if not isinstance(channel, SpeakChannel):
            raise RefusedError(
                gettext_lazy(
                    "Personas speak in {places}, and in direct messages.", places=SPEAK_PLACES
                ),
                gettext_lazy("Try it there."),
            )
        services = self.bot.services
        personas = addressees(services, message, channel_ref(channel))
        if not personas and (first := self.answerer.persona_in(channel)):
            personas = [first]
        if personas:
            await ask_publicly(interaction, personas, channel, message)
        elif isinstance(channel, discord.DMChannel):
            view = persona_select_view(services)
            await respond(interaction, CHOOSE_TEXT, view, ephemeral=False)
        else:
            no_persona, advice = NO_PERSONA_TEXTS
            raise RefusedError(no_persona, advice)

    async def delete_reply(self, interaction: Interaction, message: discord.Message) -> None:
        """The command in a message's menu: delete a persona's reply, for its author or a
        moderator.
        """
        reply_service = self.bot.services.reply_service
        reply = reply_service.rules.require_reply(
            self.bot.services.store.replies.of_message(message.id)
        )
        reply_service.rules.require_owner(
            reply.asked_by,
            interaction.user,
            gettext_lazy("Only the one who asked, or a moderator, can delete this reply."),
        )
        await defer(interaction, ephemeral=True)
        async for problem in reply_service.delete([reply], self.bot):
            text = gettext_lazy("Deleted.")
            if problem:
                text = gettext_lazy("The reply could not be deleted: {problem}.", problem=problem)
            await respond_privately(interaction, text)

    async def reply_without_training(
        self, interaction: Interaction, message: discord.Message
    ) -> None:
        """The command in a message's menu: show what the base model would have replied."""
        stored = self.bot.services.store.replies.of_message(message.id)
        reply = self.bot.services.reply_service.rules.require_reply(stored)
        await show_untrained(interaction, reply.event_id)

    # ------------------------------------------------------------------------------------- messages

    @commands.Cog.listener()
    async def on_interaction(self, interaction: Interaction) -> None:
        """Remember the language of a member, for notes below replies in direct messages."""
        languages = self.bot.services.reply_service.member_languages
        languages.note(interaction.user.id, interaction.locale)

    @commands.Cog.listener()
    async def on_message(self, message: discord.Message) -> None:
        """Answer a person's message that is meant for a persona, also as a proxy's copy; no other
        bots and webhooks.
        """
        if not message.author.bot and not message.webhook_id:
            await self.answerer.answer(message)
        elif message.webhook_id and (original := self.answerer.proxies.note_copy(message)):
            await self.answerer.answer_copy(original)

    @commands.Cog.listener()
    async def on_ready(self) -> None:
        """Answer messages that came while there was no connection: a new session repeats no
        events.
        """
        away_since = self._away_since or 0.0
        self._away_since = None
        await self._forget_gone()
        await answer_missed(self.bot, self.bot.services, away_since, self.answerer.answer)

    @commands.Cog.listener()
    async def on_disconnect(self) -> None:
        if self._away_since is None:
            self._away_since = self.bot.services.time_zones.clock.now()

    @commands.Cog.listener()
    async def on_resumed(self) -> None:
        self._away_since = None

    # -------------------------------------------------------------------------- edits and deletions

    @commands.Cog.listener()
    async def on_raw_message_edit(self, payload: discord.RawMessageUpdateEvent) -> None:
        """Store an edit, and answer a message to which it adds a mention of the bot."""
        message = payload.message
        # First, because a change may be held while the database is locked: the message that is being
        # read must not be answered as it was.
        self.answerer.note_edit(message)
        reply_service = self.bot.services.reply_service
        is_waiting = reply_service.line_waits.has_line(message.id)
        ended_round = await self._store_change(lambda: self._store_edit(payload.guild_id, message))
        if is_waiting or ended_round:
            await self.answerer.answer_unsafe_edit(message)
        with suppress(StoreError):
            if await reply_service.events.store(lambda: self._is_newly_mentioned(message)):
                await self.answerer.answer(message)

    @commands.Cog.listener()
    async def on_raw_message_delete(self, payload: discord.RawMessageDeleteEvent) -> None:
        self.answerer.note_deletion(payload.channel_id, {payload.message_id})
        original = self.answerer.proxies.note_deletion(payload.message_id)
        await self._store_change(lambda: self._forget(payload.guild_id, payload.message_id))
        if original:
            await self.answerer.answer_copy(original)

    @commands.Cog.listener()
    async def on_raw_bulk_message_delete(self, payload: discord.RawBulkMessageDeleteEvent) -> None:
        self.answerer.note_deletion(payload.channel_id, payload.message_ids)
        message_ids = sorted(payload.message_ids)
        await self._store_change(lambda: self._forget(payload.guild_id, *message_ids))

    @commands.Cog.listener()
    async def on_guild_channel_delete(self, channel: discord.abc.GuildChannel) -> None:
        """Delete a deleted channel's messages from the history: Discord sends no events for
        them.
        """
        await self._forget_channel(channel.guild.id, channel.id)

    @commands.Cog.listener()
    async def on_guild_channel_update(
        self, before: discord.abc.GuildChannel, after: discord.abc.GuildChannel
    ) -> None:
        """Stop an age-restricted persona whose channel has lost Discord's mark, and say so there."""
        if not isinstance(before, MarkedChannel) or not isinstance(after, MarkedChannel):
            return
        if before.nsfw == after.nsfw:
            return
        services = self.bot.services
        services.reply_service.stop_guild_replies(after.guild.id)
        with suppress(StoreError):  # the next message to the persona leads to the notice
            age = services.reply_service.rules.age
            if after.nsfw:
                services.store.places.forget_age_notice(after.id)
            if isinstance(after, discord.ForumChannel):
                return  # the next message to a persona in one of its posts leads to the notice
            for persona in services.personas_in(channel_ref(after)):
                if age.refuses(persona, after):
                    await say_age_restricted(services, persona, after)

    @commands.Cog.listener()
    async def on_raw_thread_delete(self, payload: discord.RawThreadDeleteEvent) -> None:
        """Delete a deleted thread's messages, likewise."""
        await self._forget_channel(payload.guild_id, payload.thread_id)

    @commands.Cog.listener()
    async def on_raw_thread_update(self, payload: discord.RawThreadUpdateEvent) -> None:
        """Store the parent of a thread from before parents were stored, at the latest when it is
        archived; show the ends of replies in one that opens again.
        """
        places = self.bot.services.store.places
        await self._store_change(
            lambda: places.record_thread(payload.guild_id, payload.thread_id, payload.parent_id)
        )
        if not payload.data["thread_metadata"]["archived"]:
            recovery = self.bot.services.reply_service.recovery
            await recovery.show_ends(self.bot, payload.thread_id)

    async def _store_change(self, store_it: Callable[[], T]) -> T | None:
        """Store a change, a transaction, as soon as the database can be used, in the order of the
        events. Returns its result.
        """
        result = None
        try:
            result = await self.bot.services.reply_service.events.store(store_it)
        except StoreError as error:
            log.error("an edit or deletion of a message is not stored: %s", error)
        if self._has_set_aside:
            self._has_set_aside = False
            try:
                await asyncio.to_thread(remove_set_aside, self.bot.services.home)
            except OSError as error:  # the retention tries again
                log.warning("the old folder of a waiting job is not deleted yet: %s", error)
        return result

    def _change_history(self, guild_id: int | None) -> None:
        """Have the waiting jobs that learn from a guild's history read it again."""
        services = self.bot.services
        if guild_id and set_aside_history(services.home, services.store, guild_id):
            self._has_set_aside = True

    def _is_newly_mentioned(self, message: discord.Message) -> bool:
        """Report whether an edit mentions the bot in a recent message that was not said to a
        persona before.
        """
        if message.author.bot or message.edited_at is None:
            return False
        if not mentions_bot(message, self.bot.user):
            return False
        store = self.bot.services.store
        is_recent = discord.utils.utcnow() - message.created_at < MAX_EDITED_AGE
        is_known = store.replies.get(message.id) or store.messages.is_of_member(message.id)
        return is_recent and not is_known and not store.messages.is_deleted(message.id)

    def _store_edit(self, guild_id: int | None, message: discord.Message) -> bool:
        """Store an edit. A message whose text was removed, may not be seen any more, or speaks of
        self-harm now, is forgotten. True where it speaks of that, and personas had yet to answer it.
        """
        store = self.bot.services.store
        reader = self.bot.services.message_reader
        is_quoted = store.quoted.has(message.id)
        if is_quoted:
            store.quoted.update(message.id, reader.quoted(message).text)
        is_stored = store.messages.is_of_member(message.id)
        if message.author.bot and not is_stored:
            return False  # else it is a proxy's copy, which is stored as its member's
        # Most edits and previews of links are of messages that nothing is kept of.
        if not (is_stored or is_quoted or store.memories.has_copies(message.id)):
            return False
        # Without that time it is no edit: an embed or a thread came, or it is a forward.
        is_edit = message.edited_at is not None
        if message.content or (is_edit and said_text(message)):
            if self.bot.services.safety.finds(reader.text(message)):
                replies = store.replies.of_asked(message.id)
                self._forget(guild_id, message.id)
                return any(reply.state == "waiting" for reply in replies)
            with store.atomic():
                edit_memory_copies(store, message.id, own_words(message, message.author))
                if store.messages.update(message.id, reader.text(message)):
                    self._change_history(guild_id)
        elif is_edit:
            self._forget(guild_id, message.id)
        return False

    def _forget(self, guild_id: int | None, *message_ids: int) -> None:
        store = self.bot.services.store
        with store.atomic():
            if any([store.messages.delete(message_id) for message_id in message_ids]):
                self._change_history(guild_id)
            for message_id in message_ids:
                store.replies.delete_part(message_id)

    async def _forget_channel(self, guild_id: int, channel_id: int) -> None:
        """Delete the rows of a channel and its threads: discord.py sends events for those threads
        alone that are not archived.
        """
        await self._store_change(partial(self._forget_places, guild_id, channel_id))
        await self._forget_gone()

    async def _forget_gone(self) -> None:
        """Delete what was said in deleted channels, some at a time, also what a bot left that was
        killed meanwhile.
        """
        store = self.bot.services.store
        gone = await self._store_change(store.places.gone) or {}
        for gone_id, guild_id in gone.items():
            forget_talk = partial(self._forget_talk, guild_id, gone_id)
            while await self._store_change(forget_talk):  # noqa: ASYNC110  each step deletes more
                await asyncio.sleep(0)

    def _forget_places(self, guild_id: int, channel_id: int) -> None:
        """Delete what is set for a channel and its threads, and note that they are gone."""
        places = self.bot.services.store.places
        with self.bot.services.store.atomic():
            for gone_id in [channel_id, *places.threads_of(channel_id)]:
                self._forget_place(guild_id, gone_id)
                places.note_gone(guild_id, gone_id)

    def _forget_place(self, guild_id: int, channel_id: int) -> None:
        """Delete what is set for a channel or thread."""
        store = self.bot.services.store
        store.channels.clear(guild_id, channel_id)
        store.scheduled_lines.forget_channel(channel_id)
        store.member_greetings.forget_channel(channel_id)
        store.settings.forget_channel(channel_id)

    def _forget_talk(self, guild_id: int, channel_id: int) -> int:
        """Delete some of the messages, replies and memories of a channel or thread. Returns how
        many messages and replies these were.
        """
        store = self.bot.services.store
        with store.atomic():
            deleted = store.messages.delete_channel(channel_id, most=DELETED_AT_ONCE)
            if deleted:
                self._change_history(guild_id)
            else:
                store.places.forget(channel_id)
        return deleted
