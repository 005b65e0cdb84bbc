"""Lines that the persona of a channel says at a weekly time.

A line is a reply without a message that it answers. Its row is stored together with the mark that its
time was handled, and its event's id follows from both: so a kill before the line is posted costs
nothing, because the next start makes it (`bot.chat.recovery`), and one after it doubles nothing.
"""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime

import discord

from bot.chat.places import ChannelRef, GuildChannel, channel_ref
from bot.chat.reply import Reply
from bot.chat.reply_service import ReplyService
from bot.chat.senders import CLOCK_SKEW
from bot.guilds.time_zones import GuildTimeZones
from bot.platform.change_record import ChangeRecord, no_record
from bot.platform.errors import RefusedError
from bot.platform.localisation import LocalisableText, gettext_lazy
from bot.platform.weekly_time import WeeklyTime
from bot.schedules.store import ScheduledLine
from bot.store import Store
from personas.schemas.chat import Persona

log = logging.getLogger(__name__)
MAX_LINES = 5
"""Lines of a channel."""
MAX_PROMPT_CHARS = 300
MAX_LATE_S = 900.0
"""A line whose time passed longer ago, while the bot was down, is left out."""
REPLY_OUTCOMES = {
    "waiting": gettext_lazy("being said"),
    "streaming": gettext_lazy("being said"),
    "done": gettext_lazy("said"),
    "stopped": gettext_lazy("stopped"),
    "failed": gettext_lazy("failed"),
}
NUMBER_BITS = 22
"""Bits of a Discord id below its time."""


