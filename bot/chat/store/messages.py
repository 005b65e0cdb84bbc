"""Message history of the channels, kept by the bot and never read back from Discord."""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass

from bot.guilds.store.places import PRESENT_CONVERSATION_SQL
from bot.memory.store import forget_memories
from bot.platform.db.database import DatabaseConnection, Table
from bot.platform.db.gone import Gone


@dataclass(frozen=True)
class StoredMessage:
    """One message. `persona_id` is set for a persona's, `adapter_version` for one that an adapter
    generated.

    `replies_to` is the Discord id of the message that it replies to
    (`bot.chat.store.quoted_messages`).
    """

    seq: int
    guild_id: int
    channel_id: int
    discord_message_id: int | None
    author_id: int
    author_name: str
    persona_id: str | None
    text: str
    adapter_version: str | None
    at: float
    replies_to: int | None = None


MESSAGE_FIELDS = tuple(StoredMessage.__dataclass_fields__)
MESSAGE_COLUMNS = ", ".join(MESSAGE_FIELDS)

MAX_EARLIER_EXCHANGES = 1000
"""Number of a member's latest exchanges with a persona in a channel that are searched."""
EARLIER_SQL = f"""from replies join messages as question on question.seq = replies.trigger_seq
    join reply_parts on reply_parts.event_id = replies.event_id and position = 0
    join messages as reply on reply.discord_message_id = reply_parts.message_id
    where replies.guild_id = :guild_id and replies.channel_id = :channel_id and replies.persona_id = :persona_id
    and replies.asked_by = :member_id and question.author_id = :member_id and state = 'done'
    and not is_unseen and question.conversation = {PRESENT_CONVERSATION_SQL}
    and reply.seq < :before_seq and reply.adapter_version is :version"""
MAX_SEQ = 2**63 - 1
"""Larger than every `seq`."""
IS_SHOWN_SQL = """not exists (select 1 from reply_parts join replies using (event_id)
    where message_id = messages.discord_message_id and is_unseen)"""
"""The condition that members see a message: no reply whose end could not be shown yet."""
RECENT_SQL = f"""select ordinal, {MESSAGE_COLUMNS} from messages where channel_id = :channel_id and seq <= :until
    and (seq = :until or conversation = {PRESENT_CONVERSATION_SQL}) and {IS_SHOWN_SQL}
    and ordinal > (select max(ordinal) + :upcoming - :most from messages
    where channel_id = :channel_id and seq <= :until) order by ordinal"""


@dataclass(frozen=True)
class EarlierTalk:
    """The exchanges of a member with a persona in a channel before a message, with replies of
    a version (None is the base model).
    """

    guild_id: int
    channel_id: int
    persona_id: str
    member_id: int
    before_seq: int
    version: str | None


@dataclass(frozen=True)
class Exchange:
    """A member's message, with its `seq`, and the reply to it."""

    seq: int
    question: str
    reply: str


