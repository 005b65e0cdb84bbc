"""Settings of channels that decide when a persona answers, in the database."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from bot.platform.db.database import Row, Table

SettingValue = float | int | str | bool


@dataclass(frozen=True)
class AnsweringSettings:
    """Settings of a channel; None is left to a thread's channel, then to the default.

    `wait_s` is the time for which a reply waits for further lines of its member, `reply_chance` the
    share of the messages said to nobody that are answered, in percent. `quiet_hours` are such as
    "22:00-07:00", and `quiet_mentions` says whether mentions are silent then, too.
    """

    wait_s: float | None = None
    reply_chance: int | None = None
    quiet_hours: str | None = None
    quiet_mentions: bool | None = None


FIELDS = tuple(field.name for field in fields(AnsweringSettings))


class StoredAnswering(Table):
    """The settings of all channels that have any. Guild 0 stands for direct messages."""

    def get(self, guild_id: int, channel_id: int) -> AnsweringSettings:
        """Return what is set for a channel, all None where nothing is."""
        sql = (
            """select * from answering_settings where guild_id = :guild and channel_id = :channel"""
        )
        row = self._db.first(sql, guild=guild_id, channel=channel_id)
        return _settings(row) if row else AnsweringSettings()

    def applying(
        self, guild_id: int, channel_id: int, parent_id: int | None
    ) -> list[AnsweringSettings]:
        """List the settings that apply in a channel: a thread's own, then those of its channel."""
        sql = """select * from answering_settings where guild_id = :guild
            and channel_id in (:channel, :parent) order by channel_id <> :channel"""
        rows = self._db.read(sql, guild=guild_id, channel=channel_id, parent=parent_id)
        return [_settings(row) for row in rows]

    def change(
        self, guild_id: int, channel_id: int, changes: Mapping[str, SettingValue | None], at: float
    ) -> AnsweringSettings:
        """Set the fields that `changes` name (None removes one) at a time, and return all of the
        channel's.
        """
        settings = {**vars(self.get(guild_id, channel_id)), **changes}
        with self._db.atomic():
            if all(value is None for value in settings.values()):
                self.forget_channel(channel_id)
            else:
                place = {"guild_id": guild_id, "channel_id": channel_id, "set_at": at}
                self._db.insert("answering_settings", {**place, **settings}, replace=True)
        return self.get(guild_id, channel_id)

    def forget_channel(self, channel_id: int) -> bool:
        """Remove the settings of a channel. False when it had none."""
        sql = "delete from answering_settings where channel_id = :channel"
        return self._db.write(sql, channel=channel_id) > 0


def _settings(row: Row) -> AnsweringSettings:
    values = {name: row[name] for name in FIELDS}
    if values["quiet_mentions"] is not None:
        values["quiet_mentions"] = bool(values["quiet_mentions"])
    return AnsweringSettings(**values)
