"""`/finetune compare` and `/finetune judgement`: members compare two versions in a blind test."""

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
    require_guild_channel,
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
from bot.platform.localisation import (
    gettext_lazy,
    gettext_noop,
    interaction_language,
    localise,
    override,
)
from bot.store import VoteChoice
from bot.versions.blind_test.actions import Contest
from bot.versions.blind_test.judgement_text import (
    expired_text,
    invitation_text,
    judgement_text,
    question_text,
    revealed_text,
    vote_text,
)
from personas.schemas.chat import Persona

VERSION_PATTERN = r"base|v[0-9]+"
CHOICE_LABELS: dict[VoteChoice, str] = {
    "a": "A",
    "b": "B",
    "tie": gettext_lazy("Tie"),
    "bad": gettext_lazy("Both bad"),
}
OPTION_HELP = {
    "persona": CHANNEL_PERSONA_HELP,
    "version": gettext_noop("Which version, or base (the newest that is not live if left out)"),
    "against": gettext_noop("Against which version, or base (the live one if left out)"),
}


def _suggested_versions(interaction: Interaction) -> list[str]:
    blind_tests = interaction.client.services.blind_tests
    return blind_tests.version_names(persona_option(interaction), interaction.guild_id or 0)


VersionOption = app_commands.Transform[str, SuggestionTransformer(_suggested_versions)]


@FINETUNE.command(
    description=gettext_noop(
        "Compare two versions blindly: two unnamed replies to one prompt, which is better?"
    )
)
@app_commands.describe(
    invite=gettext_noop("Whether members of this channel are invited, too (yes if left out)"),
    **OPTION_HELP,
)
async def compare(
    interaction: Interaction,
    persona: PersonaOption | None = None,
    version: VersionOption | None = None,
    against: VersionOption | None = None,
    invite: bool = True,
) -> None:
    channel = require_guild_channel(interaction)
    await defer(interaction, ephemeral=True)
    contest = _find_contest(interaction, persona or channel_persona(interaction), version, against)
    _require_may_compare(interaction, contest.persona)
    if invite:
        with override(interaction_language(interaction, is_private=False)):
            await invite_members(channel, contest)
    await show_comparison(interaction, contest)


@FINETUNE.command(
    description=gettext_noop(
        "Show what members' blind votes say about two versions, and how certain it is."
    )
)
@app_commands.describe(**OPTION_HELP)
async def judgement(
    interaction: Interaction,
    persona: PersonaOption | None = None,
    version: VersionOption | None = None,
    against: VersionOption | None = None,
) -> None:
    await defer(interaction, ephemeral=True)
    contest = _find_contest(interaction, persona or channel_persona(interaction), version, against)
    result, counts = await interaction.client.services.blind_tests.judge(
        contest, interaction.guild_id or 0
    )
    await respond(interaction, judgement_text(contest.persona, result, counts))


class CompareButton(
    PersistentButton,
    template=rf"compare:(?P<persona_id>[\w-]+):(?P<version>{VERSION_PATTERN}):(?P<against>{VERSION_PATTERN})",
):
    """Shows whoever presses it two replies of their own."""

    label = gettext_lazy("Compare")
    style = discord.ButtonStyle.primary
    actions = ("talk",)
    persona_id: str
    version: str
    against: str

    async def pressed(self, interaction: Interaction) -> None:
        await defer(interaction, ephemeral=True, thinking=True)
        persona = require_persona(interaction, self.persona_id)
        contest = _find_contest(interaction, persona, self.version, self.against)
        _require_may_compare(interaction, persona)
        await show_comparison(interaction, contest)


class ComparisonVoteButton(
    PersistentButton, template=r"judge:(?P<seq>[0-9]+):(?P<choice>a|b|tie|bad)"
):
    """A vote. The first one counts; it reveals which version wrote which reply."""

    actions = ("talk",)
    seq: str
    choice: VoteChoice

    async def pressed(self, interaction: Interaction) -> None:
        services = interaction.client.services
        blind_tests = services.blind_tests
        own = blind_tests.get(int(self.seq), interaction.user.id)
        persona = require_persona(interaction, own.persona_id)
        place = channel_ref(require_guild_channel(interaction))
        services.reply_service.rules.require_may_talk([persona], place, interaction.user)
        result = blind_tests.vote(own.seq, interaction.user.id, self.choice)
        comparison = result.comparison
        if result.outcome == "repeated":
            raise RefusedError(gettext_lazy("You have voted on these two."), vote_text(comparison))
        text_of = expired_text if result.outcome == "late" else revealed_text
        contest = Contest.of(persona, comparison)
        again = _compare_button(contest, label=gettext_lazy("Another"))
        await update_message(
            interaction, content=text_of(comparison, persona), view=button_view(again)
        )
        await blind_tests.record_feedback(result)


def _compare_button(contest: Contest, label: str | None = None) -> CompareButton:
    version, against = contest.names
    return CompareButton(contest.persona.id, version, against, label=label)


COMPARE_BUTTONS = (CompareButton, ComparisonVoteButton)


async def invite_members(channel: GuildChannel, contest: Contest) -> None:
    """Post the invitation to a blind test in a channel. Raises `discord.HTTPException`."""
    view = button_view(_compare_button(contest))
    await channel.send(localise(invitation_text(contest)), view=view)


async def show_comparison(interaction: Interaction, contest: Contest) -> None:
    """Show a member the comparison that they have not voted on yet, else a new one. Raises
    `UnderstudyError`.
    """
    comparison = await interaction.client.services.blind_tests.assign(
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


def _require_may_compare(interaction: Interaction, persona: Persona) -> None:
    """Raise `RefusedError` where the persona is silent, or does not answer the member."""
    rules = interaction.client.services.reply_service.rules
    place = channel_ref(require_guild_channel(interaction))
    rules.require_unmuted(persona, place)
    rules.age.require(persona, interaction.channel)
    rules.require_may_talk([persona], place, interaction.user)


def _find_contest(
    interaction: Interaction, persona: Persona, version: str | None, against: str | None
) -> Contest:
    """Resolve two versions that the server may use."""
    return interaction.client.services.blind_tests.contest(
        persona, version, against, interaction.guild_id or 0
    )
