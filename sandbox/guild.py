"""A guild's state: roles, members, the bot, channels, and permission checks."""

import base64
import mimetypes
import secrets
from collections.abc import Sequence
from typing import cast

from sandbox import guild_seed, payloads
from sandbox.channel_types import DIRECT_CHANNEL, GUILD_TYPES, THREAD_CHANNEL, VOICE_TYPES
from sandbox.guild_seed import GuildSeed, Permission, RoleSeed
from sandbox.object_store import ObjectStore, StoredFile, time_of
from sandbox.outside_places import OUTSIDE
from sandbox.sandbox_errors import ApiError, Json, SandboxRefusal

MEMBERS_ROLE_NAME = "Everyone here"


def numbered_kind(kind: str, number: int) -> str:
    """Return the kind under which a guild's roles or members are stored; the first guild's have no
    number.
    """
    return f"{kind}/{number}" if number else kind


def open_guild_facts(store: ObjectStore, count: int) -> list[Json]:
    """Return what is stored of each of `count` guilds, creating missing ones; the first one's names
    the bot, too.
    """
    facts = store.all("guild")
    is_new = not facts
    while len(facts) < count:
        facts.append({"id": store.new_guild_id()})
    if is_new:
        facts[0] |= _new_bot(store)
    return [store.put("guild", guild_facts) for guild_facts in facts[:count]]


def _new_bot(store: ObjectStore) -> Json:
    bot_id = store.new_id()
    encoded_id = base64.urlsafe_b64encode(bot_id.encode()).decode().rstrip("=")
    # Discord's form (id, time, signature), so that checks of the form accept it.
    return {"bot_id": bot_id, "token": f"{encoded_id}.sandbox.{secrets.token_urlsafe(20)}"}


