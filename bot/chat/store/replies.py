"""Replies to Discord events, each handled once, and the votes on them."""

import hashlib
import itertools
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from bot.chat.store.attempts import ReplyAttempts
from bot.platform.db.database import DatabaseConnection, Table

ReplyState = Literal["waiting", "streaming", "done", "stopped", "failed"]
UNFINISHED = "(state in ('waiting', 'streaming') or end_note is not null)"
"""The SQL condition of `StoredReply.is_unfinished`."""
FIRST_EVENT = "coalesce((select first_event from replies where event_id = :event), :event)"
"""The event of the first reply to the message that :event's reply answers."""
ASKED = f"""(seq = (select trigger_seq from replies where event_id = :event)
    or seq in (select seq from reply_lines where event_id = {FIRST_EVENT}))"""
"""The messages that :event's reply answers."""
IN_ROUND = "(event_id = :event or first_event = :event)"
"""The reply of :event, and those that follow it."""
MAX_LATEST_REPLIES = 2_000
LOW_BITS = 22
"""Bits of a snowflake below its time."""


@dataclass(frozen=True)
class StoredReply:
    """The reply to an event, an interaction or message. `parts` are the ids of the messages that it
    fills.

    `interrupted_at` is when its author first stopped or regenerated it. `end_note` is the note
    under an ended reply, until Discord has confirmed its last edit. `is_unseen`: that could not be
    made, and no prompt has the text meanwhile.
    """

    event_id: int
    guild_id: int
    channel_id: int
    persona_id: str
    asked_by: int
    trigger_seq: int | None
    parts: tuple[int, ...]
    state: ReplyState
    attempt: int
    adapter_version: str | None
    seed: int | None
    created_at: float
    interrupted_at: float | None
    end_note: str | None
    is_unseen: bool

    @property
    def is_unfinished(self) -> bool:
        """True if it has not ended, or members may not see its end."""
        return self.state in ("waiting", "streaming") or self.end_note is not None


@dataclass(frozen=True)
class VoteCounts:
    """Number of members who voted a reply up and down."""

    up: int = 0
    down: int = 0


