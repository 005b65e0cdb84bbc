"""Scheduled trainings, lines and greetings of new members in the database."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bot.platform.db.database import Table

LINES_WITH_ZONE = """scheduled_lines left join (
    select guild_id, json_extract(value, '$') as zone from settings
    where key = 'time_zone' and channel_id = 0 and persona_id = '') using (guild_id)"""
"""The setting is `bot.guild_settings.definitions.TIME_ZONE`."""


@dataclass(frozen=True)
class TrainingSchedule:
    """A persona's training in a guild at a weekly time, or after so many `new_samples`; the other
    of both is None. Times are in seconds since 1970.

    `options` is the JSON of the training request without the job's name. What came up to
    `handled_at` has been handled. `outcome` says why the latest training was refused, and is empty
    for one that was queued as `job_id`.
    """

    seq: int
    guild_id: int
    channel_id: int
    persona_id: str
    weekdays: int | None
    minute: int | None
    new_samples: int | None
    options: str
    set_by: int
    set_at: float
    handled_at: float
    outcome: str = ""
    job_id: str = ""


class TrainingSchedules(Table):
    """The scheduled trainings, at most one of a persona in a guild."""

    def set(self, schedule: TrainingSchedule) -> TrainingSchedule:
        """Store a schedule under a new number, in place of the persona's earlier one."""
        row = {**vars(schedule)}
        del row["seq"]  # the database numbers it
        with self._db.atomic():
            self.remove(schedule.guild_id, schedule.persona_id)
            self._db.insert("training_schedules", row)
        stored = self.get(schedule.guild_id, schedule.persona_id)
        assert stored is not None
        return stored

    def get(self, guild_id: int, persona_id: str) -> TrainingSchedule | None:
        """Return a persona's schedule in a guild."""
        sql = """select * from training_schedules
            where guild_id = :guild and persona_id = :persona"""
        return self._db.one(TrainingSchedule, sql, guild=guild_id, persona=persona_id)

    def of_guild(self, guild_id: int) -> list[TrainingSchedule]:
        """List a guild's schedules, oldest first."""
        sql = "select * from training_schedules where guild_id = :guild order by seq"
        return self._db.all(TrainingSchedule, sql, guild=guild_id)

    def all(self) -> list[TrainingSchedule]:
        """List the schedules of all guilds, oldest first."""
        return self._db.all(TrainingSchedule, "select * from training_schedules order by seq")

    def remove(self, guild_id: int, persona_id: str) -> bool:
        """Remove a persona's schedule. False when it had none."""
        sql = "delete from training_schedules where guild_id = :guild and persona_id = :persona"
        return self._db.write(sql, guild=guild_id, persona=persona_id) > 0

    def record_handled(self, seq: int, at: float, *, outcome: str = "", job_id: str = "") -> None:
        """Record that what came up to a time was handled: the job, or why none was queued."""
        sql = """update training_schedules set handled_at = :at, outcome = :outcome, job_id = :job
            where seq = :seq"""
        self._db.write(sql, seq=seq, at=at, outcome=outcome, job=job_id)

    def last_preference_training(self, guild_id: int, persona_id: str) -> float:
        """Return when a preference training of a persona was queued last in a guild that has not
        failed and was not cancelled; 0 if none was.
        """
        sql = """select max(queued_at) from jobs where guild_id = :guild and persona = :persona
            and state in ('queued', 'running', 'done')
            and json_extract(request, '$.task_type') = 'preference'"""
        return self._db.value(float, sql, guild=guild_id, persona=persona_id) or 0.0


@dataclass(frozen=True)
class ScheduledLine:
    """A line that the persona of a channel says at a weekly time, as `prompt` describes. Times are
    in seconds since 1970; what came up to `handled_at` has been handled. `outcome` says why the
    latest one was left out, and is empty for one that was said.
    """

    seq: int
    guild_id: int
    channel_id: int
    weekdays: int
    minute: int
    prompt: str
    set_by: int
    set_at: float
    handled_at: float
    outcome: str = ""


@dataclass(frozen=True)
class LineTime:
    """A weekly time at which lines of guilds with a time zone are said; None for guilds that have
    chosen no zone. What came up to `handled_at` has been handled of all these lines.
    """

    zone: str | None
    weekdays: int
    minute: int
    handled_at: float


class ScheduledLines(Table):
    """The scheduled lines, at any number of times in a channel."""

    def add(self, line: ScheduledLine) -> ScheduledLine:
        """Store a line under a new number."""
        row = {**vars(line)}
        del row["seq"]  # the database numbers it
        seq = self._db.insert("scheduled_lines", row)
        return ScheduledLine(seq, **row)

    def get(self, guild_id: int, seq: int) -> ScheduledLine | None:
        """Return a guild's line by its number."""
        sql = "select * from scheduled_lines where guild_id = :guild and seq = :seq"
        return self._db.one(ScheduledLine, sql, guild=guild_id, seq=seq)

    def of_guild(self, guild_id: int) -> list[ScheduledLine]:
        """List a guild's lines, oldest first."""
        sql = "select * from scheduled_lines where guild_id = :guild order by seq"
        return self._db.all(ScheduledLine, sql, guild=guild_id)

    def all(self) -> list[ScheduledLine]:
        """List the lines of all guilds, oldest first."""
        return self._db.all(ScheduledLine, "select * from scheduled_lines order by seq")

    def times(self) -> list[LineTime]:
        """List the times of the lines of all guilds, each once."""
        sql = f"""select zone, weekdays, minute, min(handled_at) as handled_at
            from {LINES_WITH_ZONE}
            group by zone, weekdays, minute"""
        return self._db.all(LineTime, sql)

    def unhandled(self, time: LineTime, moment: float) -> list[ScheduledLine]:
        """List the lines of all guilds with a time that was not handled up to a moment."""
        sql = f"""select scheduled_lines.* from {LINES_WITH_ZONE}
            where zone is :zone and weekdays = :weekdays and minute = :minute
            and handled_at < :moment"""
        place = {"zone": time.zone, "weekdays": time.weekdays, "minute": time.minute}
        return self._db.all(ScheduledLine, sql, moment=moment, **place)

    def remove(self, guild_id: int, seq: int) -> None:
        """Remove a guild's line by its number."""
        sql = "delete from scheduled_lines where guild_id = :guild and seq = :seq"
        self._db.write(sql, guild=guild_id, seq=seq)

    def record_handled(self, seq: int, at: float, outcome: str = "") -> None:
        """Record that what came up to a time was handled, and why nothing is said."""
        sql = "update scheduled_lines set handled_at = :at, outcome = :outcome where seq = :seq"
        self._db.write(sql, seq=seq, at=at, outcome=outcome)

    def forget_channel(self, channel_id: int) -> None:
        """Remove the lines of a channel that is deleted."""
        sql = "delete from scheduled_lines where channel_id = :channel"
        self._db.write(sql, channel=channel_id)


