"""`/persona …`: chooses, mutes and clears the persona of a channel; imports, exports and removes character cards."""

from __future__ import annotations

import asyncio
import io
import time
from typing import Literal

import discord
from discord import app_commands
from discord.ext import commands

from bot import permissions
from bot.chat.discord_channels import NO_MENTIONS, SpeakChannel, channel_ref
from bot.cogs.dialogue_cog import DialogueCommands
from bot.cogs.lore_cog import LoreCommands
from bot.cogs.progress_messages import job_buttons
from bot.cogs.teach_cog import TeachCommands
from bot.cogs.transformers import Interaction, PersonaOption, guild_moderators_only, require_moderator
from bot.errors import RefusedError
from bot.personas.card_import import (
    FILE_SUFFIXES,
    MAX_CARD_BYTES,
    CardImport,
    export_card,
    import_card,
    import_character_book,
    install_bundled_adapter,
    log_card_export,
    remove_persona,
)
from bot.personas.guild_lore import GuildLore
from bot.personas.registry import short_id
from bot.services import Bot, Services
from bot.store import ALL_CHANNELS, ALL_PERSONAS, CARD_CONTRIBUTION, Channel, Contribution, Mute, StoredReply
from personas.prompt import MAX_CARD_TOKENS
from personas.schemas.chat import Persona

cards_are_for_moderators = guild_moderators_only("Cards belong to a server.")
MuteScope = Literal["channel", "server"]
DeletePeriod = Literal["nothing", "hour", "day", "everything"]
DELETE_PERIODS_S: dict[DeletePeriod, float] = {"hour": 3600.0, "day": 86400.0, "everything": 1e11}
PROGRESS_INTERVAL_MESSAGES = 10
"""After so many deleted replies a moderator is told how far it is."""


class CardCommands(commands.Cog):
    """Commands of the group `/persona`: a base of its cog."""

    @cards_are_for_moderators
    @app_commands.command(
        name="import", description="Bring a character card in as a persona of this server (moderators)."
    )
    @app_commands.describe(
        card="The card: a PNG picture that carries one, JSON, CHARX or TOML; at most 25 MB",
        persona_id="A short name for it (made of its name if left out); one that is here already is replaced",
    )
    @app_commands.rename(persona_id="id")
    async def import_(
        self,
        interaction: Interaction,
        card: discord.Attachment,
        persona_id: app_commands.Range[str, 1, 32] | None = None,
    ) -> None:
        guild_id = interaction.guild_id or 0
        if card.size > MAX_CARD_BYTES:
            raise RefusedError(f"{card.filename} has more than 25 MB.", "Leave its largest pictures out.")
        await interaction.response.defer(ephemeral=True)
        services = interaction.client.services
        arrived = await import_card(
            services.personas, services.base_model, guild_id, await card.read(), card.filename, persona_id or ""
        )
        brought, read = arrived.brought, arrived.card
        services.store.people.add_contribution(
            Contribution(guild_id, brought.persona.id, CARD_CONTRIBUTION, interaction.user.id, time.time())
        )
        kept = await import_character_book(_guild_lore(services), guild_id, brought.persona, read)
        words = [*_import_lines(arrived, guild_id), *(f"{line} See `/persona lore ask`." for line in kept)]
        asked_in = (guild_id, interaction.channel_id or 0, interaction.user.id)
        said, job = await install_bundled_adapter(
            services.home, services.store, services.base_model, asked_in, brought.persona.id, read, card.filename
        )
        view = job_buttons(job, services.store.versions.live(brought.persona.id)) if job else None
        await interaction.followup.send("\n".join([*words, *said]), ephemeral=True, view=view or discord.utils.MISSING)

    @cards_are_for_moderators
    @app_commands.command(description="Get a persona's character card as a file (moderators).")
    @app_commands.describe(persona="Whose", form="In which form")
    @app_commands.rename(form="format")
    @app_commands.choices(
        form=[
            app_commands.Choice(name="PNG: its picture, which carries the card", value="png"),
            app_commands.Choice(name="JSON, version 2", value="v2"),
            app_commands.Choice(name="JSON, version 3", value="v3"),
            app_commands.Choice(name="CHARX: the card and its pictures", value="charx"),
            app_commands.Choice(name="TOML, as this bot keeps it", value="toml"),
        ]
    )
    async def export(
        self,
        interaction: Interaction,
        persona: PersonaOption,
        form: Literal["png", "v2", "v3", "charx", "toml"] = "png",
    ) -> None:
        guild_id = interaction.guild_id or 0
        await interaction.response.defer(ephemeral=True)
        services, name = interaction.client.services, short_id(persona, guild_id)
        written = await asyncio.to_thread(
            lambda: export_card(services.personas.card(persona, guild_id), form, persona, name)
        )
        files = {f"{name}.{FILE_SUFFIXES[form]}": written.content, **written.beside}
        if sum(map(len, files.values())) > interaction.filesize_limit:
            raise RefusedError(f"The card of {persona.name} is too large for a message here.", "Choose another format.")
        whither = f"to a moderator of the server {guild_id}"
        log_card_export(
            services.home, services.store, guild_id, persona, f"{name}.{FILE_SUFFIXES[form]}", written.content, whither
        )
        await interaction.followup.send(
            "\n".join([f"The card of **{persona.name}**.", *written.notes]),
            files=[discord.File(io.BytesIO(content), filename=file) for file, content in files.items()],
            ephemeral=True,
        )

    @cards_are_for_moderators
    @app_commands.command(description="Remove a persona that this server has brought in (moderators).")
    @app_commands.describe(persona="Whom")
    async def remove(self, interaction: Interaction, persona: PersonaOption) -> None:
        guild_id = interaction.guild_id or 0
        services, lore = interaction.client.services, _guild_lore(interaction.client.services)
        await interaction.response.defer(ephemeral=True)
        await remove_persona(services.personas, services.store, lore, guild_id, persona)
        await interaction.followup.send(
            f"**{persona.name}** is gone, and lives nowhere here any more. Importing the card again brings them back.",
            ephemeral=True,
        )