class Guild:
    """One guild. Names in the seed keep the ids they have in the state file; their details follow
    the seed.
    """

    def __init__(
        self, store: ObjectStore, seed: GuildSeed, all_facts: list[Json], number: int
    ) -> None:
        """Open guild `number` of those in `all_facts` (`open_guild_facts`); equal names share an
        account.
        """
        self.store = store
        self.seed = seed
        self._facts = all_facts[number]
        self._member_kind = numbered_kind("member", number)
        self._role_kind = numbered_kind("role", number)
        self.id: str = self._facts["id"]
        self.bot_id: str = all_facts[0]["bot_id"]
        self.token: str = all_facts[0]["token"]
        self.created_at = payloads.format_timestamp(time_of(self.id))
        self.preferred_locale = "en-US"
        self._overwrites = self._create_roles()
        self._create_members(len(all_facts))
        self._create_channels()

    def _create_roles(self) -> list[Json]:
        """Create the roles; returns the permissions that every channel denies to some of them."""
        # @everyone has no permissions and members get a role of their own: @everyone applies to the
        # bot, too, and what the bot lacks must really be lacking.
        everyone = payloads.role(self.id, "@everyone", permissions=0, colour=0, position=0)
        self.store.put(self._role_kind, everyone)
        people = RoleSeed(MEMBERS_ROLE_NAME, guild_seed.MEMBER_PERMISSIONS)
        bot = RoleSeed(self.seed.bot_name, self.seed.bot_permissions)
        for position, role in enumerate((people, bot, *self.seed.roles), start=1):
            shape = payloads.role(
                self._role_id(role.name),
                role.name,
                permissions=role.permissions,
                colour=role.colour,
                position=position,
            )
            if role is bot:
                shape |= {"managed": True, "tags": {"bot_id": self.bot_id}}
            self.store.put(self._role_kind, shape)
        overwrites = []
        for role in self.seed.roles:
            if role.denied:
                role_id = self._role_id(role.name)
                overwrites.append(
                    {"id": role_id, "type": 0, "allow": "0", "deny": str(role.denied)}
                )
        return overwrites

    def _role_id(self, name: str) -> str:
        for role in self.roles():
            if role["name"] == name:
                return cast(str, role["id"])
        return self.store.new_id()

    def _create_members(self, guilds: int) -> None:
        accounts = {}
        for number in range(guilds):
            for member in self.store.all(numbered_kind("member", number)):
                accounts[member["user"]["global_name"]] = member["user"]["id"]
        existing = {member["user"]["global_name"]: member for member in self.people()}
        for person in self.seed.members:
            old = existing.get(person.name)
            user = payloads.user(accounts.get(person.name) or self.store.new_id(), person.name)
            roles = [self._role_id(name) for name in (MEMBERS_ROLE_NAME, *person.roles)]
            self._put_member(user, roles, old)
            if person.owner or "owner_id" not in self._facts:
                self._facts = self.store.put("guild", self._facts | {"owner_id": user["id"]})
        bot = payloads.user(self.bot_id, self.seed.bot_name, bot=True, avatar=self._bot_avatar())
        self._put_member(bot, [self._role_id(self.seed.bot_name)], self.find_member(self.bot_id))

    def _put_member(self, user: Json, roles: list[str], old: Json | None) -> None:
        joined_at = old["joined_at"] if old else payloads.format_timestamp(time_of(user["id"]))
        member = payloads.member(user, roles, joined_at)
        if old:
            member |= {"nick": old["nick"], "avatar": old["avatar"]}
        self.store.put(self._member_kind, member, user["id"])

    def _bot_avatar(self) -> str | None:
        if self.seed.bot_avatar is None:
            return None
        kind = mimetypes.guess_type(self.seed.bot_avatar)[0] or "image/png"
        return self.store.put_avatar(StoredFile("avatar", kind, self.seed.bot_avatar.read_bytes()))

    def _create_channels(self) -> None:
        existing = {channel["name"]: channel["id"] for channel in self.channels()}
        for position, seed in enumerate(self.seed.channels):
            channel = payloads.channel(
                existing.get(seed.name) or self.store.new_id(),
                self.id,
                position,
                seed,
                overwrites=self._overwrites,
            )
            self.store.put("channel", channel)

    def roles(self) -> list[Json]:
        return sorted(self.store.all(self._role_kind), key=lambda role: cast(int, role["position"]))

    def find_role(self, role_id: object) -> Json | None:
        return self.store.get(self._role_kind, role_id)

    def _of_type(self, *kinds: int) -> list[Json]:
        channels = []
        for channel in self.store.all("channel"):
            if channel["type"] in kinds and self._has(channel):
                channels.append(self._up_to_date(channel))
        return channels

    def _has(self, channel: Json) -> bool:
        return bool(channel.get("guild_id", self.id) == self.id)

    def _up_to_date(self, channel: Json) -> Json:
        return channel | {"last_message_id": self.store.last("message", channel["id"])}

    def channels(self) -> list[Json]:
        """List the guild's channels of all types; threads and posts are apart."""
        return sorted(
            self._of_type(*GUILD_TYPES), key=lambda channel: cast(int, channel["position"])
        )

    def threads(self) -> list[Json]:
        return self._of_type(THREAD_CHANNEL)

    def direct(self, user_id: str) -> Json | None:
        """Return the bot's direct messages with someone, if there are any."""
        for channel in self._of_type(DIRECT_CHANNEL):
            if channel["recipients"][0]["id"] == user_id:
                return channel
        return None

    def channel(self, channel_id: object) -> Json:
        """Return the channel, thread or direct messages, or raise 10003 (also for another
        guild's), and 50001 for a place where the bot is not.
        """
        if self.outside_place(channel_id):
            raise ApiError(50001)
        channel = self.store.get("channel", channel_id)
        if channel is None or not self._has(channel):
            raise ApiError(10003)
        return self._up_to_date(channel)

    def outside_place(self, channel_id: object) -> Json | None:
        """Return a place where the bot is not."""
        return self.store.get(OUTSIDE, channel_id)

    def location(self, channel_id: object) -> Json:
        """Return a channel, or a place where the bot is not. Raises ApiError 10003."""
        return self.outside_place(channel_id) or self.channel(channel_id)

    def visible_channels(self, user_id: str) -> list[Json]:
        """List the channels that the member sees, as their client shows them."""
        visible = []
        for channel in (*self.channels(), *self.threads(), self.direct(user_id)):
            if channel and self.may(user_id, Permission.VIEW_CHANNEL, channel):
                visible.append(self.client_view(channel))
        return visible

    def is_shown(self, channel_id: object, user_id: str) -> bool:
        channel = self.store.get("channel", channel_id)
        return (
            channel is not None
            and self._has(channel)
            and self.may(user_id, Permission.VIEW_CHANNEL, channel)
        )

    def client_view(self, channel: Json) -> Json:
        """Render a channel for a member's client: with its parent's properties, or the other side's
        user.
        """
        view = {"topic": None, **channel, "nsfw": self.is_nsfw(channel)}
        if channel["type"] == DIRECT_CHANNEL:
            view["recipients"] = [self.bot]
        return view

    def is_nsfw(self, channel: Json) -> bool:
        """Return whether a channel is age-restricted; a thread inherits it."""
        if channel["type"] == THREAD_CHANNEL:
            channel = self.channel(channel["parent_id"])
        return bool(channel.get("nsfw"))

    def set_age_restricted(self, name: str, restricted: bool) -> Json:
        """Set the mark of the channel of this name until the next start, which follows the
        seed. Raises SandboxRefusal.
        """
        for channel in self.channels():
            if channel["name"] == name:
                self.store.put("channel", channel | {"nsfw": restricted})
                return self.channel(channel["id"])
        raise SandboxRefusal(f"There is no channel called {name}.")

    def members(self) -> list[Json]:
        return self.store.all(self._member_kind)

    def add_member(self, name: str, *, bot: bool = False) -> Json:
        """Store a new member with the role of all members, and return them."""
        user = payloads.user(self.store.new_id(), name, bot=bot)
        self._put_member(user, [self._role_id(MEMBERS_ROLE_NAME)], None)
        member = self.find_member(user["id"])
        assert member is not None
        return member

    def remove_member(self, user_id: str) -> Json:
        """Delete a member until the next start, which brings those of the seed back; returns the
        user. Raises SandboxRefusal.
        """
        member = self.find_member(user_id)
        if member is None or user_id == self.bot_id:
            raise SandboxRefusal(f"There is no member {user_id} who could leave.")
        self.store.delete(self._member_kind, user_id)
        return cast(Json, member["user"])

    def set_member_roles(self, user_id: str, role_names: Sequence[str]) -> Json:
        """Store a member's roles beside that of all members; returns the member. Raises
        SandboxRefusal.
        """
        member = self.find_member(user_id)
        known = {role["name"]: role["id"] for role in self.roles()}
        if member is None or not set(role_names) <= known.keys():
            raise SandboxRefusal("There is no such member, or no such role.")
        roles = [known[name] for name in (MEMBERS_ROLE_NAME, *role_names)]
        return self.store.put(self._member_kind, member | {"roles": roles}, user_id)

    def change_bot(self, **fields: str | None) -> Json:
        """Store the bot's nickname or picture in this guild; returns the member."""
        return self.store.put(self._member_kind, self.member(self.bot_id) | fields, self.bot_id)

    def people(self) -> list[Json]:
        return [member for member in self.members() if not member["user"]["bot"]]

    def member(self, user_id: object) -> Json:
        """Return the member, or raise 10007."""
        member = self.find_member(user_id)
        if member is None:
            raise ApiError(10007)
        return member

    def find_member(self, user_id: object) -> Json | None:
        return self.store.get(self._member_kind, user_id)

    @property
    def bot(self) -> Json:
        return cast(Json, self.member(self.bot_id)["user"])

    @property
    def owner(self) -> Json:
        return cast(Json, self.member(self._facts["owner_id"])["user"])

    def shape(self) -> Json:
        """Render the guild for the HTTP API."""
        return payloads.guild(
            self.id,
            self.seed.name,
            self._facts["owner_id"],
            self.roles(),
            preferred_locale=self.preferred_locale,
        )

    def permissions_of(self, user_id: str, channel: Json | None = None) -> int:
        """Return a member's permissions; the owner and administrators have all, except in direct
        messages.
        """
        if channel is not None and channel["type"] == DIRECT_CHANNEL:
            return guild_seed.DIRECT_PERMISSIONS if self.is_between(channel, user_id) else 0
        if user_id == self._facts["owner_id"]:
            return guild_seed.ALL_PERMISSIONS
        held = {self.id, *self.member(user_id)["roles"]}
        granted = [int(role["permissions"]) for role in self.roles() if role["id"] in held]
        bits = guild_seed.combine_permissions(granted)
        if bits == guild_seed.ALL_PERMISSIONS:  # an administrator: overwrites do not apply
            return bits
        overwrites = [each for each in self._overwrites if each["id"] in held]
        denied = [int(overwrite["deny"]) for overwrite in overwrites]
        bits &= ~guild_seed.combine_permissions(denied)
        # Who may not join a voice channel has no access to its messages, either.
        is_voice = channel is not None and channel["type"] in VOICE_TYPES
        if is_voice and not bits & Permission.CONNECT:
            bits &= ~guild_seed.TEXT_PERMISSIONS
        return bits

    def is_between(self, channel: Json, user_id: str) -> bool:
        """Return whether these direct messages are the member's or the bot's."""
        return user_id in (self.bot_id, channel["recipients"][0]["id"])

    def may(self, user_id: str, needed: Permission, channel: Json | None = None) -> bool:
        """Return whether the member has all of `needed`, in a channel if one is given."""
        # Threads have their own permission to send messages.
        in_thread = channel is not None and channel["type"] == THREAD_CHANNEL
        if in_thread and needed == Permission.SEND_MESSAGES:
            needed = Permission.SEND_MESSAGES_IN_THREADS
        return guild_seed.has_permissions(self.permissions_of(user_id, channel), needed)

    def require(self, needed: Permission, channel: Json | None = None) -> None:
        """Refuse the bot: 50001 where it cannot see the channel, 50003 for what direct messages
        lack, else 50013.
        """
        in_direct = channel is not None and channel["type"] == DIRECT_CHANNEL
        if in_direct and not needed & guild_seed.DIRECT_PERMISSIONS:
            raise ApiError(50003)
        if not self.may(self.bot_id, Permission.VIEW_CHANNEL, channel):
            raise ApiError(50001)
        if not self.may(self.bot_id, needed, channel):
            raise ApiError(50013)

    @property
    def bot_role(self) -> Json:
        return next(
            role for role in self.roles() if role.get("tags", {}).get("bot_id") == self.bot_id
        )

    def set_bot_permissions(self, bits: int) -> Json:
        return self.store.put(self._role_kind, self.bot_role | {"permissions": str(bits)})
