"""`/persona timezone` and `/persona topic`: what personas of a server are told of their place."""

from discord import app_commands

from bot.chat.places import channel_ref
from bot.chat.situation import channel_topic
from bot.guild_settings.definitions import IS_TOPIC_TOLD, TIME_ZONE
from bot.platform.discord_kit.transformers import (
    MAX_CHOICES,
    PERSONA,
    Interaction,
    guild_moderators_only,
    require_guild_channel,
)
from bot.platform.discord_kit.ui import respond
from bot.platform.localisation import gettext_lazy, gettext_noop
from bot.platform.time_zones import zone_names
from bot.platform.weekly_time import WEEKDAYS
from personas.prompt.time_macros import zone_label

DM_TEXT = gettext_lazy("This is set for a server.")
TOPIC_RECORDS = {
    True: gettext_noop("let personas be told the topic of {channel}"),
    False: gettext_noop("let personas no longer be told the topic of {channel}"),
}


async def _suggest_zones(_: Interaction, typed: str) -> list[app_commands.Choice[str]]:
    words = typed.strip().casefold().replace(" ", "_")
    matches = [name for folded, name in zone_names().items() if words in folded]
    # Zones of cities first: few people look for Etc/GMT+3.
    matches.sort(key=lambda name: (not name.casefold().startswith(words), "Etc/" in name))
    return [app_commands.Choice(name=name, value=name) for name in matches[:MAX_CHOICES]]


@guild_moderators_only(DM_TEXT)
@PERSONA.command(
    description=gettext_noop(
        "Set the time zone of this server, for cards with {{time}} (moderators)."
    )
)
@app_commands.describe(
    zone=gettext_noop("Such as Europe/Berlin. Left out, the present one is shown")
)
@app_commands.autocomplete(zone=_suggest_zones)
async def timezone(interaction: Interaction, zone: str | None = None) -> None:
    services = interaction.client.services
    zones = services.time_zones
    guild_id = interaction.guild_id or 0
    if zone:
        zones.choose(guild_id, zone)
        services.audit.record(
            guild_id,
            interaction.user.id,
            gettext_lazy(
                "set the time zone of this server to {zone}", zone=zones.in_guild(guild_id).key
            ),
        )
    now = zones.now(guild_id)
    whose = gettext_lazy("This server has chosen it.")
    if TIME_ZONE.read(services.store, guild_id) is None:
        whose = gettext_lazy("That is the operator's.")
    await respond(
        interaction,
        gettext_lazy(
            "The time zone here is {zone}, where it is {time} {label} on {day}. {whose} Personas "
            "know the time if their card says `{{{{time}}}}`, `{{{{date}}}}` or `{{{{weekday}}}}`.",
            zone=zones.in_guild(guild_id).key,
            time=f"{now:%H:%M}",
            label=zone_label(now),
            day=WEEKDAYS[now.weekday()],
            whose=whose,
        ),
    )


@guild_moderators_only(DM_TEXT)
@PERSONA.command(
    description=gettext_noop("Tell the persona this channel's topic, or not (moderators).")
)
@app_commands.describe(told=gettext_noop("Whether it is told. Left out, what holds is shown"))
async def topic(interaction: Interaction, told: bool | None = None) -> None:
    channel = require_guild_channel(interaction)
    place = channel_ref(channel)
    services = interaction.client.services
    if told is not None:
        IS_TOPIC_TOLD.write(services.store, told, place.guild_id, channel_id=place.home_id)
        services.audit.record(
            place.guild_id,
            interaction.user.id,
            gettext_lazy(TOPIC_RECORDS[told], channel=f"<#{place.home_id}>"),
        )
    if not IS_TOPIC_TOLD.held(services.store, place.guild_id, channel_id=place.home_id):
        await respond(
            interaction, gettext_lazy("The persona here is not told the channel's topic.")
        )
        return
    text = channel_topic(channel)
    shown = gettext_lazy("The persona here is told the channel's topic, and there is none now.")
    if text:
        shown = gettext_lazy(
            "The persona here is told the channel's topic, now: {topic}", topic=text
        )
    await respond(interaction, shown)
