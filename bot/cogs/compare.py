"""Members compare two versions blindly: `/finetune compare`, its buttons, and `/finetune judgement` for moderators.

Who presses **Compare** gets two replies that nobody else is shown, and votes with a button. All that a button needs is
in its custom id and in the store, so an open comparison can be voted on after a restart.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Literal, Self

import discord
from discord import app_commands
from discord.ext import commands

from bot.cogs.asking import MAX_CHOICES, Choices, Interaction, known_persona, persona_choices, persona_meant
from bot.cogs.lasting import LastingButton
from bot.comparing import note_vote
from bot.errors import RefusedError
from bot.house import HouseBot
from bot.judging.judgement import judge
from bot.judging.pairs import Contest, contest_of, version_names
from bot.judging.showing import shown_comparison
from bot.judging.words import expired, invitation, judgement_words, question, revealed
from bot.place import GuildChannel, place_of
from bot.store import BASE, Comparison
from bot.voices import NO_MENTIONS
from personas.contracts import Persona
from personas.errors import RequestError

VERSION = r"base|v[0-9]+"
LABELS: dict[str, str] = {"a": "A", "b": "B", "tie": "Tie", "bad": "Both bad"}


class CompareCommands(commands.Cog):
    """Commands of the group `/finetune`: a base of its cog, which keeps them to moderators."""

    bot: HouseBot

    @app_commands.command(description="Two replies to one prompt, unnamed: you and members say which is better.")
    @app_commands.describe(
        persona="Whose (this channel's persona if left out)",
        version="Which version, or base (the newest that does not speak if left out)",
        against="Against which, or base (the one that speaks now if left out)",
        invite="Whether members of this channel are asked too (yes if left out)",
    )
    @app_commands.autocomplete(persona=persona_choices)
    async def compare(
        self,
        interaction: Interaction,
        persona: str | None = None,
        version: str | None = None,
        against: str | None = None,
        invite: bool = True,
    ) -> None:
        channel, house = interaction.channel, self.bot.house
        if not isinstance(channel, GuildChannel):
            raise RefusedError("Versions are compared in text channels and threads.", "Try it there.")
        await interaction.response.defer(ephemeral=True)
        contest = contest_of(house, persona_meant(interaction, persona), version, against)
        if invite:
            view = _view(CompareButton.of(contest))
            await channel.send(invitation(contest), view=view, allowed_mentions=NO_MENTIONS)
        await show_one(interaction, contest)

    @app_commands.command(description="What members' blind votes say of two versions, and whether it is certain.")
    @app_commands.describe(
        persona="Whose (this channel's persona if left out)",
        version="Which version, or base (the newest that does not speak if left out)",
        against="Against which, or base (the one that speaks now if left out)",
    )
    @app_commands.autocomplete(persona=persona_choices)
    async def judgement(
        self,
        interaction: Interaction,
        persona: str | None = None,
        version: str | None = None,
        against: str | None = None,
    ) -> None:
        await interaction.response.defer(ephemeral=True)
        house, guild_id = self.bot.house, interaction.guild_id or 0
        contest = contest_of(house, persona_meant(interaction, persona), version, against)
        votes = house.store.comparisons.voted(contest.persona.id, guild_id)
        found = await asyncio.to_thread(judge, votes, *contest.names, time.time())
        counts = house.store.comparisons.judgement_counts(
            contest.persona.id, contest.version, contest.against, guild_id
        )
        words = judgement_words(contest.persona, found, counts)
        await interaction.followup.send(words, ephemeral=True, allowed_mentions=NO_MENTIONS)

    @compare.autocomplete("version")
    @compare.autocomplete("against")
    @judgement.autocomplete("version")
    @judgement.autocomplete("against")
    async def _comparable(self, interaction: Interaction, current: str) -> Choices:
        try:
            persona = persona_meant(interaction, getattr(interaction.namespace, "persona", None))
        except RequestError:
            return []
        names = [name for name in version_names(self.bot.house, persona) if current.casefold() in name]
        return [app_commands.Choice(name=name, value=name) for name in names[:MAX_CHOICES]]


class CompareButton(
    LastingButton, template=rf"compare:(?P<persona_id>[\w-]+):(?P<version>{VERSION}):(?P<against>{VERSION})"
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
        persona = known_persona(interaction, self.persona_id)
        await show_one(interaction, contest_of(interaction.client.house, persona, self.version, self.against))


class ChoiceButton(LastingButton, template=r"judge:(?P<seq>[0-9]+):(?P<choice>a|b|tie|bad)"):
    """A vote. What was chosen first stays; then it is told who wrote which."""

    def __init__(self, seq: int, choice: Literal["a", "b", "tie", "bad"]) -> None:
        self.seq, self.choice = seq, choice
        super().__init__(discord.ui.Button(label=LABELS[choice], custom_id=f"judge:{seq}:{choice}"))

    @classmethod
    async def from_custom_id(cls, interaction: discord.Interaction[Any], item: Any, match: Any) -> Self:
        return cls(int(match["seq"]), match["choice"])

    async def pressed(self, interaction: Interaction) -> None:
        comparisons, now = interaction.client.house.store.comparisons, time.time()
        taken = comparisons.vote(self.seq, interaction.user.id, self.choice, now)
        one = comparisons.get(self.seq)
        if one is None or one.user_id != interaction.user.id:
            raise RefusedError("This comparison is not yours, or it is no longer kept.", "Press Compare for your own.")
        persona = known_persona(interaction, one.persona_id)
        is_late = one.has_expired(now)
        if not (taken or is_late):
            raise RefusedError("You have voted on these two.", revealed(one, persona).splitlines()[-1])
        again = CompareButton(one.persona_id, *_judged_first(one), label="Another")
        words = (expired if is_late else revealed)(one, persona)
        await interaction.response.edit_message(content=words, view=_view(again), allowed_mentions=NO_MENTIONS)
        if taken:
            await note_vote(interaction.client.house, one)


COMPARE_BUTTONS = (CompareButton, ChoiceButton)


async def show_one(interaction: Interaction, contest: Contest) -> None:
    """Show a member the comparison that they have not voted on yet, else a new one. Raises `UnderstudyError`."""
    _require_welcome(interaction, contest.persona)
    house, guild_id = interaction.client.house, interaction.guild_id or 0
    one = await shown_comparison(house, contest, interaction.user.id, guild_id)
    view = _view(*(ChoiceButton(one.seq, choice) for choice in ("a", "b", "tie", "bad")))
    await interaction.followup.send(
        question(one, contest.persona), view=view, ephemeral=True, allowed_mentions=NO_MENTIONS, suppress_embeds=True
    )


def _require_welcome(interaction: Interaction, persona: Persona) -> None:
    if isinstance(interaction.channel, GuildChannel):
        interaction.client.house.answerer.rules.require_unmuted(persona, place_of(interaction.channel))


def _judged_first(one: Comparison) -> tuple[str, str]:
    """Both versions in an order that does not depend on which was A."""
    later, earlier = sorted(one.versions, key=_number, reverse=True)
    return later, earlier


def _number(name: str) -> int:
    return 0 if name == BASE else int(name.removeprefix("v"))


def _view(*buttons: discord.ui.DynamicItem[Any]) -> discord.ui.View:
    view = discord.ui.View(timeout=None)
    for button in buttons:
        view.add_item(button)
    return view
