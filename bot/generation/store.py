"""Generation settings of personas and channels in the database."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from bot.platform.db.database import Row, Table

ALL_PERSONAS = ""
NO_CHANNEL = 0
SettingValue = int | float


@dataclass(frozen=True)
class GenerationScope:
    """A channel of a guild, whoever speaks there, or else a persona in a guild; guild 0 stands for
    all guilds.
    """

    guild_id: int
    channel_id: int = NO_CHANNEL
    persona_id: str = ALL_PERSONAS


@dataclass(frozen=True)
class GenerationSettings:
    """Settings of replies; None is left to the next scope. Prompt and reply have at most
    `context_tokens`.
    """

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    context_tokens: int | None = None


FIELDS = tuple(field.name for field in fields(GenerationSettings))


@dataclass(frozen=True)
class ScopedSettings:
    """The settings of one scope."""

    scope: GenerationScope
    settings: GenerationSettings


class StoredGeneration(Table):
    """The settings of all scopes that have any."""

    def get(self, scope: GenerationScope) -> GenerationSettings:
        """Return the settings of a scope, all None where it has none."""
        sql = """select * from generation_settings where guild_id = :guild_id
            and channel_id = :channel_id and persona_id = :persona_id"""
        row = self._db.first(sql, **vars(scope))
        return _scoped(row).settings if row else GenerationSettings()

    def applying(
        self, guild_id: int, channel_id: int, parent_id: int | None, persona_id: str
    ) -> list[ScopedSettings]:
        """List the settings that apply to a persona in a channel, the most specific first: those of
        the thread, of its channel, of the persona in the guild, and of the persona in all guilds.
        """
        sql = """select * from generation_settings where guild_id = :guild
            and channel_id in (:channel, :parent) and channel_id <> 0
            or guild_id in (0, :guild) and channel_id = 0 and persona_id = :persona
            order by channel_id = 0, channel_id <> :channel, guild_id = 0"""
        rows = self._db.read(
            sql, guild=guild_id, channel=channel_id, parent=parent_id, persona=persona_id
        )
        return [_scoped(row) for row in rows]

    def of_persona(self, persona_id: str) -> list[ScopedSettings]:
        """List the settings of a persona, those for all guilds first."""
        sql = "select * from generation_settings where persona_id = :persona order by guild_id"
        return [_scoped(row) for row in self._db.read(sql, persona=persona_id)]

    def all(self) -> list[ScopedSettings]:
        """List the settings of all scopes, guild by guild, personas first."""
        sql = "select * from generation_settings order by guild_id, channel_id, persona_id"
        return [_scoped(row) for row in self._db.read(sql)]

    def change(
        self, scope: GenerationScope, changes: Mapping[str, SettingValue | None]
    ) -> GenerationSettings:
        """Set the fields that `changes` name (None removes one), and return all of the scope's."""
        # Only the named columns are written: two moderators who change different fields at the same
        # time both have their way.
        names = [name for name in FIELDS if name in changes]
        columns = "".join(f", {name}" for name in names)
        values = "".join(f", :{name}" for name in names)
        updates = ", ".join(f"{name} = excluded.{name}" for name in names)
        key = "guild_id = :guild_id and channel_id = :channel_id and persona_id = :persona_id"
        empty = " and ".join(f"{name} is null" for name in FIELDS)
        with self._db.atomic():
            self._db.write(
                f"""insert into generation_settings (guild_id, channel_id, persona_id{columns})
                values (:guild_id, :channel_id, :persona_id{values})
                on conflict (guild_id, channel_id, persona_id) do update set {updates}""",
                **vars(scope),
                **{name: changes[name] for name in names},
            )
            self._db.write(
                f"delete from generation_settings where {key} and {empty}", **vars(scope)
            )
            return self.get(scope)

    def reset(self, scope: GenerationScope) -> bool:
        """Remove the settings of a scope. False when it had none."""
        sql = """delete from generation_settings where guild_id = :guild_id
            and channel_id = :channel_id and persona_id = :persona_id"""
        return self._db.write(sql, **vars(scope)) > 0

    def forget_channel(self, channel_id: int) -> None:
        """Remove the settings of a channel that is deleted."""
        sql = "delete from generation_settings where channel_id = :channel"
        self._db.write(sql, channel=channel_id)


def _scoped(row: Row) -> ScopedSettings:
    scope = GenerationScope(row["guild_id"], row["channel_id"], row["persona_id"])
    return ScopedSettings(scope, GenerationSettings(**{name: row[name] for name in FIELDS}))
