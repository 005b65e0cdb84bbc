"""Receives messages to a persona: `/chat`, mentions, replies, and direct messages with a persona select."""

import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial

import discord
from discord import app_commands
from discord.ext import commands

from bot.chat.discord_channels import SpeakChannel, channel_ref
from bot.chat.prompt_context import IncomingMessage, edit_memory_copies
from bot.cogs.memory_cog import member_text, own_words
from bot.cogs.reply_buttons import MAX_QUESTION_CHARS, ask_publicly
from bot.cogs.transformers import Interaction
from bot.cogs.ui import PersistentPersonaSelect, button_view, defer, respond, respond_privately
from bot.errors import RefusedError, error_text
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
HINT_INTERVAL_S, BUSY_NOTICE_INTERVAL_S, MENU_INTERVAL_S = 600.0, 60.0, 5.0
"""Minimum time between two such hints, notices of a full queue, and menus in a channel."""
MAX_ERRORS_PER_MINUTE = 5
CHOOSE_TEXT = "Whom do you want to talk to?"
NO_PERSONA_TEXTS = "No persona lives here yet.", "A moderator can change that with `/persona set`."


class PersonaSelect(PersistentPersonaSelect, template="choose-persona"):
    """The persona menu of a direct-message channel."""

    async def chosen(self, interaction: Interaction, persona_id: str) -> None:
        services, channel = interaction.client.services, interaction.channel
        persona = services.personas.get(persona_id, 0)
        if persona is None or not isinstance(channel, discord.DMChannel):
            raise RefusedError("This persona is no longer here.", "Write to me again for a new menu.")
        await defer(interaction)
        place = channel_ref(channel)
        setting = Channel(place.guild_id, place.channel_id, persona.id, "everything", interaction.user.id, time.time())
        services.store.channels.assign(setting)
        if message := services.unanswered.pop(channel.id, None):
            await services.reply_service.answer(message, persona, channel)
        else:
            await services.reply_service.greet(persona, channel, interaction.user.display_name)


def persona_select_view(services: Services) -> discord.ui.View:
    """The menu of the shared personas. Raises `RefusedError` when there are none."""
    personas = services.personas.of(0)
    if not personas:
        raise RefusedError("There are no personas here.", "The operator can add cards to personas/cards.")
    return button_view(PersonaSelect.of(personas.values()))


