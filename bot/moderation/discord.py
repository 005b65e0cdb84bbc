"""`/moderation block|unblock|blocks|limits`: who is not answered, and how often others are."""

import time

import discord
from discord import app_commands

from bot.moderation.store import Block, ReplyLimits
from bot.platform.discord_kit.transformers import MODERATION, Interaction, PersonaOption
from bot.platform.discord_kit.ui import respond
from bot.platform.errors import RefusedError
from bot.services import Services
from bot.store import ALL_PERSONAS
from personas.schemas.chat import Persona

MAX_PER_DAY = 10_000
MAX_COOLDOWN_S = 3600
MAX_LISTED_BLOCKS = 40


@MODERATION.command(description="Let a persona, or all of this server, no longer answer a member.")
@app_commands.describe(member="Whom", persona="Which persona (all if left out)")
async def block(
    interaction: Interaction, member: discord.User, persona: PersonaOption | None = None
) -> None:
    services = interaction.client.services
    if member.bot:
        raise RefusedError("Personas answer no bots anyway.", "Name a member.")
    new = Block(
        guild_id=interaction.guild_id or 0,
        user_id=member.id,
        persona_id=persona.id if persona else ALL_PERSONAS,
        blocked_by=interaction.user.id,
        at=time.time(),
    )
    services.store.blocks.add(new)
    services.reply_service.stop_blocked_replies(new.guild_id, member.id)
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
        others = [
            _block_text(services, other)
            for other in services.store.blocks.of_guild(guild_id)
            if other.user_id == member.id
        ]
        raise RefusedError(
            f"There is no such block of <@{member.id}>.",
            f"Blocked: {'; '.join(others) or 'not at all'}.",
        )
    await respond(interaction, f"<@{member.id}> is answered again by {_who(persona)}.")


@MODERATION.command(description="List the members who are not answered.")
async def blocks(interaction: Interaction) -> None:
    services = interaction.client.services
    entries = services.store.blocks.of_guild(interaction.guild_id or 0)
    lines = [_block_text(services, entry) for entry in entries[-MAX_LISTED_BLOCKS:]]
    if len(entries) > MAX_LISTED_BLOCKS:
        lines.insert(0, f"{len(entries) - MAX_LISTED_BLOCKS} earlier ones, and:")
    await respond(interaction, "\n".join(lines) or "Nobody is blocked.")


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
    await respond(interaction, _limits_text(new))


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
    persona = services.personas.get(entry.persona_id, entry.guild_id)
    name = persona.name if persona else entry.persona_id or "all personas"
    return f"<@{entry.user_id}>, by {name}"
