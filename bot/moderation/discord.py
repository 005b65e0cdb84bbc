"""`/moderation block|unblock|blocks|limits|age|roles`: who is not answered, how often others are, which
personas are age-restricted, and what roles may do.
"""

from collections.abc import Sequence

import discord
from discord import app_commands

from bot.guild_settings.definitions import (
    COOLDOWN_S,
    LIMITS,
    MAX_COOLDOWN_S,
    MAX_PER_DAY,
    MODERATORS_EXEMPT,
    PER_DAY,
)
from bot.guild_settings.store import SettingScope
from bot.moderation.age import MARK_ADVICE, is_age_restricted
from bot.moderation.limits import read_limits
from bot.moderation.roles import ACTION_TITLES, ACTIONS, DEFAULT_HOLDERS, Action
from bot.moderation.texts import (
    AGE_HELP,
    FINETUNE_HELP,
    block_text,
    limits_text,
    persona_text,
)
from bot.platform.discord_kit.transformers import MODERATION, Interaction, PersonaOption
from bot.platform.discord_kit.ui import respond
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy, gettext_noop, join_names, join_texts, localise
from bot.platform.messages import latest_lines, markdown_name
from bot.services import Services
from bot.store import ALL_PERSONAS
from personas.schemas.chat import Persona

MAX_NAMED = 20
"""Personas or channels that a text names."""


@MODERATION.command(
    description=gettext_noop("Let a persona, or all of this server, no longer answer a member.")
)
@app_commands.describe(
    member=gettext_noop("Whom"), persona=gettext_noop("Which persona (all if left out)")
)
async def block(
    interaction: Interaction, member: discord.User, persona: PersonaOption | None = None
) -> None:
    services = interaction.client.services
    new = services.moderation.block(
        interaction.guild_id or 0, member, persona, by=interaction.user.id
    )
    await respond(
        interaction,
        gettext_lazy(
            "Blocked: {block}. `/moderation unblock` lifts it. They are told when they use a "
            "command or a button; their messages stay unanswered.",
            block=block_text(services.personas, new),
        ),
    )


@MODERATION.command(description=gettext_noop("Let a blocked member be answered again."))
@app_commands.describe(
    member=gettext_noop("Whom"),
    persona=gettext_noop("Which persona's block (all blocks of the member if left out)"),
)
async def unblock(
    interaction: Interaction, member: discord.User, persona: PersonaOption | None = None
) -> None:
    services = interaction.client.services
    guild_id = interaction.guild_id or 0
    persona_id = persona.id if persona else None
    services.moderation.unblock(guild_id, member.id, persona_id, by=interaction.user.id)
    await respond(
        interaction,
        gettext_lazy(
            "{member} is answered again by {persona}.",
            member=f"<@{member.id}>",
            persona=persona_text(
                services.personas, persona_id or ALL_PERSONAS, guild_id, is_markdown=True
            ),
        ),
    )


@MODERATION.command(description=gettext_noop("List the members who are not answered."))
async def blocks(interaction: Interaction) -> None:
    services = interaction.client.services
    entries = services.store.blocks.of_guild(interaction.guild_id or 0)
    lines = [localise(block_text(services.personas, entry)) for entry in entries]
    text = latest_lines(lines)
    await respond(interaction, text or gettext_lazy("Nobody is blocked."))


@MODERATION.command(
    description=gettext_noop("Set how many replies a member gets each day, and how quickly.")
)
@app_commands.describe(
    per_day=gettext_noop("Replies to a member each day; 0 for no limit"),
    cooldown=gettext_noop("Seconds between two replies to a member; 0 for none"),
    moderators_exempt=gettext_noop(
        "Whether moderators have no limits (they have none if left out)"
    ),
)
async def limits(
    interaction: Interaction,
    per_day: app_commands.Range[int, 0, MAX_PER_DAY] | None = None,
    cooldown: app_commands.Range[int, 0, MAX_COOLDOWN_S] | None = None,
    moderators_exempt: bool | None = None,
) -> None:
    given = {
        PER_DAY.key: per_day,
        COOLDOWN_S.key: cooldown,
        MODERATORS_EXEMPT.key: moderators_exempt,
    }
    services = interaction.client.services
    guild_id = interaction.guild_id or 0
    changes = {key: value for key, value in given.items() if value is not None}
    if changes:
        scope = SettingScope(guild_id)
        services.guild_settings.change(LIMITS, scope, changes, by=interaction.user.id)
    await respond(interaction, limits_text(read_limits(services.store, guild_id), guild_id))


