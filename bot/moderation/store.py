"""Blocked members, limits of replies per member, age-restricted personas, and what roles may do, in
the database.
"""

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


@dataclass(frozen=True)
class ReplyLimits:
    """The limits of replies to one member of a guild; None is no limit."""

    per_day: int | None = None
    cooldown_s: int | None = None
    exempts_moderators: bool = True


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


class StoredLimits(Table):
    """The limits of the guilds that have any."""

    def get(self, guild_id: int) -> ReplyLimits:
        """Return the limits of a guild."""
        sql = """select per_day, cooldown_s, exempts_moderators from reply_limits
            where guild_id = :guild"""
        row = self._db.first(sql, guild=guild_id)
        if row is None:
            return ReplyLimits()
        return ReplyLimits(row["per_day"], row["cooldown_s"], bool(row["exempts_moderators"]))

    def set(self, guild_id: int, limits: ReplyLimits) -> None:
        """Set the limits of a guild."""
        row = {"guild_id": guild_id, **vars(limits)}
        row["exempts_moderators"] = int(limits.exempts_moderators)
        self._db.insert("reply_limits", row, replace=True)

    def guilds(self) -> list[int]:
        """List the guilds whose limits moderators have set."""
        return self._db.column(int, "select guild_id from reply_limits")


class AgeRestrictions(Table):
    """Personas that moderators have marked as age-restricted, or whose card's mark they have taken
    away, and the channels that were told that such a persona does not speak there.
    """

    def get(self, guild_id: int, persona_id: str) -> bool | None:
        """Return whether a persona is age-restricted in a guild; None where its card decides."""
        sql = """select is_restricted from age_restrictions
            where guild_id = :guild and persona_id = :persona"""
        chosen = self._db.value(int, sql, guild=guild_id, persona=persona_id)
        return None if chosen is None else bool(chosen)

    def of_guild(self, guild_id: int) -> dict[str, bool]:
        """Return for which personas a guild has decided whether they are age-restricted."""
        sql = "select persona_id, is_restricted from age_restrictions where guild_id = :guild"
        rows = self._db.read(sql, guild=guild_id)
        return {row["persona_id"]: bool(row["is_restricted"]) for row in rows}

    def guilds(self) -> list[int]:
        """List the guilds with a chosen mark."""
        return self._db.column(int, "select distinct guild_id from age_restrictions")

    def set(self, guild_id: int, persona_id: str, is_restricted: bool | None) -> None:
        """Decide whether a persona is age-restricted in a guild; None leaves it to its card."""
        if is_restricted is None:
            sql = "delete from age_restrictions where guild_id = :guild and persona_id = :persona"
            self._db.write(sql, guild=guild_id, persona=persona_id)
            return
        row = {"guild_id": guild_id, "persona_id": persona_id, "is_restricted": int(is_restricted)}
        self._db.insert("age_restrictions", row, replace=True)

    def note_told(self, guild_id: int, channel_id: int) -> bool:
        """Remember that a channel was told. False when it was told before."""
        sql = "select 1 from age_notices where channel_id = :channel"
        if self._db.first(sql, channel=channel_id):
            return False
        self._db.insert("age_notices", {"guild_id": guild_id, "channel_id": channel_id})
        return True

    def forget_all_told(self, guild_id: int) -> None:
        """Forget which channels of a guild were told: moderators have decided anew."""
        self._db.write("delete from age_notices where guild_id = :guild", guild=guild_id)

    def forget_told(self, channel_id: int) -> None:
        """Forget that a channel was told: the next time is a new one, or the channel is gone."""
        sql = "select 1 from age_notices where channel_id = :channel"
        if self._db.first(sql, channel=channel_id):
            self._db.write(
                "delete from age_notices where channel_id = :channel", channel=channel_id
            )


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
