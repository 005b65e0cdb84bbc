"""`/moderation block|unblock|blocks|limits|age|roles`: who is not answered, how often others are, which
personas are age-restricted, and what roles may do.
"""

import time
from collections.abc import Sequence

import discord
from discord import app_commands

from bot.moderation.age import MARK_ADVICE, is_age_restricted
from bot.moderation.roles import ACTION_WORDS, ACTIONS, DEFAULT_HOLDERS, Action
from bot.moderation.store import Block, ReplyLimits
from bot.platform.discord_kit.transformers import MODERATION, Interaction, PersonaOption
from bot.platform.discord_kit.ui import respond
from bot.platform.errors import RefusedError
from bot.platform.messages import latest_lines
from bot.services import Services
from bot.store import ALL_PERSONAS
from personas.schemas.chat import Persona

MAX_PER_DAY = 10_000
MAX_COOLDOWN_S = 3600
MAX_NAMED = 20
"""Personas or channels that a text names."""
SHOW_FINETUNE_HELP = (
    "-# Discord shows `/finetune` to those with Manage Server, until an administrator adds the role "
    "there: Server Settings → Integrations → this bot → `/finetune`. Buttons need no more than this."
)
AGE_HELP = (
    "Such a persona speaks only in channels that Discord marks as age-restricted, and not in direct "
    "messages. The tag NSFW of a card marks its persona."
)


@MODERATION.command(description="Let a persona, or all of this server, no longer answer a member.")
@app_commands.describe(member="Whom", persona="Which persona (all if left out)")
async def block(
    interaction: Interaction, member: discord.User, persona: PersonaOption | None = None
) -> None:
    services = interaction.client.services
    if member.bot:
        raise RefusedError("Personas answer no bots anyway.", "Name a member.")
    if member.id == interaction.user.id:
        raise RefusedError("You cannot block yourself.", "Name another member.")
    new = Block(
        guild_id=interaction.guild_id or 0,
        user_id=member.id,
        persona_id=persona.id if persona else ALL_PERSONAS,
        blocked_by=interaction.user.id,
        at=time.time(),
    )
    services.store.blocks.add(new)
    services.reply_service.stop_blocked_replies(new.guild_id, member.id)
    services.audit.record(
        new.guild_id, interaction.user.id, f"blocked {_block_text(services, new)}"
    )
    await respond(
        interaction,
        f"Blocked: {_block_text(services, new)}. `/moderation unblock` lifts it. They are told when "
        "they use a command or a button; their messages stay unanswered.",
    )


@MODERATION.command(description="Let a blocked member be answered again.")
@app_commands.describe(
    member="Whom", persona="Which persona's block (all blocks of the member if left out)"
)
async def unblock(
    interaction: Interaction, member: discord.User, persona: PersonaOption | None = None
) -> None:
    services = interaction.client.services
    guild_id = interaction.guild_id or 0
    if not services.store.blocks.remove(guild_id, member.id, persona.id if persona else None):
        entries = services.store.blocks.of_guild(guild_id)
        held = [_block_text(services, entry) for entry in entries if entry.user_id == member.id]
        if not held:
            raise RefusedError(
                f"<@{member.id}> is not blocked.", "`/moderation blocks` lists who is."
            )
        raise RefusedError(
            f"There is no such block of <@{member.id}>.", f"Blocked: {'; '.join(held)}."
        )
    services.audit.record(
        guild_id, interaction.user.id, f"lifted the block of <@{member.id}> for {_who(persona)}"
    )
    await respond(interaction, f"<@{member.id}> is answered again by {_who(persona)}.")


@MODERATION.command(description="List the members who are not answered.")
async def blocks(interaction: Interaction) -> None:
    services = interaction.client.services
    entries = services.store.blocks.of_guild(interaction.guild_id or 0)
    lines = [_block_text(services, entry) for entry in entries]
    await respond(interaction, latest_lines(lines) or "Nobody is blocked.")


