"""`/persona lore add|remove|ask`: a guild's lore for its personas."""

from __future__ import annotations

import time

import discord
from discord import app_commands
from discord.ext import commands

from bot.chat.discord_channels import NO_MENTIONS
from bot.cogs.transformers import (
    MAX_CHOICES,
    Choices,
    Interaction,
    PersonaOption,
    channel_persona,
    guild_moderators_only,
    require_guild_moderator,
    require_persona,
    submitted_form,
)
from bot.cogs.ui import respond_privately
from bot.errors import RefusedError, error_text
from bot.personas.guild_lore import MAX_FILE_BYTES, GuildLore
from bot.services import Services
from bot.store import Contribution
from personas.lore.index import MIN_SCORE, LoreRanking, PassageMatch
from personas.schemas.chat import Persona

LORE_FORM_PREFIX = "lore:"  # prefix of the form's custom id; the persona's id follows
DM_TEXT = "Lore is added to a server."
MAX_SHOWN_MATCHES = 4
MAX_EXCERPT_CHARS = 160


class LoreCommands(commands.Cog):
    """Commands of the group `/persona lore`, and its form: a base of the cog of `/persona`."""

    lore = app_commands.Group(name="lore", description="What personas know about themselves and their world.")

    @guild_moderators_only(DM_TEXT)
    @lore.command(name="add", description="Give a persona lore in this server (moderators): a file, or text in a form.")
    @app_commands.describe(
        persona="Whose", file="Markdown in UTF-8, at most 100 KB (without one a form opens); the same name replaces"
    )
    async def lore_add(
        self, interaction: Interaction, persona: PersonaOption, file: discord.Attachment | None = None
    ) -> None:
        if file is None:
            await interaction.response.send_modal(LoreForm(persona))
            return
        if file.size > MAX_FILE_BYTES:
            raise RefusedError(f"{file.filename} has more than 100 KB.", "Split it into several files.")
        await interaction.response.defer(ephemeral=True)
        await _add_lore(interaction, interaction.guild_id or 0, persona, file.filename, await file.read())

    @guild_moderators_only(DM_TEXT)
    @lore.command(name="remove", description="Take back a file of lore that this server has added (moderators).")
    @app_commands.describe(persona="Whose", file="Which")
    async def lore_remove(self, interaction: Interaction, persona: PersonaOption, file: str) -> None:
        guild_id, services = interaction.guild_id or 0, interaction.client.services
        await interaction.response.defer(ephemeral=True)
        await _guild_lore(services).remove(guild_id, persona.id, file)
        services.store.people.remove_contribution(guild_id, persona.id, file)
        await interaction.followup.send(f"{persona.name} has forgotten `{file}`.", ephemeral=True)

    @lore_remove.autocomplete("file")
    async def _lore_files(self, interaction: Interaction, current: str) -> Choices:
        services, guild_id = interaction.client.services, interaction.guild_id or 0
        whose = services.personas.find(str(interaction.namespace.persona or ""), guild_id)
        names = _guild_lore(services).files(guild_id, whose.id) if whose and guild_id else []
        found = [name for name in names if current.casefold() in name]
        return [app_commands.Choice(name=name[:100], value=name) for name in found[:MAX_CHOICES]]

    @lore.command(name="ask", description="See which lore a question finds, and why.")
    @app_commands.describe(question="What you would ask", persona="Whom (this channel's persona if left out)")
    async def lore_ask(
        self, interaction: Interaction, question: app_commands.Range[str, 1, 500], persona: PersonaOption | None = None
    ) -> None:
        whom = persona or channel_persona(interaction)
        lore = interaction.client.services.request_builder.lore
        ranking = lore.rank(whom.id, question, interaction.guild_id or 0)
        await interaction.response.send_message(
            _matches_text(whom, ranking),
            ephemeral=True,
            allowed_mentions=NO_MENTIONS,
            suppress_embeds=True,
        )

    @commands.Cog.listener()
    async def on_interaction(self, interaction: Interaction) -> None:
        """A form was sent."""
        if sent := submitted_form(interaction, LORE_FORM_PREFIX):
            try:
                await self._lore_sent(interaction, *sent)
            except Exception as error:
                await respond_privately(interaction, error_text(error))

    async def _lore_sent(self, interaction: Interaction, persona_id: str, values: dict[str, str]) -> None:
        guild_id, whose = require_guild_moderator(interaction, DM_TEXT), require_persona(interaction, persona_id)
        await interaction.response.defer(ephemeral=True, thinking=True)
        title, text = values["title"], values["text"]
        if not text.lstrip().startswith("#"):
            text = f"# {title}\n{text}"
        await _add_lore(interaction, guild_id, whose, title, text.encode())


class LoreForm(discord.ui.Modal):
    """The form behind `/persona lore add` without a file."""

    def __init__(self, persona: Persona) -> None:
        super().__init__(title=f"Lore for {persona.name}"[:45], custom_id=f"{LORE_FORM_PREFIX}{persona.id}")
        self.add_item(discord.ui.TextInput(label="Title", custom_id="title", max_length=60))
        self.add_item(
            discord.ui.TextInput(
                label="Text (markdown)", custom_id="text", style=discord.TextStyle.paragraph, max_length=4000
            )
        )


async def _add_lore(interaction: Interaction, guild_id: int, whose: Persona, name: str, content: bytes) -> None:
    services = interaction.client.services
    file, passages = await _guild_lore(services).add(guild_id, whose.id, name, content)
    services.store.people.add_contribution(Contribution(guild_id, whose.id, file, interaction.user.id, time.time()))
    count = "1 passage" if passages == 1 else f"{passages} passages"
    await interaction.followup.send(
        f"{whose.name} knows `{file}` now ({count}), in this server only. "
        f"`/persona lore ask` shows what a question finds, `/persona lore remove` takes it back.",
        ephemeral=True,
    )


def _guild_lore(services: Services) -> GuildLore:
    return GuildLore(services.home, services.request_builder.lore)


def _matches_text(whom: Persona, ranking: LoreRanking) -> str:
    """Describe the matches, the near misses, and why. The sources read as under a reply."""
    if not ranking.matches:
        return f"There is no lore for {whom.name} yet. `/persona lore add` gives them some."
    given = {id(match) for match in ranking.selected()}
    count = "1 passage" if len(given) == 1 else f"{len(given) or 'no'} passages"
    lines = [f"**{whom.name}** would be given {count}. Found is what has a score of {MIN_SCORE:g} or more:"]
    for match in ranking.matches[:MAX_SHOWN_MATCHES]:
        mark = "✅" if id(match) in given else "➖" if match.is_match else "❌"
        lines.append(
            f"{mark} **{match.score:.2f}** `{match.passage.source}` {match.passage.heading}\n-# {_match_reason(match)}"
        )
        lines.append(f"> {_excerpt(match.passage.text)}")
    return "\n".join(lines)[:2000]


def _match_reason(match: PassageMatch) -> str:
    words = ", ".join(sorted(match.words, key=lambda word: -match.words[word])) or "none"
    meaning = "not compared (another language)" if match.cosine is None else f"{match.by_meaning:+.2f}"
    return f"meaning {meaning} · shared words {match.by_words:+.2f} ({words})"


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return discord.utils.escape_markdown(
        line if len(line) <= MAX_EXCERPT_CHARS else line[:MAX_EXCERPT_CHARS].rsplit(" ", 1)[0] + " …"
    )
