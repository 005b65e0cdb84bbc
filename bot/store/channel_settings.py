"""Channel settings: the persona, the webhook and the mutes of each channel."""

from dataclasses import dataclass
from typing import Literal

from bot.store.database import Table

AnswerMode = Literal["mentions", "everything"]
"""The messages that a persona answers in a channel: those that mention the bot, or all."""
ALL_CHANNELS, ALL_PERSONAS = 0, ""
"""Stands for all channels of a guild, and for all personas."""


@dataclass(frozen=True)
class Channel:
    """A channel with a persona. `set_at` in seconds since 1970."""

    guild_id: int
    channel_id: int
    persona_id: str
    answers: AnswerMode
    set_by: int
    set_at: float


class Channels(Table):
    """The personas of the channels. A thread without its own inherits its parent's."""

    def assign(self, channel: Channel) -> None:
        """Assign a persona to a channel, replacing the one before."""
        self._db.insert("channels", vars(channel), replace=True)

    def clear(self, guild_id: int, channel_id: int) -> bool:
        """Remove a channel's persona. False when it had none."""
        sql = "delete from channels where guild_id = :guild and channel_id = :channel"
        return self._db.write(sql, guild=guild_id, channel=channel_id) > 0

    def get(self, guild_id: int, channel_id: int, parent_id: int | None = None) -> Channel | None:
        """Return the channel's own persona or, for a thread with a `parent_id`, the parent's."""
        sql = """select * from channels where guild_id = :guild and channel_id in (:channel, :parent)
            order by channel_id = :channel desc limit 1"""
        return self._db.one(Channel, sql, guild=guild_id, channel=channel_id, parent=parent_id)

    def of_guild(self, guild_id: int) -> list[Channel]:
        """List the channels of a guild that have their own persona, oldest assignment first."""
        sql = "select * from channels where guild_id = :guild order by set_at, channel_id"
        return self._db.all(Channel, sql, guild=guild_id)

    def webhook(self, channel_id: int) -> tuple[int, str] | None:
        """Return id and token (a secret) of the webhook that personas use in a channel."""
        row = self._db.first("select webhook_id, token from webhooks where channel_id = :id", id=channel_id)
        return (row["webhook_id"], row["token"]) if row else None

    def set_webhook(self, guild_id: int, channel_id: int, webhook_id: int, token: str) -> None:
        """Store a channel's webhook, replacing the one before."""
        row = {"channel_id": channel_id, "guild_id": guild_id, "webhook_id": webhook_id, "token": token}
        self._db.insert("webhooks", row, replace=True)

    def delete_webhook(self, channel_id: int) -> None:
        """Delete a channel's webhook, which no longer exists on Discord."""
        self._db.write("delete from webhooks where channel_id = :id", id=channel_id)


@dataclass(frozen=True)
class Mute:
    """A muted persona, channel or guild. `at` in seconds since 1970."""

    guild_id: int
    channel_id: int
    persona_id: str
    muted_by: int
    at: float


class Mutes(Table):
    """The mutes of all guilds. They survive a restart, and apply to personas assigned later, too."""

    def add(self, mute: Mute) -> None:
        """Add a mute; idempotent."""
        self._db.insert("mutes", vars(mute), ignore=True)

    def remove(self, guild_id: int, channel_id: int, persona_id: str) -> bool:
        """Remove the mute of exactly this channel and persona. False when there is none."""
        sql = "delete from mutes where guild_id = :guild and channel_id = :channel and persona_id = :persona"
        return self._db.write(sql, guild=guild_id, channel=channel_id, persona=persona_id) > 0

    def find_applying(self, guild_id: int, channel_id: int, parent_id: int | None, persona_id: str) -> Mute | None:
        """Find a mute that applies to a persona in a channel, or in a thread of the channel `parent_id`."""
        sql = """select * from mutes where guild_id = :guild and channel_id in (0, :channel, :parent)
            and persona_id in ('', :persona) limit 1"""
        return self._db.one(Mute, sql, guild=guild_id, channel=channel_id, parent=parent_id, persona=persona_id)

    def of_guild(self, guild_id: int) -> list[Mute]:
        """List the mutes of a guild, oldest first."""
        return self._db.all(Mute, "select * from mutes where guild_id = :guild order by at", guild=guild_id)