class ChatCog(commands.Cog):
    """Has messages to personas answered, and keeps the message history in step with Discord."""

    def __init__(self, bot: Bot) -> None:
        self.bot = bot
        self._hints = _per_channel(1, HINT_INTERVAL_S)
        self._busy_notices = _per_channel(1, BUSY_NOTICE_INTERVAL_S)
        self._menus = _per_channel(1, MENU_INTERVAL_S)
        self._errors = _per_channel(MAX_ERRORS_PER_MINUTE, 60.0)
        self._delete = app_commands.ContextMenu(name="Delete this reply", callback=self.delete_reply)

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
            log.error("%d messages, edits and deletions could not be stored: %s", len(events), error)

    @app_commands.command(description="Say something to this channel's persona.")
    @app_commands.describe(message="What you want to say")
    @app_commands.allowed_contexts(guilds=True, dms=True)
    async def chat(self, interaction: Interaction, message: app_commands.Range[str, 1, MAX_QUESTION_CHARS]) -> None:
        channel = interaction.channel
        if not isinstance(channel, SpeakChannel):
            raise RefusedError("Personas speak in text channels, threads and direct messages.", "Try it there.")
        persona = self._persona(channel)
        if persona is None and isinstance(channel, discord.DMChannel):
            await respond(interaction, CHOOSE_TEXT, persona_select_view(self.bot.services), ephemeral=False)
            return
        if persona is None:
            raise RefusedError(*NO_PERSONA_TEXTS)
        await ask_publicly(interaction, persona, channel, message)

    async def delete_reply(self, interaction: Interaction, message: discord.Message) -> None:
        """The command in a message's menu: delete a persona's reply, for its author or a moderator."""
        reply_service = self.bot.services.reply_service
        reply = reply_service.rules.require_reply(self.bot.services.store.replies.of_message(message.id))
        reply_service.rules.require_owner(reply.asked_by, interaction.user, "delete this reply")
        await defer(interaction, ephemeral=True)
        async for is_deleted in reply_service.delete([reply], self.bot):
            text = "Deleted." if is_deleted else "I lack the permission Manage Messages to delete that."
            await respond_privately(interaction, text)

    @commands.Cog.listener()
    async def on_message(self, message: discord.Message) -> None:
        """Answer a person's message that is meant for a persona; bots and webhooks are never answered."""
        channel = message.channel
        if message.author.bot or message.webhook_id or not isinstance(channel, SpeakChannel):
            return
        message.content = member_text(message)
        if message.type not in (discord.MessageType.default, discord.MessageType.reply):
            return
        try:
            act = await self.bot.services.reply_service.events.store(lambda: self._take(message, channel))
            if act:
                await act()
        except StoreError as error:  # it says nothing to members
            log.error("a message in #%s is not answered: %s", channel, error)
        except Exception as error:  # an event has no caller: the error is shown in the channel
            await self._send_error(message, error)

    def _take(self, message: discord.Message, channel: SpeakChannel) -> Callable[[], Awaitable[object]] | None:
        """Store a message that is meant for a persona; returns what is to be done then. Raises `EngineBusyError`."""
        if not self._is_meant(message):
            return None
        persona, text = self._replied_to(message) or self._persona(channel), self._clean_text(message)
        incoming = IncomingMessage(message.id, message.author.id, message.author.display_name, text)
        reply_service = self.bot.services.reply_service
        if persona is None:
            return partial(self._report_no_persona, message, incoming)
        if reply_service.rules.muted(persona, channel_ref(channel)):
            return None
        if text:
            task = reply_service.accept(incoming, persona, channel)
            return partial(reply_service.reply, task) if task else None
        if not (message.content or message.attachments or message.message_snapshots):
            return partial(self._hint, message)
        return None

    @commands.Cog.listener()
    async def on_raw_message_edit(self, payload: discord.RawMessageUpdateEvent) -> None:
        """Store an edit. A message whose text was removed, or may not be seen any more, is forgotten."""
        message = payload.message
        if message.author.bot:
            return
        if message.content:
            text, kept = self._clean_text(message), own_words(message, message.author)
            await self._store_change(lambda: self._update(message.id, text, kept))
        elif message.edited_at:  # else an embed or a thread came, or it is a forward, which has no text of its own
            await self._store_change(lambda: self._forget(message.id))

    @commands.Cog.listener()
    async def on_raw_message_delete(self, payload: discord.RawMessageDeleteEvent) -> None:
        await self._store_change(lambda: self._forget(payload.message_id))

    @commands.Cog.listener()
    async def on_raw_bulk_message_delete(self, payload: discord.RawBulkMessageDeleteEvent) -> None:
        await self._store_change(lambda: self._forget(*sorted(payload.message_ids)))

    @commands.Cog.listener()
    async def on_guild_channel_delete(self, channel: discord.abc.GuildChannel) -> None:
        """Delete a deleted channel's messages from the history: Discord sends no events for them."""
        await self._store_change(lambda: self._forget_channel(channel.guild.id, channel.id))

    @commands.Cog.listener()
    async def on_raw_thread_delete(self, payload: discord.RawThreadDeleteEvent) -> None:
        """Delete a deleted thread's messages, likewise."""
        await self._store_change(lambda: self._forget_channel(payload.guild_id, payload.thread_id))

    @commands.Cog.listener()
    async def on_raw_thread_update(self, payload: discord.RawThreadUpdateEvent) -> None:
        """Store the parent of a thread from before parents were stored, at the latest when it is archived."""
        place = payload.guild_id, payload.thread_id, payload.parent_id
        channels = self.bot.services.store.channels
        await self._store_change(lambda: channels.record_thread(*place))

    def _forget_channel(self, guild_id: int, channel_id: int) -> None:
        """Delete what is stored of a channel and its threads: discord.py tells of those alone that are not archived."""
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
        """Store a change, a transaction, as soon as the database can be used, in the order of the events."""
        try:
            await self.bot.services.reply_service.events.store(store_it)
        except StoreError as error:
            log.error("an edit or deletion of a message is not stored: %s", error)

    def _is_meant(self, message: discord.Message) -> bool:
        channel = message.channel
        if isinstance(channel, discord.DMChannel) or self._replied_to(message):
            return True
        if self.bot.user in message.mentions or any(self._is_mine(role) for role in message.role_mentions):
            return True
        assert isinstance(channel, discord.TextChannel | discord.Thread)  # `on_message` has checked it
        place = channel_ref(channel)
        setting = self.bot.services.store.channels.get(place.guild_id, place.channel_id, place.parent_id)
        return setting is not None and setting.answers == "everything" and bool(message.content)

    def _is_mine(self, role: discord.Role) -> bool:
        """Report whether this is the bot's own role: clients offer it beside the bot, under the same name."""
        return role.tags is not None and self.bot.user is not None and role.tags.bot_id == self.bot.user.id

    def _replied_to(self, message: discord.Message) -> Persona | None:
        reference = message.reference
        if reference is None or reference.message_id is None or reference.type is discord.MessageReferenceType.forward:
            return None
        reply = self.bot.services.store.replies.of_message(reference.message_id)
        return self.bot.services.personas.get(reply.persona_id, reply.guild_id) if reply else None

    def _persona(self, channel: SpeakChannel) -> Persona | None:
        return self.bot.services.request_builder.persona_in(channel_ref(channel))

    def _clean_text(self, message: discord.Message) -> str:
        """The text without mentions of the bot; other mentions become names."""
        text = message.clean_content
        if self.bot.user and message.guild:
            for name in (message.guild.me.display_name, self.bot.user.name):
                text = text.replace(f"@{name}", "")
        return text.strip()

    async def _report_no_persona(self, message: discord.Message, incoming: IncomingMessage) -> None:
        channel = message.channel
        if isinstance(channel, discord.DMChannel):
            self.bot.services.unanswered[channel.id] = incoming  # the chosen persona answers it
            if not self._menus.update_rate_limit(message):
                await channel.send(CHOOSE_TEXT, view=persona_select_view(self.bot.services))
        elif not self._errors.update_rate_limit(message):
            await channel.send(" ".join(NO_PERSONA_TEXTS))

    async def _hint(self, message: discord.Message) -> None:
        if not self._hints.update_rate_limit(message):
            await message.channel.send(NO_CONTENT_TEXT)

    async def _send_error(self, message: discord.Message, error: Exception) -> None:
        text, notices = error_text(error), self._busy_notices if isinstance(error, EngineBusyError) else self._errors
        if notices.update_rate_limit(message):
            return
        try:
            await message.channel.send(text)
        except discord.HTTPException:
            log.warning("could not write to #%s: %s", message.channel, text)


def _per_channel(count: int, seconds: float) -> commands.CooldownMapping[discord.Message]:
    """Allow so many messages in a channel and time; what it keeps of a channel expires after that time."""
    return commands.CooldownMapping.from_cooldown(count, seconds, commands.BucketType.channel)
