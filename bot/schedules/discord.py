"""`/finetune schedule set|show|remove`, and the task that runs what is due."""

import asyncio
import logging
from contextlib import ExitStack
from typing import Literal

from discord import app_commands
from discord.ext import commands

from bot.chat.delivery import DELIVERY_ERRORS
from bot.chat.places import ChannelRef, GuildChannel, channel_ref, fetch_channel
from bot.chat.reply import Reply
from bot.platform.clock import BackgroundTask
from bot.platform.discord_kit.transformers import (
    CHANNEL_PERSONA_HELP,
    FINETUNE,
    Interaction,
    ModeratorGroup,
    PersonaOption,
    channel_persona,
)
from bot.platform.discord_kit.ui import defer, respond
from bot.platform.errors import RefusedError, error_text, redact_paths
from bot.platform.localisation import (
    gettext_lazy,
    gettext_noop,
    join_texts,
    language_of,
    localise,
    override,
)
from bot.platform.messages import markdown_name, message_texts
from bot.platform.weekly_time import DAY_SETS, WeeklyTime
from bot.schedules.discord_lines import DAY_CHOICES
from bot.schedules.store import ScheduledLine, TrainingSchedule
from bot.schedules.texts import material_text, training_time_text
from bot.schedules.trainings import MAX_NEW_SAMPLES, MIN_NEW_SAMPLES, RefusedTraining
from bot.services import Bot, Services
from bot.training.discord import (
    OPTION_HELP,
    DatasetOption,
    RecipeOption,
)
from bot.training.discord_start import progress_channel
from bot.training.start_options import SourceOption, card_share

log = logging.getLogger(__name__)
CHECK_INTERVAL_S = 20.0
SCHEDULE = ModeratorGroup(
    name="schedule",
    description=gettext_noop("Train a persona every week, or once enough new samples are there."),
    parent=FINETUNE,
)
PersonaTaskType = Literal["persona", "preference"]
"""What a persona can be trained for; a dialogue adapter belongs to none."""


class ScheduleCog(commands.Cog):
    """Runs what is due at set times."""

    def __init__(self, bot: Bot) -> None:
        self.bot = bot
        self._task = BackgroundTask("schedules", self._run_due, self._wait)
        self._lines: set[asyncio.Task[None]] = set()

    async def cog_load(self) -> None:
        self.bot.services.background.append(self._task)
        self._task.start()

    async def cog_unload(self) -> None:
        await self._task.stop()

    async def _wait(self) -> None:
        await self.bot.services.time_zones.clock.sleep(CHECK_INTERVAL_S)

    async def _run_due(self) -> None:
        await self.bot.wait_until_ready()
        for line in self.bot.services.scheduled_lines.due():
            await self._take(line)
        for refused in self.bot.services.scheduled_trainings.run_due(self._place):
            await self._tell(refused)

    async def _take(self, due: ScheduledLine) -> None:
        """Have a line said that is due, if the bot is in its server. While Discord does not answer, it
        waits.
        """
        guild = self.bot.get_guild(due.guild_id)
        if guild is None or guild.unavailable:
            return
        try:
            # An archived thread, which discord.py forgets, is opened again by what is said there.
            channel = await fetch_channel(self.bot, due.channel_id)
        except DELIVERY_ERRORS as error:
            log.info("the line %d at a set time waits: %s", due.seq, error)
            return
        line = self.bot.services.scheduled_lines.take(due, channel)
        if line is None:
            return
        # At once: at a start, the recovery of interrupted replies would make it, too.
        counted = ExitStack()
        counted.enter_context(line.context.unfinished.counting(line.event_id))
        task = asyncio.create_task(_say(line, counted), name=f"line {line.event_id}")
        self._lines.add(task)
        task.add_done_callback(self._lines.discard)

    def _place(self, schedule: TrainingSchedule) -> ChannelRef | None:
        if self.bot.get_guild(schedule.guild_id) is None:
            return None
        channel = self.bot.get_channel(schedule.channel_id)
        if isinstance(channel, GuildChannel):
            return channel_ref(channel)
        return ChannelRef(schedule.guild_id, schedule.channel_id)  # it is gone

    async def _tell(self, refused: RefusedTraining) -> None:
        """Say in its channel that a training was refused: nobody waits for an answer."""
        services = self.bot.services
        schedule = refused.schedule
        why = redact_paths(str(refused.error), services.home)
        name = services.personas.markdown_name_of(schedule.persona_id, schedule.guild_id)
        log.warning("the scheduled training of %s was refused: %s", schedule.persona_id, why)
        try:
            channel = await fetch_channel(self.bot, schedule.channel_id)
            if not isinstance(channel, GuildChannel):
                return
            text = gettext_lazy(
                "The scheduled training of **{persona}** was refused. {why}\n"
                "-# `/finetune schedule show` lists what is scheduled here.",
                persona=name,
                why=error_text(refused.error),
            )
            with override(language_of(channel.guild.preferred_locale)):
                await channel.send(localise(text))
        except DELIVERY_ERRORS as error:  # it is in the log, and in `show`
            log.info("the refusal is not posted in %d: %s", schedule.channel_id, error)


