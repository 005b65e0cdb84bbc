"""Listens for messages to a persona: `/chat`, mentions, replies, direct messages with a persona select."""

from __future__ import annotations

import logging
import time
from typing import Any, Self

import discord
from discord import app_commands
from discord.ext import commands

from bot.chat.discord_channels import NO_MENTIONS, SpeakChannel, channel_ref
from bot.chat.reply_service import IncomingMessage
from bot.cogs.reply_buttons import MAX_QUESTION_CHARS, ask_publicly
from bot.cogs.ui import respond_privately
from bot.errors import RefusedError, error_text
from bot.privacy.home_files import discard_pending_history_folders
from bot.services import Bot, Services
from bot.store import Channel
from personas.schemas.chat import Persona

MAX_SELECT_OPTIONS = 25
"""Options that Discord allows in a menu."""
log = logging.getLogger(__name__)
NO_CONTENT_TEXT = (
    "Discord does not show me what you wrote, since it does not mention me. "
    "Use the button Reply under the message, mention me, or use `/chat`."
)
HINT_INTERVAL_S = 600.0
"""A channel is told so at most this often."""


class PersonaSelect(discord.ui.DynamicItem[discord.ui.Select[discord.ui.View]], template="choose-persona"):
    """The menu. Whoever it was sent to chooses; it can be used again to change one's mind."""

    def __init__(self, options: list[discord.SelectOption]) -> None:
        super().__init__(discord.ui.Select(custom_id="choose-persona", placeholder="Choose a persona", options=options))

    @classmethod
    async def from_custom_id(cls, interaction: discord.Interaction[Any], item: Any, match: Any) -> Self:
        return cls(item.options)

    async def callback(self, interaction: discord.Interaction[Bot]) -> None:  # type: ignore[override]
        try:
            await self._chosen(interaction, self.item.values[0])
        except Exception as error:
            await respond_privately(interaction, error_text(error))

    async def _chosen(self, interaction: discord.Interaction[Bot], persona_id: str) -> None:
        services, channel = interaction.client.services, interaction.channel
        persona = services.personas.get(persona_id, 0)
        if persona is None or not isinstance(channel, discord.DMChannel):
            raise RefusedError("This persona is no longer here.", "Write to me again for a new menu.")
        await interaction.response.defer()
        place = channel_ref(channel)
        setting = Channel(place.guild_id, place.channel_id, persona.id, "everything", interaction.user.id, time.time())
        services.store.channels.assign(setting)
        if asked := services.unanswered.pop(channel.id, None):
            await services.reply_service.answer(asked, persona, channel)
        else:
            await services.reply_service.greet(persona, channel, interaction.user.display_name)


def persona_select_view(services: Services) -> discord.ui.View:
    """The menu of the personas that everybody can talk to. Raises `RefusedError` when there are none."""
    personas = list(services.personas.of(0).values())[:MAX_SELECT_OPTIONS]
    if not personas:
        raise RefusedError("There are no personas here.", "The operator can add cards to personas/cards.")
    view = discord.ui.View(timeout=None)
    options = [discord.SelectOption(label=p.name, value=p.id, description=p.tagline[:100] or None) for p in personas]
    view.add_item(PersonaSelect(options))
    return view