@dataclass(frozen=True, kw_only=True)
class ScheduledLines:
    """Sets, lists, removes and says the lines."""

    store: Store
    reply_service: ReplyService
    time_zones: GuildTimeZones
    record_change: ChangeRecord = no_record

    def add(
        self, channel: GuildChannel, when: WeeklyTime, prompt: str, *, user_id: int
    ) -> ScheduledLine:
        """Have the persona of a channel say a line at a weekly time. Raises `RefusedError`."""
        what = " ".join(prompt.split())
        if not what:
            raise RefusedError(
                gettext_lazy("The `prompt` is empty."),
                gettext_lazy("Say what the persona is to say, such as: say good morning."),
            )
        place = channel_ref(channel)
        lines = self.store.scheduled_lines.of_guild(place.guild_id)
        for line in lines:
            is_there = line.channel_id == place.channel_id and line.prompt == what
            if is_there and (line.weekdays, line.minute) == (when.weekdays, when.minute):
                raise RefusedError(
                    gettext_lazy("This line is set already: number {number}.", number=line.seq),
                    gettext_lazy("`/persona line show` lists them."),
                )
        if sum(line.channel_id == place.channel_id for line in lines) >= MAX_LINES:
            raise RefusedError(
                gettext_lazy(
                    "This channel has {max_lines} lines at set times, which is the limit.",
                    max_lines=MAX_LINES,
                ),
                gettext_lazy("Remove one: `/persona line remove`."),
            )
        now = self.time_zones.clock.now()
        line = self.store.scheduled_lines.add(
            ScheduledLine(
                seq=0,
                guild_id=place.guild_id,
                channel_id=place.channel_id,
                weekdays=when.weekdays,
                minute=when.minute,
                prompt=what,
                set_by=user_id,
                set_at=now,
                handled_at=now,
            )
        )
        self.record_change(place.guild_id, user_id, gettext_lazy("set {line}", line=_name(line)))
        return line

    def remove(self, guild_id: int, number: int, *, by: int = 0) -> None:
        """Remove a line by its number, as a member or (0) the operator decided. Raises `RefusedError`
        where there is none.
        """
        line = self.store.scheduled_lines.get(guild_id, number)
        if line is None:
            raise RefusedError(
                gettext_lazy("There is no line {number} at a set time.", number=number),
                gettext_lazy("`/persona line show` lists them."),
            )
        self.store.scheduled_lines.remove(guild_id, number)
        self.record_change(guild_id, by, gettext_lazy("removed {line}", line=_name(line)))

    def next_time(self, line: ScheduledLine) -> float:
        """Return when a line is due next, in seconds since 1970."""
        now = self.time_zones.clock.now()
        return _when(line).next(now, self.time_zones.in_guild(line.guild_id))

    def due(self) -> list[ScheduledLine]:
        """List the lines whose time has come, oldest first."""
        now = self.time_zones.clock.now()
        due = []
        # By their times, which many lines share: the event loop waits for this every few seconds.
        for time in self.store.scheduled_lines.times():
            when = WeeklyTime(time.weekdays, time.minute)
            moment = when.latest(now, self.time_zones.chosen(time.zone))
            if moment > time.handled_at:
                due += self.store.scheduled_lines.unhandled(time, moment)
        return sorted(due, key=lambda line: line.seq)

    def _due_at(self, line: ScheduledLine) -> float | None:
        """Return the time of a line that has come and was not handled yet."""
        now = self.time_zones.clock.now()
        moment = _when(line).latest(now, self.time_zones.in_guild(line.guild_id))
        return moment if moment > line.handled_at else None

    def take(self, due: ScheduledLine, channel: object) -> Reply | None:
        """Store a line that is due as a reply in its channel, and return it, to be made. None where
        it is left out, or was removed or taken since.

        A line is left out where its time passed too long ago or is in the channel's quiet hours,
        where no persona lives or a moderator has muted it, and where the channel is out of reach:
        then it is no `GuildChannel`.
        """
        line = self.store.scheduled_lines.get(due.guild_id, due.seq)
        moment = self._due_at(line) if line else None
        if line is None or moment is None:
            return None
        now = self.time_zones.clock.now()
        if not isinstance(channel, GuildChannel):
            away = gettext_lazy("the channel is out of reach")
            self.store.scheduled_lines.record_handled(line.seq, now, away)
            log.info("the line %d at a set time is left out: %s", line.seq, away)
            return None
        place = channel_ref(channel)
        persona = self.speaker(place)
        outcome = self.hindrance(channel)
        if not outcome and now - moment > MAX_LATE_S:
            outcome = gettext_lazy("the bot was away at its time")
        event_id = line_event_id(moment, line.seq)
        with self.store.atomic():
            self.store.scheduled_lines.record_handled(line.seq, now, outcome)
            if persona is None or outcome:
                log.info("the line %d at a set time is left out: %s", line.seq, outcome)
                return None
            is_new = self.store.replies.begin_line(
                event_id,
                guild_id=place.guild_id,
                channel_id=place.channel_id,
                persona_id=persona.id,
                at=now,
                prompt=line.prompt,
            )
        if not is_new:
            return None
        return Reply(self.reply_service, persona, channel, event_id=event_id)

    def speaker(self, place: ChannelRef) -> Persona | None:
        """Return the persona that speaks in a channel; None where none lives."""
        setting = self.store.channels.get(place.guild_id, place.channel_id, place.parent_id)
        if setting is None:
            return None
        return self.reply_service.personas.get(setting.persona_id, place.guild_id)

    def hindrance(self, channel: GuildChannel) -> str:
        """Say why nobody speaks by themselves in a channel now; empty where the persona may."""
        place = channel_ref(channel)
        persona = self.speaker(place)
        rules = self.reply_service.rules
        if persona is None:
            return gettext_lazy("no persona lives there")
        if rules.muted(persona, place):
            return gettext_lazy("a moderator has silenced the persona there")
        if rules.age.refuses(persona, channel):
            return gettext_lazy("the persona is age-restricted, and the channel is not")
        if rules.is_quiet(place):
            return gettext_lazy("it came in the quiet hours")
        return ""

    def outcome(self, line: ScheduledLine) -> str:
        """Say what became of a line at its latest time; empty before the first one."""
        if line.handled_at <= line.set_at:
            return ""
        if line.outcome:
            # It is stored in English; its text is in the catalogues.
            return gettext_lazy("left out: {reason}", reason=LocalisableText(line.outcome))
        moment = _when(line).latest(line.handled_at, self.time_zones.in_guild(line.guild_id))
        reply = self.store.replies.get(line_event_id(moment, line.seq))
        return REPLY_OUTCOMES[reply.state] if reply else gettext_lazy("said")


def _name(line: ScheduledLine) -> str:
    return gettext_lazy(
        "line {number}, {when} in {channel}",
        number=line.seq,
        when=_when(line).text(),
        channel=f"<#{line.channel_id}>",
    )


def _when(line: ScheduledLine) -> WeeklyTime:
    return WeeklyTime(line.weekdays, line.minute)


def line_event_id(moment: float, number: int) -> int:
    """Return the id of the event of a line that has a number: like one of Discord's at that time by
    any clock, since its message is looked for after it.
    """
    at = datetime.fromtimestamp(moment, UTC) - CLOCK_SKEW
    return discord.utils.time_snowflake(at) | number % (1 << NUMBER_BITS)
