"""The bot's commands: registered by it, found for members by name."""

from dataclasses import dataclass

from bot.sandbox import permissions, registration, shapes
from bot.sandbox.errors import Json, SandboxRefusal
from bot.sandbox.feed import Feed
from bot.sandbox.guild import Guild
from bot.sandbox.permissions import Permission
from bot.sandbox.registration import CHAT_INPUT, ON_MESSAGE, ON_USER
from bot.sandbox.shapes import DIRECT

SUBCOMMAND, GROUP = 1, 2
IN_GUILD, IN_DIRECT = 0, 1
GLOBAL = "global"


@dataclass(frozen=True)
class Invoked:
    """A command picked by its full name: the command, the (sub)command whose options count, and the way to it."""

    command: Json
    leaf: Json
    path: tuple[Json, ...]


class Commands:
    """Global and guild commands; of two with the same name the guild's is shown."""

    def __init__(self, guild: Guild, feed: Feed) -> None:
        self._guild, self._store, self._feed = guild, guild.store, feed

    def registered(self, scope: str) -> list[Json]:
        """What is registered for a guild id or GLOBAL."""
        return [command for command in self._store.all("command") if command.get("guild_id", GLOBAL) == scope]

    def replace(self, scope: str, body: list[Json]) -> list[Json]:
        """Register these instead of all of the scope; a name that stays keeps its id."""
        registration.check(body)
        known = {(old["type"], old["name"]): old for old in self.registered(scope)}
        new = [self._register(scope, command, known) for command in body]
        for old in known.values():
            self._store.delete("command", old["id"])
        for command in new:
            self._store.put("command", command)
        self._feed.publish("commands", {"scope": scope, "commands": new})
        return new

    def _register(self, scope: str, body: Json, known: dict[tuple[int, str], Json]) -> Json:
        kind, needed = body.get("type", CHAT_INPUT), body.get("default_member_permissions")
        old = known.get((kind, body["name"]))
        kept = {"contexts": None, "integration_types": [0], "nsfw": False} | shapes.without_nulls(body)
        return {
            **kept,
            "id": old["id"] if old else self._store.new_id(),
            "application_id": self._guild.bot_id,
            "version": self._store.new_id(),
            "type": kind,
            "description": body.get("description") or "",
            "default_member_permissions": None if needed is None else str(needed),
            **({} if scope == GLOBAL else {"guild_id": scope}),
        }

    def for_member(self, user_id: str) -> list[Json]:
        """The commands that the member's client offers, of every type and for every place."""
        if not self._guild.may(user_id, Permission.USE_APPLICATION_COMMANDS):
            return []
        # A guild's commands exist in it alone, which their contexts do not say.
        own = [command | {"contexts": [IN_GUILD]} for command in self.registered(self._guild.id)]
        shown = {(command["type"], command["name"]): command for command in (*self.registered(GLOBAL), *own)}
        return [command for _, command in sorted(shown.items()) if self._permitted(command, user_id)]

    def _permitted(self, command: Json, user_id: str) -> bool:
        needed = command["default_member_permissions"]
        held = self._guild.permissions_of(user_id)
        # "0" means administrators only, not everybody.
        return needed is None or held == permissions.ALL or (needed != "0" and permissions.allows(held, int(needed)))

    def invoked(self, user_id: str, name: str, channel: Json) -> Invoked:
        """The command by its full name, such as "finetune start". Raises SandboxRefusal."""
        first, *rest = name.strip().removeprefix("/").split() or [""]
        return _descend(self._offered(user_id, first, channel, (CHAT_INPUT,)), rest)

    def in_menu(self, user_id: str, name: str, channel: Json) -> Json:
        """The user or message command by its name or id. Raises SandboxRefusal."""
        return self._offered(user_id, name, channel, (ON_USER, ON_MESSAGE))

    def _offered(self, user_id: str, name: str, channel: Json, kinds: tuple[int, ...]) -> Json:
        def called(command: Json) -> bool:
            return command["type"] in kinds and name in (command["name"], command["id"])

        shown = f"/{name}" if CHAT_INPUT in kinds else name
        command = next(filter(called, self.for_member(user_id)), None)
        if command is None:
            existing = any(map(called, self._store.all("command")))
            raise SandboxRefusal(
                f"You do not have permission to use {shown}." if existing else f"There is no command called {shown}."
            )
        if command.get("nsfw") and not self._guild.is_nsfw(channel):
            raise SandboxRefusal(f"{shown} can be used in age-restricted channels only.")
        place = IN_DIRECT if channel["type"] == DIRECT else IN_GUILD
        if command.get("contexts") is not None and place not in command["contexts"]:
            raise SandboxRefusal(f"{shown} cannot be used here.")
        return command


def _descend(command: Json, names: list[str]) -> Invoked:
    leaf, path = command, []
    for name in names:
        inner = (o for o in leaf.get("options", ()) if o["type"] in (SUBCOMMAND, GROUP) and o["name"] == name)
        found = next(inner, None)
        if found is None:
            raise SandboxRefusal(f"/{command['name']} has no subcommand called {name}.")
        leaf = found
        path.append(found)
    if any(option["type"] in (SUBCOMMAND, GROUP) for option in leaf.get("options", ())):
        raise SandboxRefusal(f"/{' '.join([command['name'], *names])} is a group: choose one of its subcommands.")
    return Invoked(command, leaf, tuple(path))
