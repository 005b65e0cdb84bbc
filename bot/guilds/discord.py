"""`/persona timezone` and `/persona topic`: what personas of a server are told of their place."""

from discord import app_commands

from bot.chat.places import channel_ref
from bot.chat.situation import channel_topic
from bot.platform.discord_kit.transformers import (
    MAX_CHOICES,
    PERSONA,
    Interaction,
    guild_moderators_only,
    require_guild_channel,
)
from bot.platform.discord_kit.ui import respond
from bot.platform.time_zones import zone_names
from personas.prompt.time_macros import zone_label

DM_TEXT = "This is set for a server."


async def _suggest_zones(_: Interaction, typed: str) -> list[app_commands.Choice[str]]:
    words = typed.strip().casefold().replace(" ", "_")
    matches = [name for folded, name in zone_names().items() if words in folded]
    # Zones of cities first: few people look for Etc/GMT+3.
    matches.sort(key=lambda name: (not name.casefold().startswith(words), "Etc/" in name))
    return [app_commands.Choice(name=name, value=name) for name in matches[:MAX_CHOICES]]


@guild_moderators_only(DM_TEXT)
@PERSONA.command(
    description="Set the time zone of this server, for cards with {{time}} (moderators)."
)
@app_commands.describe(zone="Such as Europe/Berlin. Left out, the present one is shown")
@app_commands.autocomplete(zone=_suggest_zones)
async def timezone(interaction: Interaction, zone: str | None = None) -> None:
    zones = interaction.client.services.time_zones
    guild_id = interaction.guild_id or 0
    if zone:
        zones.choose(guild_id, zone)
    now = zones.now(guild_id)
    whose = "This server has chosen it"
    if interaction.client.services.store.guilds.time_zone(guild_id) is None:
        whose = "That is the operator's"
    await respond(
        interaction,
        f"The time zone here is {zones.in_guild(guild_id).key}, where it is {now:%H:%M} "
        f"{zone_label(now)} on {now:%A}. {whose}. Personas know the time if their card says "
        "`{{time}}`, `{{date}}` or `{{weekday}}`.",
    )


@guild_moderators_only(DM_TEXT)
@PERSONA.command(description="Tell the persona this channel's topic, or not (moderators).")
@app_commands.describe(told="Whether it is told. Left out, what holds is shown")
async def topic(interaction: Interaction, told: bool | None = None) -> None:
    channel = require_guild_channel(interaction)
    place = channel_ref(channel)
    channels = interaction.client.services.store.channels
    if told is not None:
        channels.set_topic_told(place.guild_id, place.home_id, told)
    if not channels.is_topic_told(place.home_id):
        await respond(interaction, "The persona here is not told the channel's topic.")
        return
    text = channel_topic(channel)
    shown = f"now: {text}" if text else "and there is none now."
    await respond(interaction, f"The persona here is told the channel's topic, {shown}")
