"""Channel settings: the persona, the webhook and the mutes of each channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bot.store.database import DatabaseConnection

AnswerMode = Literal["mentions", "everything"]


"""What the persona answers in a channel: messages that mention the bot, or every message."""


@dataclass(frozen=True)
class Channel:
    """A channel with a persona. `set_at` in seconds since 1970."""

    guild_id: int
    channel_id: int
    persona_id: str
    answers: AnswerMode
    set_by: int
    set_at: float


class Channels:
    """The personas of the channels. A thread without one of its own has its parent's."""

    def __init__(self, connection: DatabaseConnection) -> None:
        self._db = connection

    def assign(self, channel: Channel) -> None:
        """Give a channel its persona, in place of the one it had."""
        self._db.write(
            """insert into channels values (:guild_id, :channel_id, :persona_id, :answers, :set_by, :set_at)
            on conflict do update set persona_id = excluded.persona_id, answers = excluded.answers,
            set_by = excluded.set_by, set_at = excluded.set_at""",
            vars(channel),
        )

    def clear(self, guild_id: int, channel_id: int) -> bool:
        """Take a channel's persona away. False when it had none."""
        sql = "delete from channels where guild_id = :guild and channel_id = :channel"
        return self._db.write(sql, {"guild": guild_id, "channel": channel_id}) > 0

    def get(self, guild_id: int, channel_id: int, parent_id: int | None = None) -> Channel | None:
        """The channel's own persona or, for a thread whose parent is named, the parent's."""
        row = self._db.first(
            """select * from channels where guild_id = :guild and channel_id in (:channel, :parent)
            order by channel_id = :channel desc limit 1""",
            {"guild": guild_id, "channel": channel_id, "parent": parent_id},
        )
        return Channel(**row) if row else None

    def of_guild(self, guild_id: int) -> list[Channel]:
        """The channels of a guild that have a persona of their own, oldest choice first."""
        rows = self._db.read(
            "select * from channels where guild_id = :guild order by set_at, channel_id", {"guild": guild_id}
        )
        return [Channel(**row) for row in rows]

    def webhook(self, channel_id: int) -> tuple[int, str] | None:
        """Id and token (a secret) of the webhook through which personas speak in a channel."""
        row = self._db.first("select webhook_id, token from webhooks where channel_id = :id", {"id": channel_id})
        return (row["webhook_id"], row["token"]) if row else None

    def set_webhook(self, guild_id: int, channel_id: int, webhook_id: int, token: str) -> None:
        """Remember a channel's webhook, in place of the one it had."""
        self._db.write(
            "insert or replace into webhooks values (:channel, :guild, :webhook, :token)",
            {"channel": channel_id, "guild": guild_id, "webhook": webhook_id, "token": token},
        )

    def forget_webhook(self, channel_id: int) -> None:
        """The webhook is gone."""
        self._db.write("delete from webhooks where channel_id = :id", {"id": channel_id})


ALL_CHANNELS, ALL_PERSONAS = 0, ""


"""In place of a channel: the whole server. In place of a persona: all of them."""


@dataclass(frozen=True)
class Mute:
    """A silence. `at` in seconds since 1970."""

    guild_id: int
    channel_id: int
    persona_id: str
    muted_by: int
    at: float


class Mutes:
    """The silences of all guilds. They survive a restart, and hold whichever persona moves in."""

    def __init__(self, connection: DatabaseConnection) -> None:
        self._db = connection

    def add(self, mute: Mute) -> None:
        """Silence; doing so again changes nothing."""
        self._db.write(
            "insert or ignore into mutes values (:guild_id, :channel_id, :persona_id, :muted_by, :at)", vars(mute)
        )

    def remove(self, guild_id: int, channel_id: int, persona_id: str) -> bool:
        """Lift the silence that was made for just this place and persona. False when there is none."""
        sql = "delete from mutes where guild_id = :guild and channel_id = :channel and persona_id = :persona"
        return self._db.write(sql, {"guild": guild_id, "channel": channel_id, "persona": persona_id}) > 0

    def holding(self, guild_id: int, channel_id: int, parent_id: int | None, persona_id: str) -> Mute | None:
        """What silences a persona in a channel, or in a thread of the channel `parent_id`."""
        row = self._db.first(
            """select * from mutes where guild_id = :guild and channel_id in (0, :channel, :parent)
            and persona_id in ('', :persona) limit 1""",
            {"guild": guild_id, "channel": channel_id, "parent": parent_id, "persona": persona_id},
        )
        return Mute(**row) if row else None

    def of_guild(self, guild_id: int) -> list[Mute]:
        """All silences of a guild, oldest first."""
        return [
            Mute(**row)
            for row in self._db.read("select * from mutes where guild_id = :guild order by at", {"guild": guild_id})
        ]
