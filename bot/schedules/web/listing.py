"""What is done at set times, as pages list it."""

from dataclasses import dataclass

import discord

from bot.chat.places import ChannelRef, GuildChannel, channel_ref
from bot.personas.web.lookup import guild_name
from bot.platform.discord_kit.member_names import MemberKey
from bot.platform.errors import redact_paths
from bot.schedules.store import MemberGreeting, ScheduledLine, TrainingSchedule
from bot.schedules.texts import (
    job_outcome_text,
    line_time_text,
    material_text,
    training_time_text,
)
from bot.services import Services
from bot.training.web.run_view import job_label
from personas.schemas.chat import Persona


@dataclass(frozen=True, kw_only=True)
class ListedSchedule:
    """What pages show of a training, a line or a greeting.

    `persona_id` is None for a channel in which no persona lives. `next_at` is None for a
    training after new samples. `outcome` says what became of the latest one, and is empty before
    the first. `member` set it.
    """

    persona_id: str | None
    persona: str
    server: str
    channel: str
    when: str
    next_at: float | None
    what: str
    outcome: str
    member: MemberKey


@dataclass(frozen=True, kw_only=True)
class ListedTraining(ListedSchedule):
    """A scheduled training. `job_id` is the job that was queued last; empty without one."""

    schedule: TrainingSchedule
    job_id: str


@dataclass(frozen=True, kw_only=True)
class ListedLine(ListedSchedule):
    """A scheduled line."""

    line: ScheduledLine


@dataclass(frozen=True, kw_only=True)
class ListedGreeting(ListedSchedule):
    """A greeting of new members; `when` says that, and `next_at` is None."""

    greeting: MemberGreeting


def list_trainings(services: Services, persona_id: str | None = None) -> list[ListedTraining]:
    """List the scheduled trainings of a persona, or of all, oldest first."""
    listed = []
    for schedule in services.store.training_schedules.all():
        if persona_id is None or schedule.persona_id == persona_id:
            listed.append(_describe_training(services, schedule))
    return listed


def list_lines(services: Services, persona_id: str | None = None) -> list[ListedLine]:
    """List the lines of the channels in which a persona comes first, or of all, oldest first."""
    listed = []
    for line in services.store.scheduled_lines.all():
        speaker = _speaker(services, line.guild_id, line.channel_id)
        if persona_id is None or (speaker and speaker.id == persona_id):
            listed.append(_describe_line(services, line, speaker))
    return listed


def list_greetings(services: Services, persona_id: str | None = None) -> list[ListedGreeting]:
    """List the greetings in the channels in which a persona comes first, or all, oldest first."""
    listed = []
    for greeting in services.store.member_greetings.all():
        speaker = _speaker(services, greeting.guild_id, greeting.channel_id)
        if persona_id is None or (speaker and speaker.id == persona_id):
            listed.append(_describe_greeting(services, greeting, speaker))
    return listed


def _describe_training(services: Services, schedule: TrainingSchedule) -> ListedTraining:
    trainings = services.scheduled_trainings
    outcome = redact_paths(schedule.outcome, services.home)
    if outcome:
        outcome = f"refused: {outcome}"
    elif job := trainings.last_job(schedule):
        outcome = job_outcome_text(job_label(services, job), job.state)
    return ListedTraining(
        persona_id=schedule.persona_id,
        persona=services.personas.name_of(schedule.persona_id, schedule.guild_id),
        server=guild_name(services, schedule.guild_id),
        channel=_channel_name(services, schedule.channel_id),
        when=training_time_text(trainings, schedule),
        next_at=trainings.next_time(schedule),
        what=material_text(trainings, schedule),
        outcome=outcome,
        member=(schedule.guild_id, schedule.set_by),
        schedule=schedule,
        job_id=schedule.job_id,
    )


def _describe_line(services: Services, line: ScheduledLine, speaker: Persona | None) -> ListedLine:
    lines = services.scheduled_lines
    return ListedLine(
        persona_id=speaker.id if speaker else None,
        persona=speaker.name if speaker else "no persona",
        server=guild_name(services, line.guild_id),
        channel=_channel_name(services, line.channel_id),
        when=line_time_text(lines, line),
        next_at=lines.next_time(line),
        what=line.prompt,
        outcome=lines.outcome(line),
        member=(line.guild_id, line.set_by),
        line=line,
    )


def _describe_greeting(
    services: Services, greeting: MemberGreeting, speaker: Persona | None
) -> ListedGreeting:
    return ListedGreeting(
        persona_id=speaker.id if speaker else None,
        persona=speaker.name if speaker else "no persona",
        server=guild_name(services, greeting.guild_id),
        channel=_channel_name(services, greeting.channel_id),
        when="when somebody joins",
        next_at=None,
        what=greeting.text,
        outcome="",
        member=(greeting.guild_id, greeting.set_by),
        greeting=greeting,
    )


def _speaker(services: Services, guild_id: int, channel_id: int) -> Persona | None:
    channel = _channel(services, channel_id)
    place = ChannelRef(guild_id, channel_id)
    if isinstance(channel, GuildChannel):
        place = channel_ref(channel)
    return services.scheduled_lines.speaker(place)


def _channel_name(services: Services, channel_id: int) -> str:
    channel = _channel(services, channel_id)
    if isinstance(channel, GuildChannel):
        return f"#{channel.name}"
    return f"channel {channel_id}"


def _channel(services: Services, channel_id: int) -> object | None:
    client: discord.Client | None = services.client
    return client.get_channel(channel_id) if client else None