def _guild_lore(services: Services) -> GuildLore:
    return GuildLore(services.home, services.request_builder.lore)


def _import_lines(arrived: CardImport, guild_id: int) -> list[str]:
    brought, persona = arrived.brought, arrived.brought.persona
    tokens = arrived.room.prose + arrived.room.examples
    words = [
        f"**{persona.name}** (`{short_id(persona, guild_id)}`) "
        + ("is a persona of this server now." if brought.is_new else "has a new card."),
        f"It takes about {min(tokens, MAX_CARD_TOKENS)} tokens of every prompt. `/persona set` gives it a channel.",
    ]
    if tokens > MAX_CARD_TOKENS:
        words.append(f"Its examples are long: only the first of them fit, of about {tokens} tokens in all.")
    if persona.speech:
        words.append("Its examples are no talk of `{{user}}:` and `{{char}}:`, so they count as a description.")
    if not persona.avatar:
        words.append("The card came without a picture.")
    return words


@app_commands.allowed_contexts(guilds=True, dms=True)
class PersonaCog(
    CardCommands,
    DialogueCommands,
    LoreCommands,
    TeachCommands,
    commands.GroupCog,
    group_name="persona",
    group_description="Who speaks in this channel.",
):
    """The commands."""

    def __init__(self, bot: Bot) -> None:
        self.bot = bot
        super().__init__()

    # ------------------------------------------------------------------------------------------ who lives where

    @app_commands.command(name="set", description="Let a persona live in this channel (moderators).")
    @app_commands.describe(persona="Who", answers="Which messages (every one that the bot may read, if left out)")
    @app_commands.choices(
        answers=[
            app_commands.Choice(name="messages that mention me", value="mentions"),
            app_commands.Choice(name="every message", value="everything"),
        ]
    )
    async def set_(
        self,
        interaction: Interaction,
        persona: PersonaOption,
        answers: Literal["mentions", "everything"] | None = None,
    ) -> None:
        channel = self._channel(interaction, changing=True)
        answers = answers or ("everything" if self.bot.intents.message_content else "mentions")
        place = channel_ref(channel)
        await interaction.response.defer(ephemeral=True)
        setting = Channel(place.guild_id, place.channel_id, persona.id, answers, interaction.user.id, time.time())
        self.bot.services.store.channels.assign(setting)
        await interaction.followup.send(self._set_words(persona, answers, channel), ephemeral=True)
        await self.bot.services.reply_service.greet(persona, channel, interaction.user.display_name)

    @app_commands.command(description="Say who lives in this channel.")
    async def show(self, interaction: Interaction) -> None:
        place = channel_ref(self._channel(interaction))
        setting = self.bot.services.store.channels.get(place.guild_id, place.channel_id, place.parent_id)
        persona = self.bot.services.request_builder.persona_in(place)
        if setting is None or persona is None:
            raise RefusedError("No persona lives here.", "A moderator can change that with `/persona set`.")
        live = self._live_words(persona) or "base model (not trained yet)"
        heard = "every message" if setting.answers == "everything" or not place.guild_id else "messages that mention me"
        silent = self.bot.services.reply_service.rules.muted(persona, place)
        tagline = f": {persona.tagline}" if persona.tagline else ""
        answers = "Silenced by a moderator (`/persona unmute`)" if silent else f"Answers {heard}, and /chat"
        await interaction.response.send_message(
            f"**{persona.name}** (`{short_id(persona, place.guild_id)}`){tagline}\n{answers}. Live: {live}.",
            ephemeral=True,
            allowed_mentions=NO_MENTIONS,
        )

    @app_commands.command(name="list", description="List the personas and where they live.")
    async def list_(self, interaction: Interaction) -> None:
        services = self.bot.services
        places = services.store.channels.of_guild(interaction.guild_id) if interaction.guild_id else []
        lines = []
        guild_id = interaction.guild_id or 0
        for persona in services.personas.of(guild_id).values():
            where = " ".join(f"<#{place.channel_id}>" for place in places if place.persona_id == persona.id)
            live = self._live_words(persona) or "base model"
            lines.append(
                f"**{persona.name}** (`{short_id(persona, guild_id)}`, {live}) {where}\n{persona.tagline}".strip()
            )
        mutes = services.store.mutes.of_guild(guild_id)
        lines += [f"Silenced: {self._mute_words(mute)}" for mute in mutes]
        await interaction.response.send_message("\n".join(lines)[:2000] or "No personas.", ephemeral=True)

    def _live_words(self, persona: Persona) -> str:
        """The live version; of one that was made for another base model, that it does not speak. Empty for none."""
        services = self.bot.services
        live = services.store.versions.live(persona.id) or ""
        behind = services.request_builder.incompatible_versions.model_of(persona.id, live)
        return f"{live}, made for another base model; ours speaks until it is trained again" if behind else live

    @app_commands.command(description="Let no persona live in this channel (moderators).")
    async def clear(self, interaction: Interaction) -> None:
        place = channel_ref(self._channel(interaction, changing=True))
        if not self.bot.services.store.channels.clear(place.guild_id, place.channel_id):
            raise RefusedError("No persona lives here.")
        await interaction.response.send_message("Nobody lives here now. `/persona set` undoes this.", ephemeral=True)

    @app_commands.command(description="Start the talk here afresh: what was said before is not shown to the persona.")
    async def fresh(self, interaction: Interaction) -> None:
        place = channel_ref(self._channel(interaction))
        self.bot.services.reply_service.rules.require_can_write(interaction)
        self.bot.services.store.messages.start_new_conversation(place.channel_id)
        await interaction.response.send_message("The talk here starts afresh. Nothing was deleted.")

    # ------------------------------------------------------------------------------------------ silence

    @app_commands.command(description="Silence personas at once, in the middle of a word (moderators).")
    @app_commands.describe(
        where="In this channel and its threads, or in the whole server (this channel if left out)",
        persona="Whom (all personas if left out)",
        delete="What they have said there already is deleted (nothing if left out)",
    )
    @app_commands.choices(
        where=[
            app_commands.Choice(name="this channel", value="channel"),
            app_commands.Choice(name="the whole server", value="server"),
        ],
        delete=[
            app_commands.Choice(name="nothing", value="nothing"),
            app_commands.Choice(name="what was said in the last hour", value="hour"),
            app_commands.Choice(name="what was said in the last day", value="day"),
            app_commands.Choice(name="everything they ever said", value="everything"),
        ],
    )
    async def mute(
        self,
        interaction: Interaction,
        where: MuteScope = "channel",
        persona: PersonaOption | None = None,
        delete: DeletePeriod = "nothing",
    ) -> None:
        mute = self._mute(interaction, where, persona)
        self.bot.services.store.mutes.add(mute)
        self.bot.services.reply_service.stop_guild_replies(mute.guild_id)
        words = f"Silenced: {self._mute_words(mute)}. `/persona unmute` lifts it."
        await interaction.response.send_message(words, ephemeral=True)
        if delete != "nothing":
            await self._delete_said(interaction, mute, time.time() - DELETE_PERIODS_S[delete], words)

    @app_commands.command(description="Let silenced personas speak again (moderators).")
    @app_commands.describe(
        where="Where they were silenced (this channel if left out)", persona="Who was (all personas if left out)"
    )
    @app_commands.choices(
        where=[
            app_commands.Choice(name="this channel", value="channel"),
            app_commands.Choice(name="the whole server", value="server"),
        ]
    )
    async def unmute(
        self, interaction: Interaction, where: MuteScope = "channel", persona: PersonaOption | None = None
    ) -> None:
        mute, mutes = self._mute(interaction, where, persona), self.bot.services.store.mutes
        if not mutes.remove(mute.guild_id, mute.channel_id, mute.persona_id):
            there = "; ".join(self._mute_words(other) for other in mutes.of_guild(mute.guild_id)) or "nothing"
            raise RefusedError(f"There is no such silence: {self._mute_words(mute)}.", f"In force: {there}.")
        await interaction.response.send_message(f"Lifted: {self._mute_words(mute)}.", ephemeral=True)

    def _mute(self, interaction: Interaction, where: MuteScope, persona: Persona | None) -> Mute:
        place = channel_ref(self._channel(interaction, changing=True))
        if not place.guild_id:
            raise RefusedError("In direct messages nobody needs silencing.", "`/persona clear` sends them away.")
        channel_id = place.channel_id if where == "channel" else ALL_CHANNELS
        persona_id = persona.id if persona else ALL_PERSONAS
        return Mute(place.guild_id, channel_id, persona_id, interaction.user.id, time.time())

    def _mute_words(self, mute: Mute) -> str:
        persona = self.bot.services.personas.get(mute.persona_id, mute.guild_id)
        whom = persona.name if persona else mute.persona_id or "all personas"
        return f"{whom} in {f'<#{mute.channel_id}>' if mute.channel_id else 'the whole server'}"

    async def _delete_said(self, interaction: Interaction, mute: Mute, since: float, words: str) -> None:
        replies = self._said(interaction, mute, since)
        done, kept = 0, 0
        async for gone in self.bot.services.reply_service.delete(replies, self.bot):
            done, kept = done + gone, kept + (not gone)
            if (done + kept) % PROGRESS_INTERVAL_MESSAGES == 0 or done + kept == len(replies):
                left = f" {kept} could not be deleted: I lack Manage Messages there." if kept else ""
                how_far = f"Deleted {done} of {len(replies)} replies.{left}"
                await interaction.edit_original_response(content=f"{words}\n{how_far}")
        if not replies:
            await interaction.edit_original_response(content=f"{words}\nThere was nothing to delete.")

    def _said(self, interaction: Interaction, mute: Mute, since: float) -> list[StoredReply]:
        threads = interaction.guild.threads if interaction.guild else []
        within = [mute.channel_id, *(thread.id for thread in threads if thread.parent_id == mute.channel_id)]
        return self.bot.services.store.replies.of_guild(
            mute.guild_id,
            channel_ids=within if mute.channel_id else None,
            persona_id=mute.persona_id or None,
            since=since,
        )

    # ------------------------------------------------------------------------------------------ where it was asked

    def _channel(self, interaction: Interaction, *, changing: bool = False) -> SpeakChannel:
        """The channel, if personas can live there and this member may do this."""
        channel = interaction.channel
        if not isinstance(channel, SpeakChannel):
            raise RefusedError("Personas live in text channels, threads and direct messages.", "Try it there.")
        if changing and not isinstance(channel, discord.DMChannel):
            require_moderator(interaction)
        return channel

    def _set_words(self, persona: Persona, answers: str, channel: SpeakChannel) -> str:
        hears = "every message here" if answers == "everything" else "messages that mention me"
        words = [f"**{persona.name}** lives here now, and answers {hears}, replies to it, and `/chat`."]
        if isinstance(channel, discord.DMChannel):
            return f"**{persona.name}** lives here now."
        if answers == "everything" and not self.bot.intents.message_content:
            need = permissions.MESSAGE_CONTENT
            words.append(f"The bot may not {need.why}: {need.cost}. The operator can set MESSAGE_CONTENT_INTENT.")
        for lack in permissions.missing_permissions(channel.permissions_for(channel.guild.me)):
            words.append(f"I lack the permission {lack.permission.replace('_', ' ').title()} here: {lack.cost}.")
        return "\n".join(words)
