"""Who and what is in the guild: roles, people, the bot, channels, and who may do what."""

import base64
import mimetypes
import secrets
from typing import cast

from bot.sandbox import permissions, shapes
from bot.sandbox.errors import ApiError, Json
from bot.sandbox.permissions import Permission
from bot.sandbox.seed import GuildSeed, RoleSeed
from bot.sandbox.store import Store, StoredFile

PEOPLE = "Everyone here"


class Guild:
    """The one guild. Names from the seed keep the ids they have in the state file; their details follow the seed."""

    def __init__(self, store: Store, seed: GuildSeed) -> None:
        self.store, self.seed = store, seed
        self._facts = self._open_facts()
        self.id: str = self._facts["id"]
        self.bot_id: str = self._facts["bot_id"]
        self.token: str = self._facts["token"]
        self._plant_roles()
        self._plant_members()
        self._plant_channels()

    def _open_facts(self) -> Json:
        found = self.store.all("guild")
        if found:
            return found[0]
        guild_id, bot_id = self.store.new_id(), self.store.new_id()
        # Discord's form (id, time, signature), so that what checks a token's form accepts it; the id is sandbox-wide.
        parts = base64.urlsafe_b64encode(bot_id.encode()).decode().rstrip("="), "sandbox", secrets.token_urlsafe(20)
        return self.store.put("guild", {"id": guild_id, "bot_id": bot_id, "token": ".".join(parts)})

    def _plant_roles(self) -> None:
        # @everyone may do nothing and people get a role of their own: it applies to the bot too, and what the bot lacks
        # must really be lacking.
        self.store.put("role", shapes.role(self.id, "@everyone", 0, 0, 0))
        people = RoleSeed(PEOPLE, permissions.MEMBER_PERMISSIONS)
        bot = RoleSeed(self.seed.bot_name, self.seed.bot_permissions)
        for position, role in enumerate((people, bot, *self.seed.roles), start=1):
            shape = shapes.role(self._role_id(role.name), role.name, role.permissions, role.colour, position)
            managed = {"managed": True, "tags": {"bot_id": self.bot_id}} if role is bot else {}
            self.store.put("role", shape | managed)

    def _role_id(self, name: str) -> str:
        return next((r["id"] for r in self.roles() if r["name"] == name), None) or self.store.new_id()

    def _plant_members(self) -> None:
        known = {m["user"]["global_name"]: m for m in self.people()}
        for person in self.seed.members:
            old = known.get(person.name)
            user = shapes.user(old["user"]["id"] if old else self.store.new_id(), person.name)
            roles = [self._role_id(name) for name in (PEOPLE, *person.roles)]
            self._put_member(user, roles, old)
            if person.owner or "owner_id" not in self._facts:
                self._facts = self.store.put("guild", self._facts | {"owner_id": user["id"]})
        bot = shapes.user(self.bot_id, self.seed.bot_name, bot=True, avatar=self._bot_avatar())
        self._put_member(bot, [self._role_id(self.seed.bot_name)], self.store.get("member", self.bot_id))

    def _put_member(self, user: Json, roles: list[str], old: Json | None) -> None:
        shape = shapes.member(user, roles, old["joined_at"] if old else shapes.now())
        self.store.put("member", shape, user["id"])

    def _bot_avatar(self) -> str | None:
        if self.seed.bot_avatar is None:
            return None
        kind = mimetypes.guess_type(self.seed.bot_avatar)[0] or "image/png"
        return self.store.put_picture(StoredFile("avatar", kind, self.seed.bot_avatar.read_bytes()))

    def _plant_channels(self) -> None:
        known = {c["name"]: c["id"] for c in self.channels()}
        for position, seed in enumerate(self.seed.channels):
            channel_id = known.get(seed.name) or self.store.new_id()
            self.store.put("channel", shapes.channel(channel_id, self.id, seed.name, seed.topic, position))

    def roles(self) -> list[Json]:
        """All roles, lowest first."""
        return sorted(self.store.all("role"), key=lambda role: cast(int, role["position"]))

    def channels(self) -> list[Json]:
        """All channels, from the top."""
        return sorted(self.store.all("channel"), key=lambda channel: cast(int, channel["position"]))

    def channel(self, channel_id: object) -> Json:
        """The channel, or 10003."""
        found = self.store.get("channel", channel_id)
        if found is None:
            raise ApiError(10003)
        return found

    def members(self) -> list[Json]:
        """Everyone, the bot too."""
        return self.store.all("member")

    def people(self) -> list[Json]:
        """Everyone but the bot."""
        return [m for m in self.members() if not m["user"]["bot"]]

    def member(self, user_id: object) -> Json:
        """The member, or 10007."""
        found = self.store.get("member", user_id)
        if found is None:
            raise ApiError(10007)
        return found

    @property
    def bot(self) -> Json:
        """The bot's user."""
        return cast(Json, self.member(self.bot_id)["user"])

    @property
    def owner(self) -> Json:
        """The owner's user."""
        return cast(Json, self.member(self._facts["owner_id"])["user"])

    def shape(self) -> Json:
        """The guild as the HTTP API gives it."""
        return shapes.guild(self.id, self.seed.name, self._facts["owner_id"], self.roles())

    def permissions_of(self, user_id: str) -> int:
        """What the member may do; the owner and administrators everything."""
        if user_id == self._facts["owner_id"]:
            return permissions.ALL
        held = {self.id, *self.member(user_id)["roles"]}
        return permissions.combine(int(role["permissions"]) for role in self.roles() if role["id"] in held)

    def may(self, user_id: str, needed: Permission) -> bool:
        """Whether the member holds all of `needed`."""
        return permissions.allows(self.permissions_of(user_id), needed)

    def require(self, needed: Permission) -> None:
        """Refuse the bot with Discord's code: 50001 where it cannot see the channel, 50013 for the rest."""
        if not self.may(self.bot_id, Permission.VIEW_CHANNEL):
            raise ApiError(50001)
        if not self.may(self.bot_id, needed):
            raise ApiError(50013)

    def set_bot_permissions(self, bits: int) -> Json:
        """Give the bot's role these permissions; returns the role."""
        role = next(r for r in self.roles() if r.get("tags", {}).get("bot_id") == self.bot_id)
        return self.store.put("role", role | {"permissions": str(bits)})