@MODERATION.command(
    description=gettext_noop("Show or set which personas speak in age-restricted channels only.")
)
@app_commands.describe(
    persona=gettext_noop("Which persona (all age-restricted ones are listed if left out)"),
    restricted=gettext_noop("Whether it is age-restricted here. Left out, what holds is shown"),
)
async def age(
    interaction: Interaction,
    persona: PersonaOption | None = None,
    restricted: bool | None = None,
) -> None:
    services = interaction.client.services
    guild_id = interaction.guild_id or 0
    restriction = services.reply_service.rules.age
    if persona is None:
        if restricted is not None:
            raise RefusedError(
                gettext_lazy("No persona is named."),
                gettext_lazy("Choose one with the option `persona`."),
            )
        listed = restriction.of(services.personas.of(guild_id).values(), guild_id)
        text = gettext_lazy("No persona is age-restricted here.")
        if listed:
            names = _named([f"**{markdown_name(each)}**" for each in listed])
            text = gettext_lazy("Age-restricted here: {names}.", names=names)
        await respond(interaction, join_texts(text, AGE_HELP))
        return
    face = services.faces.chosen(guild_id)
    if restricted is not None:
        services.moderation.mark_age(
            guild_id, persona, is_restricted=restricted, by=interaction.user.id
        )
    lines: list[str] = [
        gettext_lazy(
            "**{persona}** is not age-restricted here: it speaks in any channel.",
            persona=markdown_name(persona),
        )
    ]
    if restriction.applies(persona, guild_id):
        text = gettext_lazy("**{persona}** is age-restricted here.", persona=markdown_name(persona))
        lines = [join_texts(text, AGE_HELP), *_silent_channels(interaction, persona)]
        if face and face.id == persona.id:
            lines.append(gettext_lazy("The bot takes off its name and picture."))
    await respond(interaction, join_texts(*lines, separator="\n"))


@MODERATION.command(
    description=gettext_noop("Show or set which roles may talk, teach, train and promote.")
)
@app_commands.describe(
    action=gettext_noop("What the holders of a role may do, beside moderators"),
    add=gettext_noop("A role that may"),
    remove=gettext_noop("A role that no longer may"),
    reset=gettext_noop("Remove all roles first, also those that are deleted on Discord"),
)
@app_commands.choices(
    action=[
        app_commands.Choice(name=app_commands.locale_str(ACTION_TITLES[name]), value=name)
        for name in ACTIONS
    ]
)
async def roles(
    interaction: Interaction,
    action: Action | None = None,
    add: discord.Role | None = None,
    remove: discord.Role | None = None,
    reset: bool = False,
) -> None:
    services = interaction.client.services
    guild_id = interaction.guild_id or 0
    if action is None and (add or remove or reset):
        raise RefusedError(
            gettext_lazy("No action is named."),
            gettext_lazy("Choose one with the option `action`."),
        )
    if action and (add or remove or reset):
        services.moderation.change_roles(
            guild_id, action, by=interaction.user.id, add=add, remove=remove, reset=reset
        )
    shown = [action] if action else ACTIONS
    lines = [_roles_line(services, guild_id, each) for each in shown]
    if add and action in ("train", "promote"):
        lines.append(join_texts("-#", FINETUNE_HELP))
    await respond(interaction, join_texts(*lines, separator="\n"))


def _roles_line(services: Services, guild_id: int, action: Action) -> str:
    holders = DEFAULT_HOLDERS[action]
    if named := sorted(services.store.action_roles.get(guild_id, action)):
        roles = ", ".join(f"<@&{role_id}>" for role_id in named)
        holders = gettext_lazy("{roles} and moderators", roles=roles)
    return gettext_lazy("• {action}: {holders}", action=ACTION_TITLES[action], holders=holders)


def _silent_channels(interaction: Interaction, persona: Persona) -> list[str]:
    """Say in which of its channels an age-restricted persona does not speak."""
    channels = interaction.client.services.store.channels
    guild = interaction.guild
    silent = []
    residents = channels.residents(channels.of_guild(interaction.guild_id or 0))
    for channel_id, persona_ids in residents.items():
        channel = guild.get_channel_or_thread(channel_id) if guild else None
        if persona.id in persona_ids and channel and not is_age_restricted(channel):
            silent.append(channel.mention)
    if not silent:
        return []
    return [
        gettext_lazy(
            "It is silent in {channels}, which Discord does not mark. {advice}",
            channels=_named(silent),
            advice=MARK_ADVICE,
        )
    ]


def _named(names: Sequence[str]) -> str:
    """Join names by commas, as many as have room; empty where there are none."""
    shown = join_names(names[:MAX_NAMED])
    further = len(names) - MAX_NAMED
    if further <= 0:
        return shown
    return gettext_lazy("{names} and {count} more", names=shown, count=further)