@dataclass(frozen=True)
class MemberGreeting:
    """How new members of a guild are greeted in a channel: with a text, or as a prompt (`is_prompt`)
    describes to its persona.
    """

    guild_id: int
    channel_id: int
    is_prompt: bool
    text: str
    set_by: int
    set_at: float


class MemberGreetings(Table):
    """The greetings of new members, at most one of a guild."""

    def set(self, greeting: MemberGreeting) -> None:
        """Store a greeting, in place of the guild's earlier one."""
        self._db.insert("member_greetings", vars(greeting), replace=True)

    def get(self, guild_id: int) -> MemberGreeting | None:
        """Return a guild's greeting."""
        sql = "select * from member_greetings where guild_id = :guild"
        return self._db.one(_greeting, sql, guild=guild_id)

    def all(self) -> list[MemberGreeting]:
        """List the greetings of all guilds, oldest first."""
        return self._db.all(_greeting, "select * from member_greetings order by set_at, guild_id")

    def remove(self, guild_id: int) -> bool:
        """Remove a guild's greeting. False when it had none."""
        sql = "delete from member_greetings where guild_id = :guild"
        return self._db.write(sql, guild=guild_id) > 0

    def forget_channel(self, channel_id: int) -> None:
        """Remove the greeting of a channel that is deleted."""
        self._db.write(
            "delete from member_greetings where channel_id = :channel", channel=channel_id
        )


NO_EVENT = 0
"""In place of the event of a greeting, for those who have yet to accept the rules of their server."""


class GreetedMembers(Table):
    """Who was greeted as a new member of a guild, so that nobody is greeted twice; and who is to be
    greeted once they have accepted its rules.
    """

    def await_acceptance(self, guild_id: int, user_id: int, at: float) -> None:
        """Store that a new member, who has not been greeted, has yet to accept the rules."""
        sql = """insert or ignore into greeted_members (guild_id, user_id, event_id, at, is_mentioned)
            values (:guild, :user, :event, :at, 0)"""
        self._db.write(sql, guild=guild_id, user=user_id, event=NO_EVENT, at=at)

    def awaited(self, guild_id: int, most: int) -> list[int]:
        """List the latest members of a guild who have yet to accept its rules, the latest last."""
        sql = """select user_id from (select rowid as number, user_id from greeted_members
            where guild_id = :guild and event_id = :event order by number desc limit :most) order by number"""
        return self._db.column(int, sql, guild=guild_id, event=NO_EVENT, most=most)

    def forget_awaited(self, guild_id: int, user_id: int) -> None:
        """Forget a member who has accepted the rules, or left."""
        sql = """delete from greeted_members where guild_id = :guild and user_id = :user
            and event_id = :event"""
        self._db.write(sql, guild=guild_id, user=user_id, event=NO_EVENT)

    def add(
        self, guild_id: int, user_ids: Sequence[int], *, event_id: int, at: float, mentioned: int
    ) -> None:
        """Store who is greeted by the reply to an event, which mentions so many of them."""
        sql = """insert or replace into greeted_members (guild_id, user_id, event_id, at, is_mentioned)
            select :guild, value, :event, :at, key < :mentioned from json_each(:ids) order by key"""
        values = {"guild": guild_id, "event": event_id, "at": at, "mentioned": mentioned}
        self._db.write(sql, ids=json.dumps([*user_ids]), **values)

    def among(self, guild_id: int, user_ids: Sequence[int]) -> set[int]:
        """Return those of some members of a guild who were greeted."""
        sql = """select user_id from greeted_members where guild_id = :guild and event_id <> :awaited
            and user_id in (select value from json_each(:ids))"""
        values = {"guild": guild_id, "awaited": NO_EVENT}
        return set(self._db.column(int, sql, ids=json.dumps([*user_ids]), **values))

    def mentioned(self, event_id: int) -> list[int]:
        """Return whom the greeting that is the reply to an event mentions, in their order."""
        sql = """select user_id from greeted_members where event_id = :event and is_mentioned
            order by rowid"""
        return self._db.column(int, sql, event=event_id)

    def delete_before(self, at: float) -> None:
        """Forget who was greeted before a time."""
        if self._db.first("select 1 from greeted_members where at < :at", at=at):
            self._db.write("delete from greeted_members where at < :at", at=at)


def _greeting(is_prompt: int, **columns: Any) -> MemberGreeting:
    return MemberGreeting(is_prompt=bool(is_prompt), **columns)
