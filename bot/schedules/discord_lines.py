"""`/persona line set|show|remove`: what the persona of a channel says at set times."""

from discord import app_commands

from bot.chat.places import channel_ref
from bot.platform.discord_kit.transformers import (
    MAX_CHOICES,
    MAX_LABEL_CHARS,
    PERSONA,
    Interaction,
    guild_moderators_only,
    require_guild_channel,
)
from bot.platform.discord_kit.ui import defer, respond
from bot.platform.localisation import (
    LocalisableText,
    gettext_lazy,
    gettext_noop,
    join_texts,
    localise,
)
from bot.platform.messages import message_texts
from bot.platform.weekly_time import DAY_SETS, WeeklyTime
from bot.schedules.lines import MAX_PROMPT_CHARS
from bot.schedules.store import ScheduledLine
from bot.schedules.texts import line_time_text
from bot.services import Services

DM_TEXT = gettext_lazy("Personas speak by themselves in servers alone.")
NOBODY_TEXT = gettext_lazy(
    "No persona lives here: until `/persona set` gives the channel one, the line is left out."
)
LINE = app_commands.Group(
    name="line",
    description=gettext_noop("What the persona of this channel says at set times."),
    parent=PERSONA,
)
DAY_CHOICES = [
    app_commands.Choice(name=app_commands.locale_str(name), value=str(name)) for name in DAY_SETS
]


@guild_moderators_only(DM_TEXT)
@LINE.command(
    name="set",
    description=gettext_noop("Have the persona here say something at a set time (moderators)."),
)
@app_commands.describe(
    time=gettext_noop("The time of day in the server's time zone, such as 08:30"),
    prompt=gettext_noop("What it is to say, such as: say good morning and ask how everybody slept"),
    weekday=gettext_noop("The days (every day if left out)"),
)
@app_commands.choices(weekday=DAY_CHOICES)
async def line_set(
    interaction: Interaction,
    time: app_commands.Range[str, 1, 10],
    prompt: app_commands.Range[str, 1, MAX_PROMPT_CHARS],
    weekday: str = "every day",
) -> None:
    channel = require_guild_channel(interaction)
    services = interaction.client.services
    when = WeeklyTime.on(DAY_SETS[weekday], time)
    await defer(interaction, ephemeral=True)
    typed = await services.message_reader.read_interaction(interaction, prompt)
    line = services.scheduled_lines.add(channel, when, typed.text, user_id=interaction.user.id)
    answer: list[str] = [gettext_lazy("Set: {line}", line=line_text(services, line))]
    if services.scheduled_lines.speaker(channel_ref(channel)) is None:
        answer.append(NOBODY_TEXT)
    note = gettext_lazy(
        "-# Whoever lives in the channel then says it, but not in its quiet hours. `/persona line "
        "remove` ends it."
    )
    await respond(interaction, join_texts(*answer, note, separator="\n"))


@guild_moderators_only(DM_TEXT)
@LINE.command(
    name="show", description=gettext_noop("List what personas here say at set times (moderators).")
)
async def line_show(interaction: Interaction) -> None:
    services = interaction.client.services
    lines = services.store.scheduled_lines.of_guild(interaction.guild_id or 0)
    texts = [f"• {localise(line_text(services, line))}" for line in lines]
    for text in message_texts(texts or [gettext_lazy("Nothing is said at set times here.")]):
        await respond(interaction, text)


async def _suggest_lines(interaction: Interaction, typed: str) -> list[app_commands.Choice[int]]:
    choices = []
    store = interaction.client.services.store
    for line in store.scheduled_lines.of_guild(interaction.guild_id or 0):
        when = localise(WeeklyTime(line.weekdays, line.minute).text())
        label = f"{line.seq}: {when}, {line.prompt}"
        if typed.casefold() in label.casefold():
            choices.append(app_commands.Choice(name=label[:MAX_LABEL_CHARS], value=line.seq))
    return choices[:MAX_CHOICES]


@guild_moderators_only(DM_TEXT)
@LINE.command(
    name="remove", description=gettext_noop("End what a persona says at a set time (moderators).")
)
@app_commands.describe(number=gettext_noop("The number that `/persona line show` lists"))
@app_commands.autocomplete(number=_suggest_lines)
async def line_remove(interaction: Interaction, number: int) -> None:
    lines = interaction.client.services.scheduled_lines
    lines.remove(interaction.guild_id or 0, number, by=interaction.user.id)
    await respond(interaction, gettext_lazy("Removed."))


def line_text(services: Services, line: ScheduledLine) -> str:
    """Describe a line: its number, when and where it comes next, what it is to say, and why the
    latest one was left out.
    """
    when = line_time_text(services.scheduled_lines, line)
    due = int(services.scheduled_lines.next_time(line))
    text = gettext_lazy(
        "**{number}** {when} in {channel}, next {due}: {prompt}",
        number=line.seq,
        when=when,
        channel=f"<#{line.channel_id}>",
        due=f"<t:{due}:R>",
        prompt=line.prompt,
    )
    if not line.outcome:
        return text
    # It is stored in English; one of these texts is in the catalogues.
    reason = LocalisableText(line.outcome)
    note = gettext_lazy("-# The latest one was left out: {reason}.", reason=reason)
    return join_texts(text, note, separator="\n")
