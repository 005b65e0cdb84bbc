"""What is set on Discord, in the database: a row a setting and scope."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from bot.platform.db.database import Row, Table

NO_CHANNEL = 0
ALL_PERSONAS = ""
SettingValue = bool | int | float | str | list[str]
"""A value as JSON has it."""


@dataclass(frozen=True)
class SettingScope:
    """Where something is set: a channel of a guild, whoever speaks there; else a persona in a guild;
    else the guild. Guild 0 stands for all guilds, or for direct messages.
    """

    guild_id: int
    channel_id: int = NO_CHANNEL
    persona_id: str = ALL_PERSONAS


@dataclass(frozen=True)
class StoredSetting:
    """The value of a setting in one scope."""

    scope: SettingScope
    key: str
    value: SettingValue


class StoredSettings(Table):
    """The settings of all scopes that have any."""

    def get(self, scope: SettingScope) -> dict[str, SettingValue]:
        """Return what is set in a scope, by key."""
        sql = """select key, value from settings where guild_id = :guild_id
            and channel_id = :channel_id and persona_id = :persona_id order by key"""
        return {row["key"]: _value(row) for row in self._db.read(sql, **vars(scope))}

    def value(self, scope: SettingScope, key: str) -> SettingValue | None:
        """Return the value of one setting in a scope; None where it is not set."""
        sql = """select value from settings where guild_id = :guild_id
            and channel_id = :channel_id and persona_id = :persona_id and key = :key"""
        row = self._db.first(sql, **vars(scope), key=key)
        return None if row is None else _value(row)

    def applying(
        self, guild_id: int, channel_id: int, parent_id: int | None, persona_id: str
    ) -> list[StoredSetting]:
        """List what is set for a persona in a channel, the most specific scope first: the thread, its
        channel, the persona in the guild, the guild, and the persona in all guilds.
        """
        sql = """select * from settings where guild_id = :guild
            and channel_id in (:channel, :parent) and channel_id <> 0
            or guild_id in (0, :guild) and channel_id = 0 and persona_id in ('', :persona)
            order by channel_id = 0, channel_id <> :channel, guild_id = 0, persona_id = ''"""
        place = {"guild": guild_id, "channel": channel_id, "parent": parent_id}
        rows = self._db.read(sql, **place, persona=persona_id)
        # What is set for direct messages, which are guild 0, holds nowhere else.
        return [
            _stored(row)
            for row in rows
            if row["guild_id"] or row["channel_id"] or row["persona_id"] or not guild_id
        ]

    def in_guild(self, guild_id: int, key: str) -> list[StoredSetting]:
        """List the values of one setting in a guild."""
        sql = "select * from settings where guild_id = :guild and key = :key"
        return [_stored(row) for row in self._db.read(sql, guild=guild_id, key=key)]

    def of_persona(self, persona_id: str) -> list[StoredSetting]:
        """List what is set for a persona, that for all guilds first."""
        sql = "select * from settings where persona_id = :persona order by guild_id, key"
        return [_stored(row) for row in self._db.read(sql, persona=persona_id)]

    def guilds(self, keys: Collection[str]) -> list[int]:
        """List the guilds in which any of some settings is set."""
        sql = """select distinct guild_id from settings
            where key in (select value from json_each(:keys))"""
        return self._db.column(int, sql, keys=json.dumps(list(keys)))

    def all(self) -> list[StoredSetting]:
        """List everything that is set, guild by guild."""
        sql = "select * from settings order by guild_id, channel_id, persona_id, key"
        return [_stored(row) for row in self._db.read(sql)]

    def change(self, scope: SettingScope, changes: Mapping[str, SettingValue | None]) -> None:
        """Set the values that `changes` name; None removes one. Others stay, so that two who change
        different ones at the same time both have their way.
        """
        with self._db.atomic():
            for key, value in changes.items():
                if value is None:
                    sql = """delete from settings where guild_id = :guild_id
                        and channel_id = :channel_id and persona_id = :persona_id and key = :key"""
                    self._db.write(sql, **vars(scope), key=key)
                else:
                    row = {**vars(scope), "key": key, "value": json.dumps(value)}
                    self._db.insert("settings", row, replace=True)

    def forget_channel(self, channel_id: int) -> None:
        """Remove the settings of a channel that is deleted."""
        self._db.write("delete from settings where channel_id = :channel", channel=channel_id)


def _value(row: Row) -> SettingValue:
    value: SettingValue = json.loads(row["value"])
    return value


def _stored(row: Row) -> StoredSetting:
    scope = SettingScope(row["guild_id"], row["channel_id"], row["persona_id"])
    return StoredSetting(scope, row["key"], _value(row))