class StoredReplies(Table):
    """The replies and their states. Guild 0 stands for direct messages."""

    def __init__(self, connection: DatabaseConnection, attempts: ReplyAttempts) -> None:
        super().__init__(connection)
        self._attempts = attempts

    def begin(
        self,
        event_id: int,
        guild_id: int,
        channel_id: int,
        persona_id: str,
        at: float,
        *,
        asked_by: int = 0,
        trigger_seq: int | None = None,
    ) -> bool:
        """Store a new reply. False when the event was handled before: it must not be answered
        again.
        """
        sql = """insert or ignore into replies
            (event_id, guild_id, channel_id, persona_id, asked_by, trigger_seq, state, created_at)
            values (:event, :guild, :channel, :persona, :asked_by, :trigger, 'waiting', :at)"""
        place = {"guild": guild_id, "channel": channel_id, "persona": persona_id}
        origin = {
            "event": event_id,
            "asked_by": asked_by,
            "trigger": trigger_seq,
            "at": at,
        }
        with self._db.atomic():
            is_new = self._db.write(sql, **place, **origin) > 0
            if is_new:
                self._attempts.add(guild_id, asked_by, at, event_id=event_id)
        return is_new

    def begin_line(
        self,
        event_id: int,
        guild_id: int,
        channel_id: int,
        persona_id: str,
        at: float,
        *,
        prompt: str,
    ) -> bool:
        """Store a line to come that answers nobody, and what it is to say. False when it was stored
        before.
        """
        with self._db.atomic():
            is_new = self.begin(
                event_id, guild_id=guild_id, channel_id=channel_id, persona_id=persona_id, at=at
            )
            if not is_new:
                return False
            sql = "update replies set prompt = :prompt where event_id = :event"
            self._db.write(sql, prompt=prompt, event=event_id)
        return True

    def line_prompt(self, event_id: int) -> str | None:
        """Return what a line is to say; None for a reply to a member."""
        sql = "select prompt from replies where event_id = :event"
        return self._db.value(str, sql, event=event_id)

    def add_line(self, event_id: int, seq: int) -> None:
        """Have a waiting reply answer a further message of its member, which is stored as `seq`."""
        with self._db.atomic():
            first = """insert or ignore into reply_lines select trigger_seq, event_id from replies
                where event_id = :event and trigger_seq is not null"""
            self._db.write(first, event=event_id)
            self._db.insert("reply_lines", {"seq": seq, "event_id": event_id})
            sql = f"update replies set trigger_seq = :seq where {IN_ROUND}"
            self._db.write(sql, seq=seq, event=event_id)

    def lines(self, event_id: int) -> list[str]:
        """Return the texts of the messages that one reply answers, oldest first; none for a reply
        to a single one.
        """
        sql = f"""select text from messages join reply_lines using (seq)
            where event_id = {FIRST_EVENT} order by seq"""
        return self._db.column(str, sql, event=event_id)

    def asked_messages(self, event_id: int) -> list[int]:
        """Return the Discord ids of the messages that one reply answers, oldest first."""
        sql = f"""select discord_message_id from messages where discord_message_id is not null
            and {ASKED} order by seq"""
        return self._db.column(int, sql, event=event_id)

    def answers_unasked(self, event_id: int) -> bool:
        """Report whether a reply answers what its persona has said unasked, as in a greeting."""
        sql = f"""select 1 from messages join reply_parts on message_id = replies_to
            join replies as unasked using (event_id) where {ASKED} and unasked.asked_by = 0
            and unasked.persona_id = (select persona_id from replies where event_id = :event)"""
        return self._db.first(sql, event=event_id) is not None

    def begin_in_round(self, first_event: int, position: int, **values: Any) -> int:
        """Store a new reply to an event, with `begin`'s `values`: at position 0 the first, else that
        of a further persona. Returns its event, or the id that stands for it.
        """
        if position == 0:
            self.begin(first_event, **values)
            return first_event
        with self._db.atomic():
            events = _further_events(first_event, position)
            event_id = next(each for each in events if self.begin(each, **values))
            sql = """update replies set first_event = :first, round_position = :position
                where event_id = :event"""
            self._db.write(sql, first=first_event, position=position, event=event_id)
        return event_id

    def of_round(self, event_id: int) -> list[StoredReply]:
        """List the replies of all personas to the message that this event's reply answers, in their
        order: that reply alone where one persona answers it.
        """
        sql = f"""select * from replies where event_id = {FIRST_EVENT}
            or first_event = {FIRST_EVENT} order by coalesce(round_position, 0)"""
        return self._db.all(self._reply, sql, event=event_id)

    def earlier_of_round(self, event_id: int) -> list[int]:
        """List the events whose replies precede this event's, in answer to the same message."""
        events = [reply.event_id for reply in self.of_round(event_id)]
        return events[: events.index(event_id)] if event_id in events else []

    def of_line(self, discord_message_id: int) -> StoredReply | None:
        """Return the reply that answers this message together with others."""
        sql = """select replies.* from reply_lines join messages using (seq)
            join replies on replies.event_id = reply_lines.event_id where discord_message_id = :id"""
        return self._db.one(self._reply, sql, id=discord_message_id)

    def of_asked(self, discord_message_id: int) -> list[StoredReply]:
        """List the replies of all personas to a message, alone or together with other lines of its
        member.
        """
        first = self.get(discord_message_id) or self.of_line(discord_message_id)
        return self.of_round(first.event_id) if first else []

    def begin_regeneration(self, event_id: int, *, by: int, at: float) -> bool:
        """Start a finished reply's regeneration, which counts for the member who wants it. False
        while it is being generated.
        """
        sql = """update replies set state = 'waiting', attempt = attempt + 1, end_note = null
            where event_id = :event and state not in ('waiting', 'streaming') returning guild_id"""
        with self._db.atomic():
            guild_id = self._db.value(int, sql, event=event_id)
            if guild_id is None:
                return False
            self._attempts.add(guild_id, by, at, event_id=event_id)
        return True

    def record_interruption(self, event_id: int, by: int, at: float) -> None:
        """Record a stop or regeneration by the reply's author; a moderator may have other
        reasons.
        """
        sql = """update replies set interrupted_at = coalesce(interrupted_at, :at)
            where event_id = :event and asked_by = :by"""
        self._db.write(sql, event=event_id, by=by, at=at)

    def record_parts(self, event_id: int, parts: list[int]) -> None:
        """Store the messages, in this order, in which the partial reply is visible."""
        with self._db.atomic():
            self._db.write("delete from reply_parts where event_id = :event", event=event_id)
            for position, message_id in enumerate(parts):
                part = {"message_id": message_id, "event_id": event_id, "position": position}
                self._db.insert("reply_parts", part, replace=True)
            sql = (
                "update replies set state = 'streaming' where event_id = :event and state = "
                "'waiting'"
            )
            self._db.write(sql, event=event_id)

    def finish(
        self,
        event_id: int,
        state: Literal["done", "stopped", "failed"],
        adapter_version: str | None = None,
        seed: int | None = None,
        *,
        end_note: str | None = None,
    ) -> bool:
        """Store how a reply ended, and the note that has yet to be shown. False, and no change, if
        it had ended. One that failed counts for no limit.
        """
        sql = """update replies set state = :state, adapter_version = :version, seed = :seed, end_note = :note
            where event_id = :event and state in ('waiting', 'streaming')"""
        values = {
            "event": event_id,
            "state": state,
            "version": adapter_version,
            "seed": seed,
            "note": end_note,
        }
        with self._db.atomic():
            is_ended = self._db.write(sql, **values) > 0
            if is_ended and state == "failed":
                self._attempts.remove_latest(event_id)
        return is_ended

    def take_back(self, event_id: int) -> None:
        """Delete a reply of which members see nothing: it was refused, or the reply to a proxy's
        copy takes its place. Those that were to follow it are deleted, too. None counts for a limit.
        """
        with self._db.atomic():
            sql = """delete from reply_attempts where event_id = :event
                or event_id in (select event_id from replies where first_event = :event)"""
            self._db.write(sql, event=event_id)
            self._db.write(f"delete from replies where {IN_ROUND}", event=event_id)

    def record_deleted(self, event_id: int) -> None:
        """Record that the message was deleted before it showed the end; one that has shown it stays
        as it ended.
        """
        sql = (
            "update replies set state = 'stopped', end_note = null where event_id = :event and "
            f"{UNFINISHED}"
        )
        self._db.write(sql, event=event_id)

    def record_end_shown(self, event_id: int) -> None:
        """Record that members see how the reply ended, and delete the token that it was sent with."""
        with self._db.atomic():
            sql = "update replies set end_note = null, is_unseen = 0 where event_id = :event"
            self._db.write(sql, event=event_id)
            self._db.write("delete from interaction_tokens where event_id = :event", event=event_id)

    def give_up_end(self, event_id: int) -> None:
        """Record that members never see how the reply ended."""
        with self._db.atomic():
            self.record_end_unseen(event_id)
            sql = "update replies set end_note = null where event_id = :event"
            self._db.write(sql, event=event_id)
            self._db.write("delete from interaction_tokens where event_id = :event", event=event_id)

    def record_end_unseen(self, event_id: int) -> None:
        """Record that the end of a reply could not be shown, if that is still so."""
        sql = "update replies set is_unseen = 1 where event_id = :event and end_note is not null"
        self._db.write(sql, event=event_id)

    def get(self, event_id: int) -> StoredReply | None:
        """Return the reply to an event."""
        return self._db.one(
            self._reply, "select * from replies where event_id = :event", event=event_id
        )

    def latest_channels(self, guild_id: int, limit: int) -> list[int]:
        """List the channels of a guild in which a persona replied last, the latest first, without
        the conversations where the bot is not, whose ids are below 0: among the guild's latest
        `MAX_LATEST_REPLIES`.
        """
        sql = """select channel_id from
            (select channel_id, created_at from replies indexed by replies_of_guild_by_age
            where guild_id = :guild and channel_id > 0 order by created_at desc limit :most)
            group by channel_id order by max(created_at) desc limit :limit"""
        return self._db.column(int, sql, guild=guild_id, most=MAX_LATEST_REPLIES, limit=limit)

    def of_message(self, message_id: int) -> StoredReply | None:
        """Return the reply that this message is a part of."""
        sql = (
            "select replies.* from replies join reply_parts using (event_id) where message_id = :id"
        )
        return self._db.one(self._reply, sql, id=message_id)

    def unfinished(
        self, after: int = -1, limit: int = 500, *, channel_id: int | None = None
    ) -> list[StoredReply]:
        """List replies that have not ended, or whose end members may not see, to events after one,
        oldest first; of all channels, or of one.
        """
        sql = (
            # Those are few, but SQLite would rather read all replies in their order.
            f"select * from replies indexed by replies_unfinished where {UNFINISHED} "
            "and event_id > :after and channel_id = coalesce(:channel, channel_id) "
            "order by event_id limit :limit"
        )
        return self._db.all(self._reply, sql, after=after, limit=limit, channel=channel_id)

    def of_guild(
        self,
        guild_id: int,
        *,
        channel_ids: Collection[int] | None = None,
        persona_id: str | None = None,
        since: float = 0.0,
    ) -> list[StoredReply]:
        """List the replies in a guild, or in some of its channels, newest first, whose messages
        still exist.
        """
        sql = """select * from replies where guild_id = :guild and created_at >= :since
            and (:channels is null or channel_id in (select value from json_each(:channels)))
            and (:persona is null or persona_id = :persona)
            and exists (select 1 from reply_parts where reply_parts.event_id = replies.event_id)
            order by created_at desc"""
        channels = None if channel_ids is None else json.dumps(list(channel_ids))
        return self._db.all(
            self._reply, sql, guild=guild_id, since=since, channels=channels, persona=persona_id
        )

    def askers(self, guild_id: int, persona_id: str) -> dict[int, bool]:
        """Return the members whose messages a persona answered in a guild, and whether each has
        opted in.
        """
        sql = """select asked_by, exists (select 1 from consents where user_id = asked_by and opted_in = 1) as opted_in
            from (select distinct asked_by from replies where guild_id = :guild and persona_id = :persona
            and trigger_seq is not null)"""
        rows = self._db.read(sql, guild=guild_id, persona=persona_id)
        return {row["asked_by"]: bool(row["opted_in"]) for row in rows}

    def delete_part(self, message_id: int) -> None:
        """Record that a message of a reply was deleted; votes on the reply stay."""
        self._db.write("delete from reply_parts where message_id = :id", id=message_id)

    def vote_of(self, event_id: int, user_id: int) -> int | None:
        """Return a member's vote on the current attempt; None without one."""
        sql = """select vote from votes join replies using (event_id, attempt)
            where event_id = :event and user_id = :user"""
        row = self._db.first(sql, event=event_id, user=user_id)
        return row["vote"] if row else None

    def vote(self, event_id: int, user_id: int, vote: Literal[-1, 1], at: float) -> VoteCounts:
        """Store a member's vote on the current attempt; the same vote again withdraws it."""
        # A vote is on one attempt: the next one has another text, and perhaps another version.
        values = {"event": event_id, "user": user_id, "vote": vote, "at": at}
        mine = """event_id = :event and user_id = :user
            and attempt = (select attempt from replies where event_id = :event)"""
        with self._db.atomic():
            if not self._db.write(f"delete from votes where {mine} and vote = :vote", **values):
                sql = """insert or replace into votes
                    select event_id, attempt, :user, :vote, :at from replies where event_id = :event"""
                self._db.write(sql, **values)
        return self.votes(event_id)

    def votes(self, event_id: int) -> VoteCounts:
        """Count the votes on a reply's current attempt."""
        sql = """select coalesce(sum(vote = 1), 0) as up, coalesce(sum(vote = -1), 0) as down
            from votes join replies using (event_id, attempt) where event_id = :event"""
        return self._db.one(VoteCounts, sql, event=event_id) or VoteCounts()

    def _reply(self, event_id: int, is_unseen: int, **columns: Any) -> StoredReply:
        for name in ("prompt", "first_event", "round_position"):
            del columns[name]
        sql = "select message_id from reply_parts where event_id = :event order by position"
        return StoredReply(
            event_id,
            **columns,
            parts=tuple(self._db.column(int, sql, event=event_id)),
            is_unseen=bool(is_unseen),
        )


def _further_events(event_id: int, position: int) -> Iterator[int]:
    """Yield ids for the reply of a further persona to an event: snowflakes of its millisecond, which
    hardly ever are those of other events. Buttons carry them, and the messages since their time are
    searched for these.
    """
    since = event_id >> LOW_BITS << LOW_BITS
    for attempt in itertools.count():
        text = f"{event_id}:{position}:{attempt}"
        digest = hashlib.sha256(text.encode()).digest()
        yield since | int.from_bytes(digest[:4], "big") % (1 << LOW_BITS)
