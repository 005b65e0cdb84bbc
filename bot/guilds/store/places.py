"""What is known of single channels and threads, beside their personas and settings."""

from bot.platform.db.database import Table

PRESENT_CONVERSATION_SQL = (
    """coalesce((select conversation from places where channel_id = :channel_id), 0)"""
)
"""The number of the present conversation of a channel."""


class Places(Table):
    """One row for each channel or thread with something to know. It goes when the channel was
    deleted and nothing that was said there is stored any more, or with its guild.
    """

    def _set(self, guild_id: int, channel_id: int, **facts: object) -> None:
        """Store facts about a channel; its others stay."""
        row = {"channel_id": channel_id, "guild_id": guild_id, **facts}
        values = ", ".join(f":{column}" for column in row)
        changes = ", ".join(f"{column} = excluded.{column}" for column in facts)
        sql = f"""insert into places ({", ".join(row)}) values ({values})
            on conflict do update set {changes}"""
        self._db.write(sql, **row)

    def record_thread(self, guild_id: int, channel_id: int, parent_id: int | None) -> None:
        """Store the parent of a thread (None: it is none) with messages or memories, which are
        deleted with it.
        """
        if parent_id is None:
            return
        sql = """insert into places (channel_id, guild_id, parent_id) select :channel, :guild, :parent
            where exists (select 1 from messages where channel_id = :channel)
            or exists (select 1 from memories where channel_id = :channel)
            on conflict do update set parent_id = excluded.parent_id where parent_id is null"""
        self._db.write(sql, channel=channel_id, guild=guild_id, parent=parent_id)

    def threads_of(self, parent_id: int) -> list[int]:
        """List the threads of a channel with messages or memories, also those that Discord has
        archived.
        """
        sql = "select channel_id from places where parent_id = :parent"
        return self._db.column(int, sql, parent=parent_id)

    def webhook(self, channel_id: int) -> tuple[int, str] | None:
        """Return id and token (a secret) of the webhook that personas use in a channel."""
        sql = """select webhook_id, webhook_token from places where channel_id = :channel
            and webhook_id is not null"""
        row = self._db.first(sql, channel=channel_id)
        return (row["webhook_id"], row["webhook_token"]) if row else None

    def set_webhook(self, guild_id: int, channel_id: int, webhook_id: int, token: str) -> None:
        """Store a channel's webhook, replacing the one before."""
        self._set(guild_id, channel_id, webhook_id=webhook_id, webhook_token=token)

    def forget_webhook(self, channel_id: int) -> None:
        """Forget a channel's webhook, which no longer exists on Discord."""
        sql = """update places set webhook_id = null, webhook_token = null
            where channel_id = :channel"""
        self._db.write(sql, channel=channel_id)

    def start_new_conversation(self, guild_id: int, channel_id: int, event_id: int = 0) -> None:
        """Start a new conversation at an event: prompts have nothing from before it, also not what
        is stored later. Nothing is deleted.
        """
        sql = """insert into places (channel_id, guild_id, conversation, conversation_event)
            values (:channel, :guild, 1, :event) on conflict do update set
            conversation = conversation + 1, conversation_event = excluded.conversation_event"""
        self._db.write(sql, channel=channel_id, guild=guild_id, event=event_id)

    def present_conversation(self, channel_id: int) -> int:
        """Return the number of the present conversation of a channel; the first one has 0."""
        sql = f"select {PRESENT_CONVERSATION_SQL}"
        return self._db.value(int, sql, channel_id=channel_id) or 0

    def has_new_conversation(self, channel_id: int) -> bool:
        """Report whether a new conversation was started in a channel."""
        return self.present_conversation(channel_id) > 0

    def note_age_notice(self, guild_id: int, channel_id: int) -> bool:
        """Remember that a channel was told that an age-restricted persona does not speak there.
        False when it was told before.
        """
        if self._has_age_notice(channel_id):
            return False
        self._set(guild_id, channel_id, has_age_notice=True)
        return True

    def forget_age_notice(self, channel_id: int) -> None:
        """Forget that a channel was told so: the next time is a new one."""
        if self._has_age_notice(channel_id):
            sql = "update places set has_age_notice = 0 where channel_id = :channel"
            self._db.write(sql, channel=channel_id)

    def forget_age_notices(self, guild_id: int) -> None:
        """Forget which channels of a guild were told so: moderators have decided anew."""
        sql = "update places set has_age_notice = 0 where guild_id = :guild and has_age_notice"
        self._db.write(sql, guild=guild_id)

    def _has_age_notice(self, channel_id: int) -> bool:
        sql = "select 1 from places where channel_id = :channel and has_age_notice"
        return self._db.first(sql, channel=channel_id) is not None

    def note_gone(self, guild_id: int, channel_id: int) -> None:
        """Note that a channel or thread was deleted on Discord, and what was said there is yet to
        be. All else that is known of it goes.
        """
        row = {"channel_id": channel_id, "guild_id": guild_id, "is_gone": True}
        self._db.insert("places", row, replace=True)

    def gone(self) -> dict[int, int]:
        """Return the guilds of the deleted channels and threads of which something may be stored."""
        rows = self._db.read("select channel_id, guild_id from places where is_gone")
        return {row["channel_id"]: row["guild_id"] for row in rows}

    def forget(self, channel_id: int) -> None:
        """Delete the row of a channel or thread that is gone, and of which nothing is stored any
        more.
        """
        self._db.write("delete from places where channel_id = :channel", channel=channel_id)
