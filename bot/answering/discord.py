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
from bot.platform.localisation import gettext_lazy, gettext_noop, join_texts

NO_HOURS = "none"
ANSWERING = app_commands.Group(
    name="answering",
    description=gettext_noop(
        "When the persona of this channel answers: quick lines, chance, quiet hours."
    ),
    parent=PERSONA,
)


@ANSWERING.command(
    name="show", description=gettext_noop("Show when the persona of this channel answers.")
)
async def answering_show(interaction: Interaction) -> None:
    place = channel_ref(require_speak_channel(interaction))
    title = gettext_lazy("When the persona answers here:")
    await respond(interaction, join_texts(title, *_lines(interaction, place), separator="\n"))


@ANSWERING.command(
    name="set",
    description=gettext_noop("Set when the persona of this channel answers (moderators)."),
)
@app_commands.describe(
    wait=gettext_noop(
        "Seconds for which a reply waits for further lines of its member; 0 answers at once"
    ),
    chance=gettext_noop(
        "Share in percent of the messages said to nobody that it answers; 0: only if called"
    ),
    quiet_hours=gettext_noop("Such as 22:00-07:00, in the server's time zone; `none` removes them"),
    quiet_mentions=gettext_noop(
        "Whether it is silent to mentions and replies, too, in quiet hours"
    ),
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
    title = gettext_lazy("Set for this channel.")
    await respond(interaction, join_texts(title, *_lines(interaction, place), separator="\n"))


@ANSWERING.command(
    name="reset",
    description=gettext_noop("Remove what was set for answers here, or one setting (moderators)."),
)
@app_commands.describe(setting=gettext_noop("Which setting (all if left out)"))
@app_commands.choices(
    setting=[
        app_commands.Choice(name=app_commands.locale_str(NAMES[name]), value=name)
        for name in FIELDS
    ]
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
    await respond(interaction, gettext_lazy("Reset. Set for this channel: {left}.", left=left))


def _lines(interaction: Interaction, place: ChannelRef) -> list[str]:
    held = interaction.client.services.answering.in_channel(
        place.guild_id, place.channel_id, place.parent_id
    )
    lines = effective_lines(held, is_server=bool(place.guild_id))
    return [gettext_lazy("• {line}", line=line) for line in lines]
