"""`/persona answering show|set|reset`: when the persona of a channel answers."""

from typing import Literal

from discord import app_commands

from bot.answering.actions import MAX_CHANCE, MAX_WAIT_S
from bot.answering.store import FIELDS, SettingValue
from bot.answering.texts import NAMES, effective_lines, settings_text
from bot.chat.places import ChannelRef, channel_ref
from bot.platform.discord_kit.transformers import (
    PERSONA,
    Interaction,
    require_changeable_channel,
    require_speak_channel,
)
from bot.platform.discord_kit.ui import respond

NO_HOURS = "none"
ANSWERING = app_commands.Group(
    name="answering",
    description="When the persona of this channel answers: quick lines, chance, quiet hours.",
    parent=PERSONA,
)


@ANSWERING.command(name="show", description="Show when the persona of this channel answers.")
async def answering_show(interaction: Interaction) -> None:
    place = channel_ref(require_speak_channel(interaction))
    await respond(
        interaction, "\n".join(["When the persona answers here:", *_lines(interaction, place)])
    )


@ANSWERING.command(
    name="set", description="Set when the persona of this channel answers (moderators)."
)
@app_commands.describe(
    wait="Seconds for which a reply waits for further lines of its member; 0 answers at once",
    chance="Share in percent of the messages said to nobody that it answers; 0: only if called",
    quiet_hours="Such as 22:00-07:00, in the server's time zone; `none` removes them",
    quiet_mentions="Whether it is silent to mentions and replies, too, in quiet hours",
)
async def answering_set(
    interaction: Interaction,
    wait: app_commands.Range[float, 0.0, MAX_WAIT_S] | None = None,
    chance: app_commands.Range[int, 0, MAX_CHANCE] | None = None,
    quiet_hours: app_commands.Range[str, 1, 40] | None = None,
    quiet_mentions: bool | None = None,
) -> None:
    place = channel_ref(require_changeable_channel(interaction))
    given = {
        "wait_s": wait,
        "reply_chance": chance,
        "quiet_hours": quiet_hours,
        "quiet_mentions": quiet_mentions,
    }
    changes: dict[str, SettingValue | None] = {}
    changes |= {name: value for name, value in given.items() if value is not None}
    if quiet_hours and quiet_hours.strip().casefold() == NO_HOURS:
        changes["quiet_hours"] = None
    services = interaction.client.services
    services.answering.change(place.guild_id, place.channel_id, changes, by=interaction.user.id)
    await respond(interaction, "\n".join(["Set for this channel.", *_lines(interaction, place)]))


@ANSWERING.command(
    name="reset", description="Remove what was set for answers here, or one setting (moderators)."
)
@app_commands.describe(setting="Which setting (all if left out)")
@app_commands.choices(
    setting=[app_commands.Choice(name=NAMES[name].lower(), value=name) for name in FIELDS]
)
async def answering_reset(
    interaction: Interaction,
    setting: Literal["wait_s", "reply_chance", "quiet_hours", "quiet_mentions"] | None = None,
) -> None:
    place = channel_ref(require_changeable_channel(interaction))
    services = interaction.client.services
    if setting:
        services.answering.change(
            place.guild_id, place.channel_id, {setting: None}, by=interaction.user.id
        )
    else:
        services.answering.reset(place.guild_id, place.channel_id, by=interaction.user.id)
    left = settings_text(services.store.answering.get(place.guild_id, place.channel_id))
    await respond(interaction, f"Reset. Set for this channel: {left}.")


def _lines(interaction: Interaction, place: ChannelRef) -> list[str]:
    held = interaction.client.services.answering.in_channel(
        place.guild_id, place.channel_id, place.parent_id
    )
    return [f"• {line}" for line in effective_lines(held, is_server=bool(place.guild_id))]