class MessageHistory(Table):
    """Messages by channel; a thread is a channel of its own here."""

    def __init__(self, connection: DatabaseConnection) -> None:
        super().__init__(connection)
        self._gone = Gone(connection, "message")

    def append(
        self,
        *,
        guild_id: int,
        channel_id: int,
        author_id: int,
        author_name: str,
        text: str,
        at: float,
        discord_message_id: int | None = None,
        persona_id: str | None = None,
        adapter_version: str | None = None,
        replies_to: int | None = None,
        conversation: int | None = None,
    ) -> int:
        """Store a message and return its `seq`; a known Discord id is stored once.

        Without `conversation`, it belongs to its channel's present one, or to the one before if it
        is older than that. A repeated message of a member stays unchanged; a persona's, regenerated after a crash,
        takes the new text.
        """
        # `ordinal` numbers the messages of a channel: the window of prompts moves by it.
        sql = """insert into messages (guild_id, channel_id, ordinal, discord_message_id, author_id, author_name,
            persona_id, text, adapter_version, replies_to, at, conversation) values (:guild_id, :channel_id,
            (select coalesce(max(ordinal), 0) + 1 from messages where channel_id = :channel_id),
            :discord_message_id, :author_id, :author_name, :persona_id, :text, :adapter_version,
            :replies_to, :at, coalesce(:conversation, (select conversation
            - coalesce(:discord_message_id < conversation_event, 0) from places where channel_id = :channel_id), 0))
            on conflict (discord_message_id) do update set
            text = iif(persona_id is null, text, excluded.text), adapter_version = excluded.adapter_version
            returning seq"""
        place = {
            "guild_id": guild_id,
            "channel_id": channel_id,
            "discord_message_id": discord_message_id,
            "at": at,
            "conversation": conversation,
        }
        author = {"author_id": author_id, "author_name": author_name, "persona_id": persona_id}
        content = {"text": text, "adapter_version": adapter_version, "replies_to": replies_to}
        seq = self._db.value(int, sql, **place, **author, **content)
        assert seq is not None  # an upsert always returns its row
        return seq

    def latest(self, channel_id: int, most: int) -> list[StoredMessage]:
        """Return the last messages of a channel's conversation, at most so many, oldest first."""
        return [message for _, message in self.recent_numbered(channel_id, most)]

    def recent_numbered(
        self, channel_id: int, most: int, until_seq: int | None = None, upcoming: int = 0
    ) -> list[tuple[int, StoredMessage]]:
        """Return the last messages of a channel's present conversation, at most so many, oldest
        first, each with its number in the channel. Replies whose end could not be shown yet are
        left out.

        With `until_seq`, those up to that message, however many came after it. With `upcoming`,
        those that will be left of them after so many more.
        """
        rows = self._db.read(
            RECENT_SQL,
            channel_id=channel_id,
            most=most,
            until=until_seq or MAX_SEQ,
            upcoming=upcoming,
        )
        messages = []
        for row in rows:
            ordinal = row.pop("ordinal")
            messages.append((ordinal, StoredMessage(**row)))
        return messages

    def of_replies(self, event_ids: Collection[int]) -> list[StoredMessage]:
        """List what personas have said in these events' replies, in the order in which it was
        said, without replies whose end could not be shown yet.
        """
        sql = f"""select {MESSAGE_COLUMNS} from messages where discord_message_id in (select message_id
            from reply_parts where event_id in (select value from json_each(:events)) and position = 0)
            and {IS_SHOWN_SQL} order by seq"""
        return self._db.all(StoredMessage, sql, events=json.dumps(list(event_ids)))

    def earlier_vectors(self, talk: EarlierTalk, encoder: str) -> dict[int, bytes | None]:
        """Return the encoder's vectors of the questions of earlier talk by `seq`, the latest first;
        None where none is.

        A new conversation has no earlier talk.
        """
        sql = f"""select question.seq, (select vector from message_vectors where seq = question.seq
            and encoder = :encoder) as vector {EARLIER_SQL} order by trigger_seq desc limit :most"""
        rows = self._db.read(sql, **asdict(talk), encoder=encoder, most=MAX_EARLIER_EXCHANGES)
        return {row["seq"]: row["vector"] for row in rows}

    def earlier_exchanges(self, talk: EarlierTalk, seqs: Collection[int]) -> list[Exchange]:
        """Return these exchanges of earlier talk, oldest first."""
        sql = f"""select question.seq, question.text as question, reply.text as reply {EARLIER_SQL}
            and question.seq in (select value from json_each(:seqs)) order by question.seq"""
        return self._db.all(Exchange, sql, **asdict(talk), seqs=json.dumps(list(seqs)))

    def store_vectors(self, encoder: str, vectors: Mapping[tuple[int, str], bytes]) -> None:
        """Store vectors of messages by `seq` and text, but for messages that were deleted or edited
        meanwhile.
        """
        self._store_vectors(vectors, encoder, "message_vectors", of="messages")

    def conversation_of(self, seq: int) -> int | None:
        """Return the number of the conversation that a message belongs to; None if it is gone."""
        return self._db.value(int, "select conversation from messages where seq = :seq", seq=seq)

    def asked_seqs(self, seqs: Collection[int]) -> dict[int, int]:
        """Return for each of these messages the `seq` of the one that it answers, or its own."""
        sql = """select seq, coalesce(trigger_seq, seq) as asked from messages
            left join reply_parts on message_id = discord_message_id left join replies using (event_id)
            where seq in (select value from json_each(:seqs))"""
        rows = self._db.read(sql, seqs=json.dumps(list(seqs)))
        return {row["seq"]: row["asked"] for row in rows}

    def is_deleted(self, discord_message_id: int) -> bool:
        """Report whether a stored message was deleted; events of it may be delivered again."""
        return self._gone.has(discord_message_id)

    def is_of_member(self, discord_message_id: int) -> bool:
        """Report whether a message is stored as a member's."""
        sql = "select 1 from messages where discord_message_id = :id and persona_id is null"
        return self._db.value(int, sql, id=discord_message_id) is not None

    def text_of(self, discord_message_id: int) -> str | None:
        """Return the text of a message; None when it is unknown."""
        return self._db.value(
            str, "select text from messages where discord_message_id = :id", id=discord_message_id
        )

    def record_response(self, interaction_id: int, message_id: int) -> None:
        """Store the id of the message that shows what a command or form said: with it, that is
        deleted.
        """
        sql = (
            "update messages set discord_message_id = :message where discord_message_id = "
            ":interaction"
        )
        self._db.write(sql, message=message_id, interaction=interaction_id)

    def update(self, discord_message_id: int, text: str) -> bool:
        """Store an edit. False when the message is unknown."""
        sql = "update messages set text = :text where discord_message_id = :id"
        return self._db.write(sql, text=text, id=discord_message_id) > 0

    def take_back(self, seq: int) -> None:
        """Delete a message that was stored, but that nobody saw."""
        self._db.write("delete from messages where seq = :seq", seq=seq)

    def delete(self, discord_message_id: int) -> bool:
        """Delete a message. False when it is unknown."""
        # The id stays: a gateway that resumes may deliver the message again (`is_deleted`).
        with self._db.atomic():
            forget_memories(self._db, "message_id = :id", id=discord_message_id)
            for table in ("quoted_messages", "messages"):
                which = f"from {table} where discord_message_id = :id"
                self._gone.record_rows("discord_message_id", which, id=discord_message_id)
                deleted = self._db.write(f"delete {which}", id=discord_message_id)
        return deleted > 0

    def delete_channel(self, channel_id: int, most: int = -1) -> int:
        """Delete messages and replies of a channel, at most so many of each, and all else that was
        said there. Returns the number of messages and replies.
        """
        some = "select {key} from {table} where channel_id = :id limit :most"
        messages = f"from messages where seq in ({some.format(key='seq', table='messages')})"
        replies = f"from replies where event_id in ({some.format(key='event_id', table='replies')})"
        known = f"{messages} and discord_message_id is not null"
        deleted = 0
        with self._db.atomic():
            self._gone.record_rows("discord_message_id", known, id=channel_id, most=most)
            for rows in (replies, messages):
                deleted += self._db.write(f"delete {rows}", id=channel_id, most=most)
            self._db.write("delete from quoted_messages where channel_id = :id", id=channel_id)
            forget_memories(self._db, "channel_id = :id and message_id is not null", id=channel_id)
        return deleted

    def opted_in_exchanges(
        self, guild_id: int, persona_id: str, limit: int
    ) -> list[tuple[StoredMessage, StoredMessage]]:
        """List a persona's latest replies in a guild to members who have opted in, with the
        messages they answer.

        Each pair is the question and the reply.
        """
        columns = []
        for side in ("question", "reply"):
            columns += [f"{side}.{name} as {side}_{name}" for name in MESSAGE_FIELDS]
        sql = f"""select {", ".join(columns)} from replies join reply_parts using (event_id)
            join messages as reply on reply.discord_message_id = reply_parts.message_id
            join messages as question on question.seq = replies.trigger_seq
            where replies.guild_id = :guild and replies.persona_id = :persona and replies.state <> 'failed'
            and replies.asked_by in (select user_id from consents where opted_in = 1)
            and question.author_id in (select user_id from consents where opted_in = 1)
            and question.guild_id = :guild and question.persona_id is null
            and reply.guild_id = :guild and reply.persona_id = :persona
            order by reply.at desc limit :limit"""
        exchanges = []
        for row in self._db.read(sql, guild=guild_id, persona=persona_id, limit=limit):
            question = {name: row[f"question_{name}"] for name in MESSAGE_FIELDS}
            reply = {name: row[f"reply_{name}"] for name in MESSAGE_FIELDS}
            exchanges.append((StoredMessage(**question), StoredMessage(**reply)))
        return exchanges

    def authors_not_opted_in(self, guild_id: int) -> list[tuple[int, str]]:
        """List ids and names of the authors in a guild who have not opted in; of some several
        names.
        """
        sql = """select distinct author_id, author_name from messages where guild_id = :guild and persona_id is null
            and author_id not in (select user_id from consents where opted_in = 1)"""
        rows = self._db.read(sql, guild=guild_id)
        return [(row["author_id"], row["author_name"]) for row in rows]

    def authors(self) -> list[tuple[int, str]]:
        """List ids and names of all members whose messages are stored, those that others replied to
        among them; of some several names.
        """
        sql = """select author_id, author_name from messages where persona_id is null
            union select author_id, author_name from quoted_messages"""
        return [(row["author_id"], row["author_name"]) for row in self._db.read(sql)]

    def delete_before(self, at: float, most: int = -1) -> int:
        """Delete messages, replies and votes from before a time, at most so many of each. Returns
        their number.
        """
        ended = "state not in ('waiting', 'streaming')"
        which = {
            "messages": "seq in (select seq from messages where at < :at limit :most)",
            "replies": (
                f"event_id in (select event_id from replies where created_at < :at and {ended} "
                "limit :most)"
            ),
        }
        with self._db.atomic():
            deleted = self._gone.delete_before(at, most)
            for table, rows in which.items():
                deleted += self._db.write(f"delete from {table} where {rows}", at=at, most=most)
        return deleted
