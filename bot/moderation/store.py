"""Blocked members, and what roles may do, in the database."""

from dataclasses import dataclass

from bot.guilds.store.mutes import ALL_PERSONAS
from bot.platform.db.database import DatabaseConnection, Table
from bot.platform.db.erased_ids import ErasedIds


@dataclass(frozen=True)
class Block:
    """A member whom a persona of a guild, or all of them (an empty id), do not answer. `user_id` is
    below 0 once the member is erased; `at` in seconds since 1970.
    """

    guild_id: int
    user_id: int
    persona_id: str
    blocked_by: int
    at: float


class Blocks(Table):
    """The blocked members of all guilds. A block outlives the erasure of its member, who is then
    known by a keyed id (`ErasedIds`).
    """

    def __init__(self, connection: DatabaseConnection, erased_ids: ErasedIds) -> None:
        super().__init__(connection)
        self._erased_ids = erased_ids

    def add(self, block: Block) -> None:
        """Add a block; idempotent. It takes the place of one from before its member was erased."""
        erased = self._erased_ids.of(block.user_id)
        with self._db.atomic():
            self._remove(block.guild_id, erased, block.persona_id)
            self._db.insert("blocks", vars(block), ignore=True)

    def remove(self, guild_id: int, user_id: int, persona_id: str | None) -> bool:
        """Remove exactly this block, or (None) all blocks of the member, whose id may be keyed. False
        when there is none.
        """
        with self._db.atomic():
            ids = (user_id, self._erased_ids.of(user_id))
            return any([self._remove(guild_id, each, persona_id) for each in ids])

    def _remove(self, guild_id: int, user_id: int, persona_id: str | None) -> bool:
        sql = """delete from blocks where guild_id = :guild and user_id = :user
            and persona_id = coalesce(:persona, persona_id)"""
        return self._db.write(sql, guild=guild_id, user=user_id, persona=persona_id) > 0

    def applies(self, guild_id: int, user_id: int, persona_id: str) -> bool:
        """Report whether a persona does not answer a member."""
        blocks = self.of_member(guild_id, user_id)
        return any(block.persona_id in (ALL_PERSONAS, persona_id) for block in blocks)

    def of_member(self, guild_id: int, user_id: int) -> list[Block]:
        """List the blocks of a member of a guild, whose id may be keyed, oldest first."""
        sql = """select * from blocks where guild_id = :guild and user_id in (:user, :erased)
            order by at"""
        erased = self._erased_ids.of(user_id)
        return self._db.all(Block, sql, guild=guild_id, user=user_id, erased=erased)

    def of_guild(self, guild_id: int) -> list[Block]:
        """List the blocks of a guild, oldest first."""
        sql = "select * from blocks where guild_id = :guild order by at"
        return self._db.all(Block, sql, guild=guild_id)

    def counts(self) -> dict[int, int]:
        """Count the blocks of each guild that has any."""
        rows = self._db.read("select guild_id, count(*) as count from blocks group by guild_id")
        return {row["guild_id"]: row["count"] for row in rows}


class ActionRoles(Table):
    """The roles of each guild whose holders may do something (`bot.moderation.roles.Action`). One
    that is deleted on Discord stays, so that nothing is open to everybody by that.
    """

    def get(self, guild_id: int, action: str) -> set[int]:
        """Return the roles of an action; none where the default holds."""
        sql = "select role_id from action_roles where guild_id = :guild and action = :action"
        return set(self._db.column(int, sql, guild=guild_id, action=action))

    def guilds(self) -> list[int]:
        """List the guilds that name roles."""
        return self._db.column(int, "select distinct guild_id from action_roles")

    def add(self, guild_id: int, action: str, role_id: int) -> None:
        """Add a role; idempotent."""
        row = {"guild_id": guild_id, "action": action, "role_id": role_id}
        self._db.insert("action_roles", row, ignore=True)

    def clear(self, guild_id: int, action: str) -> None:
        """Remove the roles of an action, so that the default holds."""
        sql = "delete from action_roles where guild_id = :guild and action = :action"
        self._db.write(sql, guild=guild_id, action=action)

    def remove(self, guild_id: int, action: str, role_id: int) -> bool:
        """Remove a role. False where it is not there."""
        sql = """delete from action_roles where guild_id = :guild and action = :action
            and role_id = :role"""
        return self._db.write(sql, guild=guild_id, action=action, role=role_id) > 0
