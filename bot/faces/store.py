"""Which persona's face the bot has in each server, in the database."""

from dataclasses import dataclass

from bot.platform.db.database import Table


@dataclass(frozen=True)
class BotFace:
    """The persona whose face the bot is to have in a guild; None while it is taken off.

    `shown` stands for the name and picture that Discord has confirmed (`Face.digest`); it is empty
    before that.
    """

    guild_id: int
    persona_id: str | None
    shown: str


class BotFaces(Table):
    """The faces of the bot. A guild without a row has never had one, or has none any more."""

    def get(self, guild_id: int) -> BotFace | None:
        """Return the face that the bot is to have in a guild."""
        sql = "select * from bot_faces where guild_id = :guild"
        return self._db.one(BotFace, sql, guild=guild_id)

    def all(self) -> list[BotFace]:
        """List the faces in all guilds."""
        return self._db.all(BotFace, "select * from bot_faces order by guild_id")

    def guilds_of(self, persona_id: str) -> list[int]:
        """List the guilds in which the bot is to have a persona's face."""
        sql = "select guild_id from bot_faces where persona_id = :persona order by guild_id"
        return self._db.column(int, sql, persona=persona_id)

    def choose(self, guild_id: int, persona_id: str | None) -> None:
        """Store whose face the bot is to have (None: nobody's), before Discord is asked."""
        row = {"guild_id": guild_id, "persona_id": persona_id, "shown": ""}
        self._db.insert("bot_faces", row, replace=True)

    def record_shown(self, guild_id: int, persona_id: str | None, shown: str) -> None:
        """Store that Discord shows a face, unless another one was chosen meanwhile. One that is
        taken off is forgotten.
        """
        where = "where guild_id = :guild and persona_id is :persona"
        values = {"guild": guild_id, "persona": persona_id}
        if persona_id is None:
            self._db.write(f"delete from bot_faces {where}", **values)
        else:
            self._db.write(f"update bot_faces set shown = :shown {where}", shown=shown, **values)