class ChatCog(commands.Cog):
    """Hears what is said to a persona."""

    def __init__(self, bot: Bot) -> None:
        self.bot = bot
        self._hinted: dict[int, float] = {}  # channel id → when it was last told about withheld content
        self._delete = app_commands.ContextMenu(name="Delete this reply", callback=self.delete_reply)

    async def cog_load(self) -> None:
        self.bot.tree.add_command(self._delete)

    async def cog_unload(self) -> None:
        self.bot.tree.remove_command(self._delete.name, type=self._delete.type)

    @app_commands.command(description="Say something to this channel's persona.")
    @app_commands.describe(message="What you want to say")
    @app_commands.allowed_contexts(guilds=True, dms=True)
    async def chat(
        self, interaction: discord.Interaction[Bot], message: app_commands.Range[str, 1, MAX_QUESTION_CHARS]
    ) -> None:
        channel = interaction.channel
        if not isinstance(channel, SpeakChannel):
            raise RefusedError("Personas speak in text channels, threads and direct messages.", "Try it there.")
        persona = self._persona(channel)
        if persona is None and isinstance(channel, discord.DMChannel):
            await interaction.response.send_message(
                "Whom do you want to talk to?", view=persona_select_view(self.bot.services)
            )
            return
        if persona is None:
            raise RefusedError("No persona lives here yet.", "A moderator can change that with `/persona set`.")
        await ask_publicly(interaction, persona, channel, message)

    async def delete_reply(self, interaction: discord.Interaction[Bot], message: discord.Message) -> None:
        """The command in the menu of a message: take a persona's reply back, for whoever asked or a moderator."""
        answerer = self.bot.services.reply_service
        reply = answerer.rules.require_reply(self.bot.services.store.replies.of_message(message.id))
        answerer.rules.require_owner(reply.asked_by, interaction.user, "delete this reply")
        await interaction.response.defer(ephemeral=True)
        async for gone in answerer.delete([reply], self.bot):
            await respond_privately(
                interaction, "Deleted." if gone else "I lack the permission Manage Messages to delete that."
            )

    @commands.Cog.listener()
    async def on_message(self, message: discord.Message) -> None:
        """Answer a person's message that is meant for a persona; bots and webhooks are never answered."""
        channel = message.channel
        if message.author.bot or message.webhook_id or not isinstance(channel, SpeakChannel):
            return
        if message.type not in (discord.MessageType.default, discord.MessageType.reply) or not self._meant(message):
            return
        persona, text = self._answered(message) or self._persona(channel), self._words(message)
        asked = IncomingMessage(message.id, message.author.id, message.author.display_name, text)
        try:
            if persona is None:
                await self._nobody_here(channel, asked)
            elif self.bot.services.reply_service.rules.muted(persona, channel_ref(channel)):
                return
            elif text:
                await self.bot.services.reply_service.answer(asked, persona, channel)
            elif not message.content and not message.attachments:
                await self._hint(message)
        except Exception as error:  # an event has nobody to raise to: say it where it was asked
            await self._apologise(message, error_text(error))

    @commands.Cog.listener()
    async def on_raw_message_edit(self, payload: discord.RawMessageUpdateEvent) -> None:
        """Edit a member's edited message in the history too."""
        if payload.message.author.bot or not payload.message.content:
            return
        if self.bot.services.store.messages.update(payload.message_id, self._words(payload.message)):
            discard_pending_history_folders(self.bot.services.home, self.bot.services.store)

    @commands.Cog.listener()
    async def on_raw_message_delete(self, payload: discord.RawMessageDeleteEvent) -> None:
        """Delete a message that was deleted on Discord from the history."""
        self._forget(payload.message_id)

    @commands.Cog.listener()
    async def on_raw_bulk_message_delete(self, payload: discord.RawBulkMessageDeleteEvent) -> None:
        """Delete the messages of a bulk deletion from the history."""
        for message_id in payload.message_ids:
            self._forget(message_id)

    @commands.Cog.listener()
    async def on_guild_channel_delete(self, channel: discord.abc.GuildChannel) -> None:
        """Delete a deleted channel's messages from the history: Discord sends no events for them."""
        self._forget_channel(channel.guild.id, channel.id)

    @commands.Cog.listener()
    async def on_raw_thread_delete(self, payload: discord.RawThreadDeleteEvent) -> None:
        """And of a thread."""
        self._forget_channel(payload.guild_id, payload.thread_id)

    def _forget_channel(self, guild_id: int, channel_id: int) -> None:
        store = self.bot.services.store
        store.channels.clear(guild_id, channel_id)
        store.channels.delete_webhook(channel_id)
        if store.messages.delete_channel(channel_id):
            discard_pending_history_folders(self.bot.services.home, store)

    def _forget(self, message_id: int) -> None:
        if self.bot.services.store.messages.delete(message_id):
            discard_pending_history_folders(self.bot.services.home, self.bot.services.store)
        self.bot.services.store.replies.delete_part(message_id)

    def _meant(self, message: discord.Message) -> bool:
        channel = message.channel
        if isinstance(channel, discord.DMChannel) or self._answered(message):
            return True
        if self.bot.user in message.mentions or any(self._is_mine(role) for role in message.role_mentions):
            return True
        assert isinstance(channel, discord.TextChannel | discord.Thread)  # `on_message` has seen to it
        place = channel_ref(channel)
        setting = self.bot.services.store.channels.get(place.guild_id, place.channel_id, place.parent_id)
        return setting is not None and setting.answers == "everything" and bool(message.content)

    def _is_mine(self, role: discord.Role) -> bool:
        """Report whether this is the bot's own role, which bears its name: clients offer it beside the bot itself."""
        return role.tags is not None and self.bot.user is not None and role.tags.bot_id == self.bot.user.id

    def _answered(self, message: discord.Message) -> Persona | None:
        """The persona whose reply this message replies to."""
        if message.reference is None or message.reference.message_id is None:
            return None
        reply = self.bot.services.store.replies.of_message(message.reference.message_id)
        return self.bot.services.personas.get(reply.persona_id, reply.guild_id) if reply else None

    def _persona(self, channel: SpeakChannel) -> Persona | None:
        return self.bot.services.request_builder.persona_in(channel_ref(channel))

    def _words(self, message: discord.Message) -> str:
        """The message without the mention that called the bot; other mentions read as names."""
        text = message.clean_content
        if self.bot.user and message.guild:
            for name in (message.guild.me.display_name, self.bot.user.name):
                text = text.replace(f"@{name}", "")
        return text.strip()

    async def _nobody_here(self, channel: SpeakChannel, asked: IncomingMessage) -> None:
        if isinstance(channel, discord.DMChannel):
            self.bot.services.unanswered[channel.id] = asked  # it is answered by whoever is chosen
            await channel.send("Whom do you want to talk to?", view=persona_select_view(self.bot.services))
        else:
            await channel.send("No persona lives here yet. A moderator can change that with `/persona set`.")

    async def _hint(self, message: discord.Message) -> None:
        now = time.monotonic()
        if now - self._hinted.get(message.channel.id, -HINT_INTERVAL_S) >= HINT_INTERVAL_S:
            self._hinted[message.channel.id] = now
            await message.channel.send(NO_CONTENT_TEXT, allowed_mentions=NO_MENTIONS)

    async def _apologise(self, message: discord.Message, words: str) -> None:
        try:
            await message.channel.send(words, allowed_mentions=NO_MENTIONS)
        except discord.HTTPException:
            log.warning("could not say in #%s: %s", message.channel, words)
