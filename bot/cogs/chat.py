"""Members talk: `/chat`, a mention, a reply to the bot, or any message where a channel is set to answer everything."""

from __future__ import annotations

import logging

import discord
from discord import app_commands
from discord.ext import commands

from bot.answering import Asked
from bot.errors import RefusedError, words_for
from bot.house import HouseBot
from bot.replies import NO_MENTIONS, SpeakChannel
from personas.contracts import Persona

log = logging.getLogger(__name__)

MAX_QUESTION = 1500
"""Characters of a question in `/chat`: it is quoted in one message of 2,000."""


class Chat(commands.Cog):
    """Hears what is said to a persona."""

    def __init__(self, bot: HouseBot) -> None:
        self.bot = bot

    @app_commands.command(description="Say something to this channel's persona.")
    @app_commands.describe(message="What you want to say")
    @app_commands.guild_only()
    async def chat(
        self, interaction: discord.Interaction[HouseBot], message: app_commands.Range[str, 1, MAX_QUESTION]
    ) -> None:
        channel, persona = self._here(interaction)
        author = interaction.user
        await interaction.response.send_message(
            f"**{discord.utils.escape_markdown(author.display_name)}:** {message}",
            allowed_mentions=NO_MENTIONS,
            suppress_embeds=True,
        )
        await self.bot.house.answerer.answer(
            Asked(interaction.id, author.id, author.display_name, message), persona, channel
        )

    @commands.Cog.listener()
    async def on_message(self, message: discord.Message) -> None:
        """Answer a person's message that is meant for the persona; bots and webhooks are never answered."""
        if message.author.bot or message.webhook_id or not isinstance(message.channel, SpeakChannel):
            return
        if message.type not in (discord.MessageType.default, discord.MessageType.reply) or not self._meant(message):
            return
        persona = self._persona(message.channel)
        text = self._words(message)
        try:
            if persona is None:
                await message.channel.send(
                    "No persona lives here yet. A moderator can change that with `/persona set`."
                )
            elif text:
                author = message.author
                await self.bot.house.answerer.answer(
                    Asked(message.id, author.id, author.display_name, text), persona, message.channel
                )
        except Exception as error:  # an event has nobody to raise to: say it where it was asked
            await self._apologise(message, words_for(error))

    @commands.Cog.listener()
    async def on_raw_message_edit(self, payload: discord.RawMessageUpdateEvent) -> None:
        """What a member edits is edited in the history too."""
        if payload.message.author.bot or not payload.message.content:
            return
        self.bot.house.store.messages.update(payload.message_id, self._words(payload.message))

    @commands.Cog.listener()
    async def on_raw_message_delete(self, payload: discord.RawMessageDeleteEvent) -> None:
        """What is deleted on Discord leaves the history too."""
        self.bot.house.store.messages.delete(payload.message_id)

    def _meant(self, message: discord.Message) -> bool:
        me = self.bot.user
        if me is None or message.guild is None:
            return False
        if me in message.mentions:
            return True
        channel = message.channel
        parent_id = channel.parent_id if isinstance(channel, discord.Thread) else None
        setting = self.bot.house.store.channels.get(message.guild.id, channel.id, parent_id)
        return setting is not None and setting.answers == "everything" and bool(message.content)

    def _persona(self, channel: SpeakChannel) -> Persona | None:
        parent_id = channel.parent_id if isinstance(channel, discord.Thread) else None
        return self.bot.house.conversations.persona_in(channel.guild.id, channel.id, parent_id)

    def _here(self, interaction: discord.Interaction[HouseBot]) -> tuple[SpeakChannel, Persona]:
        channel = interaction.channel
        if not isinstance(channel, SpeakChannel):
            raise RefusedError("Personas speak in text channels and threads.", "Try it there.")
        persona = self._persona(channel)
        if persona is None:
            raise RefusedError("No persona lives here yet.", "A moderator can change that with `/persona set`.")
        return channel, persona

    def _words(self, message: discord.Message) -> str:
        """The message without the mention that called the bot; other mentions read as names."""
        text = message.clean_content
        if self.bot.user and message.guild:
            for name in (message.guild.me.display_name, self.bot.user.name):
                text = text.replace(f"@{name}", "")
        return text.strip()

    async def _apologise(self, message: discord.Message, words: str) -> None:
        try:
            await message.channel.send(words, allowed_mentions=NO_MENTIONS)
        except discord.HTTPException:
            log.warning("could not say in #%s: %s", message.channel, words)
