"""`/finetune compare` and `/finetune judgement`: members compare two versions in a blind test."""

import asyncio
import time

import discord
from discord import app_commands

from bot.chat.places import GuildChannel, channel_ref
from bot.platform.discord_kit.transformers import (
    CHANNEL_PERSONA_HELP,
    FINETUNE,
    Interaction,
    PersonaOption,
    SuggestionTransformer,
    channel_persona,
    persona_option,
    require_persona,
)
from bot.platform.discord_kit.ui import (
    PersistentButton,
    button_view,
    defer,
    respond,
    update_message,
)
from bot.platform.errors import RefusedError
from bot.store import BASE_MODEL_NAME, BlindComparison, VoteChoice
from bot.versions.blind_test.assignment import Contest
from bot.versions.blind_test.judgement import judge_votes
from bot.versions.blind_test.judgement_text import (
    expired_text,
    invitation_text,
    judgement_text,
    question_text,
    revealed_text,
)
from bot.versions.member_feedback import record_vote
from personas.schemas.chat import Persona

VERSION_PATTERN = r"base|v[0-9]+"
CHOICE_LABELS: dict[VoteChoice, str] = {"a": "A", "b": "B", "tie": "Tie", "bad": "Both bad"}
OPTION_HELP = {
    "persona": CHANNEL_PERSONA_HELP,
    "version": "Which version, or base (the newest that is not live if left out)",
    "against": "Against which version, or base (the live one if left out)",
}


def _suggested_versions(interaction: Interaction) -> list[str]:
    blind_tests = interaction.client.services.blind_tests
    return blind_tests.version_names(persona_option(interaction), interaction.guild_id or 0)


VersionOption = app_commands.Transform[str, SuggestionTransformer(_suggested_versions)]


@FINETUNE.command(
    description="Compare two versions blindly: two unnamed replies to one prompt, which is better?"
)
@app_commands.describe(
    invite="Whether members of this channel are invited, too (yes if left out)", **OPTION_HELP
)
async def compare(
    interaction: Interaction,
    persona: PersonaOption | None = None,
    version: VersionOption | None = None,
    against: VersionOption | None = None,
    invite: bool = True,
) -> None:
    channel = interaction.channel
    if not isinstance(channel, GuildChannel):
        raise RefusedError("Versions are compared in text channels and threads.", "Try it there.")
    await defer(interaction, ephemeral=True)
    contest = _find_contest(interaction, persona or channel_persona(interaction), version, against)
    if invite:
        await channel.send(
            invitation_text(contest),
            view=button_view(CompareButton(contest.persona.id, *contest.names)),
        )
    await show_comparison(interaction, contest)


@FINETUNE.command(
    description="Show what members' blind votes say about two versions, and how certain it is."
)
@app_commands.describe(**OPTION_HELP)
async def judgement(
    interaction: Interaction,
    persona: PersonaOption | None = None,
    version: VersionOption | None = None,
    against: VersionOption | None = None,
) -> None:
    await defer(interaction, ephemeral=True)
    services = interaction.client.services
    guild_id = interaction.guild_id or 0
    contest = _find_contest(interaction, persona or channel_persona(interaction), version, against)
    comparisons = services.store.comparisons
    persona_id = contest.persona.id
    votes = comparisons.voted(persona_id, guild_id)
    result = await asyncio.to_thread(judge_votes, votes, *contest.names, time.time())
    counts = comparisons.judgement_counts(persona_id, contest.version, contest.against, guild_id)
    await respond(interaction, judgement_text(contest.persona, result, counts))


class CompareButton(
    PersistentButton,
    template=rf"compare:(?P<persona_id>[\w-]+):(?P<version>{VERSION_PATTERN}):(?P<against>{VERSION_PATTERN})",
):
    """Shows whoever presses it two replies of their own."""

    label = "Compare"
    style = discord.ButtonStyle.primary
    persona_id: str
    version: str
    against: str

    async def pressed(self, interaction: Interaction) -> None:
        await defer(interaction, ephemeral=True, thinking=True)
        persona = require_persona(interaction, self.persona_id)
        contest = _find_contest(interaction, persona, self.version, self.against)
        await show_comparison(interaction, contest)


class ComparisonVoteButton(
    PersistentButton, template=r"judge:(?P<seq>[0-9]+):(?P<choice>a|b|tie|bad)"
):
    """A vote. The first one counts; it reveals which version wrote which reply."""

    seq: str
    choice: VoteChoice

    async def pressed(self, interaction: Interaction) -> None:
        services = interaction.client.services
        now = time.time()
        seq = int(self.seq)
        is_counted = services.store.comparisons.vote(seq, interaction.user.id, self.choice, now)
        comparison = services.store.comparisons.get(seq)
        if comparison is None or comparison.user_id != interaction.user.id:
            raise RefusedError(
                "This comparison is not yours, or it is no longer kept.",
                "Press Compare for your own.",
            )
        persona = require_persona(interaction, comparison.persona_id)
        is_late = comparison.has_expired(now)
        if not (is_counted or is_late):
            raise RefusedError(
                "You have voted on these two.", revealed_text(comparison, persona).splitlines()[-1]
            )
        again = CompareButton(comparison.persona_id, *_version_order(comparison), label="Another")
        text = (expired_text if is_late else revealed_text)(comparison, persona)
        await update_message(interaction, content=text, view=button_view(again))
        if is_counted:
            await record_vote(services.home, services.store, services.personas, comparison)


COMPARE_BUTTONS = (CompareButton, ComparisonVoteButton)


async def show_comparison(interaction: Interaction, contest: Contest) -> None:
    """Show a member the comparison that they have not voted on yet, else a new one. Raises
    `UnderstudyError`.
    """
    services = interaction.client.services
    if isinstance(interaction.channel, GuildChannel):
        services.reply_service.rules.require_unmuted(
            contest.persona, channel_ref(interaction.channel)
        )
    comparison = await services.blind_tests.assign(
        contest, interaction.user.id, interaction.guild_id or 0
    )
    buttons = [
        ComparisonVoteButton(comparison.seq, choice, label=CHOICE_LABELS[choice])
        for choice in CHOICE_LABELS
    ]
    await respond(
        interaction,
        question_text(comparison, contest.persona),
        button_view(*buttons),
        suppress_embeds=True,
    )


def _find_contest(
    interaction: Interaction, persona: Persona, version: str | None, against: str | None
) -> Contest:
    """Resolve two versions that the server may use."""
    return interaction.client.services.blind_tests.contest(
        persona, version, against, interaction.guild_id or 0
    )


def _version_order(comparison: BlindComparison) -> list[str]:
    """Both versions in an order that does not depend on which was A: the later one first."""
    return sorted(
        comparison.versions,
        key=lambda it: 0 if it == BASE_MODEL_NAME else int(it.removeprefix("v")),
        reverse=True,
    )
