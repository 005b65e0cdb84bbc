"""`/finetune compare` and `/finetune judgement`: members compare two versions in a blind test."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Literal, Self

import discord
from discord import app_commands
from discord.ext import commands

from bot.chat.discord_channels import NO_MENTIONS, GuildChannel, channel_ref
from bot.cogs.transformers import (
    MAX_CHOICES,
    Choices,
    Interaction,
    PersonaOption,
    channel_persona,
    persona_option,
    require_persona,
)
from bot.cogs.ui import PersistentButton
from bot.errors import RefusedError
from bot.services import Bot
from bot.store import BASE_MODEL_NAME, BlindComparison
from bot.versions.blind_test.assignment import Contest
from bot.versions.blind_test.judgement import judge_votes
from bot.versions.blind_test.judgement_text import (
    expired_text,
    invitation_text,
    judgement_text,
    question_text,
    revealed_text,
)
from bot.versions.comparison_context import record_vote
from personas.errors import RequestError
from personas.schemas.chat import Persona

VERSION_PATTERN = r"base|v[0-9]+"
CHOICE_LABELS: dict[str, str] = {"a": "A", "b": "B", "tie": "Tie", "bad": "Both bad"}


class CompareCommands(commands.Cog):
    """Commands of the group `/finetune`: a base of its cog, which keeps them to moderators."""

    bot: Bot

    @app_commands.command(description="Two replies to one prompt, unnamed: you and members say which is better.")
    @app_commands.describe(
        persona="Whose (this channel's persona if left out)",
        version="Which version, or base (the newest that does not speak if left out)",
        against="Against which, or base (the one that speaks now if left out)",
        invite="Whether members of this channel are asked too (yes if left out)",
    )
    async def compare(
        self,
        interaction: Interaction,
        persona: PersonaOption | None = None,
        version: str | None = None,
        against: str | None = None,
        invite: bool = True,
    ) -> None:
        channel, services = interaction.channel, self.bot.services
        if not isinstance(channel, GuildChannel):
            raise RefusedError("Versions are compared in text channels and threads.", "Try it there.")
        await interaction.response.defer(ephemeral=True)
        contest = services.blind_tests.contest(persona or channel_persona(interaction), version, against)
        if invite:
            view = _view(CompareButton.of(contest))
            await channel.send(invitation_text(contest), view=view, allowed_mentions=NO_MENTIONS)
        await show_comparison(interaction, contest)

    @app_commands.command(description="What members' blind votes say of two versions, and whether it is certain.")
    @app_commands.describe(
        persona="Whose (this channel's persona if left out)",
        version="Which version, or base (the newest that does not speak if left out)",
        against="Against which, or base (the one that speaks now if left out)",
    )
    async def judgement(
        self,
        interaction: Interaction,
        persona: PersonaOption | None = None,
        version: str | None = None,
        against: str | None = None,
    ) -> None:
        await interaction.response.defer(ephemeral=True)
        services, guild_id = self.bot.services, interaction.guild_id or 0
        contest = services.blind_tests.contest(persona or channel_persona(interaction), version, against)
        votes = services.store.comparisons.voted(contest.persona.id, guild_id)
        found = await asyncio.to_thread(judge_votes, votes, *contest.names, time.time())
        counts = services.store.comparisons.judgement_counts(
            contest.persona.id, contest.version, contest.against, guild_id
        )
        words = judgement_text(contest.persona, found, counts)
        await interaction.followup.send(words, ephemeral=True, allowed_mentions=NO_MENTIONS)

    @compare.autocomplete("version")
    @compare.autocomplete("against")
    @judgement.autocomplete("version")
    @judgement.autocomplete("against")
    async def _comparable(self, interaction: Interaction, current: str) -> Choices:
        try:
            persona = persona_option(interaction)
        except RequestError:
            return []
        names = [name for name in self.bot.services.blind_tests.version_names(persona) if current.casefold() in name]
        return [app_commands.Choice(name=name, value=name) for name in names[:MAX_CHOICES]]


class CompareButton(
    PersistentButton,
    template=rf"compare:(?P<persona_id>[\w-]+):(?P<version>{VERSION_PATTERN}):(?P<against>{VERSION_PATTERN})",
):
    """Shows whoever presses it two replies of their own."""

    def __init__(self, persona_id: str, version: str, against: str, label: str = "Compare") -> None:
        self.persona_id, self.version, self.against = persona_id, version, against
        custom_id = f"compare:{persona_id}:{version}:{against}"
        super().__init__(discord.ui.Button(label=label, style=discord.ButtonStyle.primary, custom_id=custom_id))

    @classmethod
    def of(cls, contest: Contest, label: str = "Compare") -> Self:
        """The button for two versions."""
        return cls(contest.persona.id, *contest.names, label)

    async def pressed(self, interaction: Interaction) -> None:
        await interaction.response.defer(ephemeral=True, thinking=True)
        persona = require_persona(interaction, self.persona_id)
        await show_comparison(
            interaction, interaction.client.services.blind_tests.contest(persona, self.version, self.against)
        )


class ComparisonVoteButton(PersistentButton, template=r"judge:(?P<seq>[0-9]+):(?P<choice>a|b|tie|bad)"):
    """A vote. What was chosen first stays; then it is told who wrote which."""

    def __init__(self, seq: int, choice: Literal["a", "b", "tie", "bad"]) -> None:
        self.seq, self.choice = seq, choice
        super().__init__(discord.ui.Button(label=CHOICE_LABELS[choice], custom_id=f"judge:{seq}:{choice}"))

    @classmethod
    async def from_custom_id(cls, interaction: discord.Interaction[Any], item: Any, match: Any) -> Self:
        return cls(int(match["seq"]), match["choice"])

    async def pressed(self, interaction: Interaction) -> None:
        comparisons, now = interaction.client.services.store.comparisons, time.time()
        taken = comparisons.vote(self.seq, interaction.user.id, self.choice, now)
        one = comparisons.get(self.seq)
        if one is None or one.user_id != interaction.user.id:
            raise RefusedError("This comparison is not yours, or it is no longer kept.", "Press Compare for your own.")
        persona = require_persona(interaction, one.persona_id)
        is_late = one.has_expired(now)
        if not (taken or is_late):
            raise RefusedError("You have voted on these two.", revealed_text(one, persona).splitlines()[-1])
        again = CompareButton(one.persona_id, *_version_order(one), label="Another")
        words = (expired_text if is_late else revealed_text)(one, persona)
        await interaction.response.edit_message(content=words, view=_view(again), allowed_mentions=NO_MENTIONS)
        if taken:
            services = interaction.client.services
            await record_vote(services.home, services.store, services.personas, one)


COMPARE_BUTTONS = (CompareButton, ComparisonVoteButton)


async def show_comparison(interaction: Interaction, contest: Contest) -> None:
    """Show a member the comparison that they have not voted on yet, else a new one. Raises `UnderstudyError`."""
    _require_can_compare(interaction, contest.persona)
    services, guild_id = interaction.client.services, interaction.guild_id or 0
    one = await services.blind_tests.assign(contest, interaction.user.id, guild_id)
    view = _view(*(ComparisonVoteButton(one.seq, choice) for choice in ("a", "b", "tie", "bad")))
    await interaction.followup.send(
        question_text(one, contest.persona),
        view=view,
        ephemeral=True,
        allowed_mentions=NO_MENTIONS,
        suppress_embeds=True,
    )


def _require_can_compare(interaction: Interaction, persona: Persona) -> None:
    if isinstance(interaction.channel, GuildChannel):
        interaction.client.services.reply_service.rules.require_unmuted(persona, channel_ref(interaction.channel))


def _version_order(one: BlindComparison) -> tuple[str, str]:
    """Both versions in an order that does not depend on which was A."""
    later, earlier = sorted(one.versions, key=_version_number, reverse=True)
    return later, earlier


def _version_number(name: str) -> int:
    return 0 if name == BASE_MODEL_NAME else int(name.removeprefix("v"))


def _view(*buttons: discord.ui.DynamicItem[Any]) -> discord.ui.View:
    view = discord.ui.View(timeout=None)
    for button in buttons:
        view.add_item(button)
    return view