@MODERATION.command(description="Set how many replies a member gets each day, and how quickly.")
@app_commands.describe(
    per_day="Replies to a member each day; 0 for no limit",
    cooldown="Seconds between two replies to a member; 0 for none",
    moderators_exempt="Whether moderators have no limits (they have none if left out)",
)
async def limits(
    interaction: Interaction,
    per_day: app_commands.Range[int, 0, MAX_PER_DAY] | None = None,
    cooldown: app_commands.Range[int, 0, MAX_COOLDOWN_S] | None = None,
    moderators_exempt: bool | None = None,
) -> None:
    stored = interaction.client.services.store.limits
    guild_id = interaction.guild_id or 0
    before = stored.get(guild_id)
    new = ReplyLimits(
        per_day=before.per_day if per_day is None else per_day or None,
        cooldown_s=before.cooldown_s if cooldown is None else cooldown or None,
        exempts_moderators=(
            before.exempts_moderators if moderators_exempt is None else moderators_exempt
        ),
    )
    if new != before:
        stored.set(guild_id, new)
        interaction.client.services.audit.record(
            guild_id, interaction.user.id, f"changed the limits: {_limits_text(new).rstrip('.')}"
        )
    await respond(interaction, _limits_text(new))


@MODERATION.command(description="Show or set which personas speak in age-restricted channels only.")
@app_commands.describe(
    persona="Which persona (all age-restricted ones are listed if left out)",
    restricted="Whether it is age-restricted here. Left out, what holds is shown",
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
            raise RefusedError("No persona is named.", "Choose one with the option `persona`.")
        listed = restriction.of(services.personas.of(guild_id).values(), guild_id)
        names = _named([f"**{each.name}**" for each in listed]) or "none"
        await respond(interaction, f"Age-restricted here: {names}. {AGE_HELP}")
        return
    if restricted is not None:
        restriction.set(persona, guild_id, is_restricted=restricted)
        services.reply_service.stop_guild_replies(guild_id)
        mark = "age-restricted" if restricted else "not age-restricted"
        services.audit.record(guild_id, interaction.user.id, f"marked **{persona.name}** as {mark}")
    lines = [f"**{persona.name}** is not age-restricted here: it speaks in any channel."]
    if restriction.applies(persona, guild_id):
        lines = [f"**{persona.name}** is age-restricted here. {AGE_HELP}"]
        lines += _silent_channels(interaction, persona)
    await respond(interaction, "\n".join(lines))


@MODERATION.command(description="Show or set which roles may talk, teach, train and promote.")
@app_commands.describe(
    action="What the holders of a role may do, beside moderators",
    add="A role that may",
    remove="A role that no longer may",
    reset="Remove all roles first, also those that are deleted on Discord",
)
@app_commands.choices(
    action=[
        app_commands.Choice(name=f"{name}: {ACTION_WORDS[name]}", value=name) for name in ACTIONS
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
    permissions = services.reply_service.rules.roles
    if action is None and (add or remove or reset):
        raise RefusedError("No action is named.", "Choose one with the option `action`.")
    changes = []
    if action and (add or remove or reset):
        changes = permissions.change(guild_id, action, add=add, remove=remove, reset=reset)
    for change in changes:
        services.audit.record(guild_id, interaction.user.id, change)
    shown = [action] if action else ACTIONS
    lines = [_roles_line(services, guild_id, each) for each in shown]
    if add and action in ("train", "promote"):
        lines.append(SHOW_FINETUNE_HELP)
    await respond(interaction, "\n".join(lines))


def _roles_line(services: Services, guild_id: int, action: Action) -> str:
    named = sorted(services.store.action_roles.get(guild_id, action))
    holders = ", ".join(f"<@&{role_id}>" for role_id in named) or DEFAULT_HOLDERS[action]
    beside = "" if holders in ("everybody", "moderators alone") else " and moderators"
    return f"• {ACTION_WORDS[action].capitalize()}: {holders}{beside}"


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
    return [f"It is silent in {_named(silent)}, which Discord does not mark. {MARK_ADVICE}"]


def _named(names: Sequence[str]) -> str:
    """Join names by commas, as many as have room; empty where there are none."""
    further = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {further} more" if further > 0 else "")


def _limits_text(limits: ReplyLimits) -> str:
    parts = []
    if limits.per_day is not None:
        parts.append(f"{limits.per_day} a day, from midnight in the server's time zone")
    if limits.cooldown_s is not None:
        parts.append(f"one in {limits.cooldown_s} seconds")
    if not parts:
        return "Replies to a member have no limit here."
    exempt = "Moderators have no limit." if limits.exempts_moderators else "Moderators, too."
    return f"Replies to a member here: {'; '.join(parts)}. {exempt}"


def _who(persona: Persona | None) -> str:
    return persona.name if persona else "all personas"


def _block_text(services: Services, entry: Block) -> str:
    name = services.personas.name_of(entry.persona_id, entry.guild_id) or "all personas"
    return f"<@{entry.user_id}> for {name}"
