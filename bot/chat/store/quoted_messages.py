"""Messages that members see beside others: one replies to them, or a thread was started from
them.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from bot.platform.db.database import Table
from bot.platform.db.gone import gone_sql

FIRST_PART_SQL = """coalesce((select first.message_id from reply_parts as part
    join reply_parts as first on first.event_id = part.event_id and first.position = 0
    where part.message_id = :id), :id)"""
"""The first message of the reply that the message `:id` is a part of, else the message itself."""


@dataclass(frozen=True)
class QuotedMessage:
    """A message that is shown beside another one; a `text` of None cannot be read.

    `persona_id` and `adapter_version` are set where it is a persona's.
    """

    message_id: int
    channel_id: int
    author_id: int
    author_name: str
    text: str | None
    persona_id: str | None = None
    adapter_version: str | None = None


class QuotedMessages(Table):
    """Quoted messages that are not in the history; each is deleted with the last message that shows
    it.
    """

    def add(self, quoted: QuotedMessage, guild_id: int, at: float) -> int:
        """Store a message unless the history has it or it was deleted. Returns the id under which
        it is found.
        """
        message_id = self._db.value(int, f"select {FIRST_PART_SQL}", id=quoted.message_id)
        assert message_id is not None  # it is the argument at least
        sql = f"""insert or replace into quoted_messages
            select :id, :guild, :channel, :author, :name, :text, :at
            where not exists (select 1 from messages where discord_message_id = :id)
            and not {gone_sql("message", ":id")}"""
        author = {"author": quoted.author_id, "name": quoted.author_name, "text": quoted.text}
        self._db.write(
            sql, id=message_id, guild=guild_id, channel=quoted.channel_id, at=at, **author
        )
        return message_id

    def find(self, message_ids: Iterable[int]) -> dict[int, QuotedMessage]:
        """Return messages by id, of the history and of the others; deleted and unknown ones are
        missing.
        """
        sql = """select discord_message_id as message_id, channel_id, author_id, author_name, text, persona_id,
            adapter_version from messages where discord_message_id in (select value from json_each(:ids))
            union all select discord_message_id, channel_id, author_id, author_name, text, null, null
            from quoted_messages where discord_message_id in (select value from json_each(:ids))"""
        messages = self._db.all(QuotedMessage, sql, ids=json.dumps([*message_ids]))
        return {quoted.message_id: quoted for quoted in messages}

    def update(self, message_id: int, text: str | None) -> bool:
        """Store an edit. False when the message is unknown."""
        sql = "update quoted_messages set text = :text where discord_message_id = :id"
        return self._db.write(sql, id=message_id, text=text) > 0

    def has(self, message_id: int) -> bool:
        """Report whether the message is one of these."""
        sql = "select 1 from quoted_messages where discord_message_id = :id"
        return self._db.value(int, sql, id=message_id) is not None