async def _say(line: Reply, counted: ExitStack) -> None:
    """Make a line at a set time. Nobody has asked, so errors are logged alone."""
    with counted:
        try:
            await line.answer()
        except Exception as error:
            what = f"The line of {line.persona.name} in #{line.channel} at a set time"
            log.warning("%s was not said: %s", what, error_text(error))


@SCHEDULE.command(
    name="set",
    description=gettext_noop("Schedule a persona's training: weekly, or after new samples."),
)
@app_commands.rename(source="from")
@app_commands.describe(
    persona=CHANNEL_PERSONA_HELP,
    weekday=gettext_noop("The days, with a `time`"),
    time=gettext_noop("The time of day in the server's time zone, such as 03:30"),
    new_samples=gettext_noop(
        "Train on votes and taught replies, each time so many new ones are there"
    ),
    recipe=OPTION_HELP["recipe"],
    dataset=OPTION_HELP["dataset"],
    task_type=OPTION_HELP["task_type"],
    source=OPTION_HELP["source"],
)
@app_commands.choices(weekday=DAY_CHOICES)
async def schedule_set(
    interaction: Interaction,
    persona: PersonaOption | None = None,
    weekday: str | None = None,
    time: app_commands.Range[str, 1, 10] | None = None,
    new_samples: app_commands.Range[int, MIN_NEW_SAMPLES, MAX_NEW_SAMPLES] | None = None,
    recipe: RecipeOption | None = None,
    dataset: DatasetOption | None = None,
    task_type: PersonaTaskType | None = None,
    source: SourceOption | None = None,
) -> None:
    services = interaction.client.services
    channel = progress_channel(interaction)
    await defer(interaction, ephemeral=True)
    if bool(weekday) != bool(time):
        raise RefusedError(
            gettext_lazy("A weekly time has days and a time of day."), gettext_lazy("Give both.")
        )
    options = {
        "recipe": recipe,
        "dataset": dataset,
        "task_type": task_type,
        "from_card": card_share(source, dataset),
    }
    schedule = services.scheduled_trainings.set(
        (persona or channel_persona(interaction)).id,
        guild_id=channel.guild.id,
        channel_id=channel.id,
        user_id=interaction.user.id,
        options={name: value for name, value in options.items() if value is not None},
        when=WeeklyTime.on(DAY_SETS[weekday], time) if weekday and time else None,
        new_samples=new_samples,
    )
    await respond(
        interaction,
        gettext_lazy(
            "Scheduled: {schedule}\n"
            "-# A new version goes live as after `/finetune start`. `/finetune schedule remove` "
            "ends it.",
            schedule=schedule_text(services, schedule),
        ),
    )


@SCHEDULE.command(
    name="show", description=gettext_noop("List the scheduled trainings of this server.")
)
async def schedule_show(interaction: Interaction) -> None:
    services = interaction.client.services
    schedules = services.store.training_schedules.of_guild(interaction.guild_id or 0)
    lines = [f"• {localise(schedule_text(services, schedule))}" for schedule in schedules]
    for text in message_texts(lines or [gettext_lazy("No training is scheduled here.")]):
        await respond(interaction, text)


@SCHEDULE.command(
    name="remove", description=gettext_noop("Remove the schedule of a persona's training.")
)
@app_commands.describe(persona=CHANNEL_PERSONA_HELP)
async def schedule_remove(interaction: Interaction, persona: PersonaOption | None = None) -> None:
    persona = persona or channel_persona(interaction)
    services = interaction.client.services
    services.scheduled_trainings.remove(
        interaction.guild_id or 0, persona.id, by=interaction.user.id
    )
    await respond(
        interaction,
        gettext_lazy(
            "**{persona}** is no longer trained at set times.", persona=markdown_name(persona)
        ),
    )


def schedule_text(services: Services, schedule: TrainingSchedule) -> str:
    """Describe a schedule in a line: when, what comes next, on what, and why the latest was
    refused.
    """
    name = services.personas.markdown_name_of(schedule.persona_id, schedule.guild_id)
    when = training_time_text(services.scheduled_trainings, schedule)
    due = services.scheduled_trainings.next_time(schedule)
    channel = f"<#{schedule.channel_id}>"
    head = gettext_lazy(
        "**{persona}** {when}, in {channel}.", persona=name, when=when, channel=channel
    )
    if due is not None:
        head = gettext_lazy(
            "**{persona}** {when}, next {due}, in {channel}.",
            persona=name,
            when=when,
            due=f"<t:{int(due)}:R>",
            channel=channel,
        )
    parts: list[str] = [head, material_text(services.scheduled_trainings, schedule)]
    if refusal := redact_paths(schedule.outcome, services.home):
        parts.append(gettext_lazy("The latest one was refused: {reason}", reason=refusal))
        if schedule.new_samples is not None:
            parts.append(gettext_lazy("It is tried again a day later."))
    return join_texts(*parts)
