"""Application commands: registration, and lookup for members."""

from dataclasses import dataclass

from sandbox import guild_seed, outside_places, payloads, validation
from sandbox.channel_types import DIRECT_CHANNEL
from sandbox.guild import Guild
from sandbox.guild_seed import Permission
from sandbox.sandbox_errors import Json, SandboxRefusal
from sandbox.traffic_log import EventFeed
from sandbox.validation import CHAT_INPUT, MESSAGE_COMMAND, USER_COMMAND

SUBCOMMAND = 1
GROUP = 2
GUILD_CONTEXT = 0
DIRECT_CONTEXT = 1
USER_INSTALL = 1
"""Type of an installation: by a person, for themself."""
GLOBAL_SCOPE = "global"


@dataclass(frozen=True)
class CommandInvocation:
    """An invoked command: the command, the (sub)command with the options, and the path to it."""

    command: Json
    leaf: Json
    path: tuple[Json, ...]


class CommandRegistry:
    """Global and guild commands; a guild command hides a global one of the same name."""

    def __init__(self, guild: Guild, feed: EventFeed) -> None:
        self._guild = guild
        self._store = guild.store
        self._feed = feed

    def registered(self, scope: str) -> list[Json]:
        commands = self._store.all("command")
        return [each for each in commands if each.get("guild_id", GLOBAL_SCOPE) == scope]

    def replace(self, scope: str, body: list[Json]) -> list[Json]:
        """Replace all commands of the scope; a name that stays keeps its id."""
        validation.check_commands(body)
        existing = {(old["type"], old["name"]): old for old in self.registered(scope)}
        new = [self._register(scope, command, existing) for command in body]
        for old in existing.values():
            self._store.delete("command", old["id"])
        for command in new:
            self._store.put("command", command)
        self._feed.publish("commands", {"scope": scope, "commands": new})
        return new

    def _register(self, scope: str, body: Json, existing: dict[tuple[int, str], Json]) -> Json:
        kind = body.get("type", CHAT_INPUT)
        needed = body.get("default_member_permissions")
        old = existing.get((kind, body["name"]))
        registered = {
            "contexts": None,
            # By default all that the portal's page Installation offers.
            "integration_types": [0, USER_INSTALL] if self._guild.seed.user_install else [0],
            "nsfw": False,
            **payloads.without_nulls(body),
            "id": old["id"] if old else self._store.new_id(),
            "application_id": self._guild.bot_id,
            "version": self._store.new_id(),
            "type": kind,
            "description": body.get("description") or "",
            "default_member_permissions": None if needed is None else str(needed),
        }
        if scope != GLOBAL_SCOPE:
            registered["guild_id"] = scope
        return registered

    def for_member(self, user_id: str) -> list[Json]:
        """List the commands that a member's client offers, of every type and in every context."""
        if not self._guild.may(user_id, Permission.USE_APPLICATION_COMMANDS):
            return []
        shown = {}
        for command in self.registered(GLOBAL_SCOPE):
            shown[command["type"], command["name"]] = command
        for command in self.registered(self._guild.id):
            # A guild's commands exist in that guild only, although their contexts do not say so.
            own = command | {"contexts": [GUILD_CONTEXT]}
            shown[command["type"], command["name"]] = own
        offered = [shown[key] for key in sorted(shown)]
        return [command for command in offered if self._permitted(command, user_id)]

    def _permitted(self, command: Json, user_id: str) -> bool:
        needed = command["default_member_permissions"]
        granted = self._guild.permissions_of(user_id)
        if needed is None or granted == guild_seed.ALL_PERMISSIONS:
            return True
        if needed == "0":  # administrators only, not everybody
            return False
        return guild_seed.has_permissions(granted, int(needed))

    def invoked(self, user_id: str, name: str, channel: Json) -> CommandInvocation:
        """Resolve a command by its full name, such as "finetune start". Raises SandboxRefusal."""
        first, *rest = name.strip().removeprefix("/").split() or [""]
        command = self._offered(user_id, first, channel, (CHAT_INPUT,))
        return _resolve_subcommand(command, rest)

    def menu_command(self, user_id: str, name: str, channel: Json) -> Json:
        """Resolve a user or message command by name or id. Raises SandboxRefusal."""
        return self._offered(user_id, name, channel, (USER_COMMAND, MESSAGE_COMMAND))

    def _offered(self, user_id: str, name: str, channel: Json, kinds: tuple[int, ...]) -> Json:
        def matches(command: Json) -> bool:
            return command["type"] in kinds and name in (command["name"], command["id"])

        shown = f"/{name}" if CHAT_INPUT in kinds else name
        command = next(filter(matches, self.for_member(user_id)), None)
        if command is None:
            if any(map(matches, self._store.all("command"))):
                raise SandboxRefusal(f"You do not have permission to use {shown}.")
            raise SandboxRefusal(f"There is no command called {shown}.")
        if command.get("nsfw") and not self._guild.is_nsfw(channel):
            raise SandboxRefusal(f"{shown} can be used in age-restricted channels only.")
        context = DIRECT_CONTEXT if channel["type"] == DIRECT_CHANNEL else GUILD_CONTEXT
        if self._guild.outside_place(channel["id"]):
            context = outside_places.context_of(channel)
            is_installed = self._guild.seed.user_install
            if not is_installed or USER_INSTALL not in command["integration_types"]:
                raise SandboxRefusal(f"There is no command called {shown}.")
        if command.get("contexts") is not None and context not in command["contexts"]:
            raise SandboxRefusal(f"{shown} cannot be used here.")
        return command


def _resolve_subcommand(command: Json, names: list[str]) -> CommandInvocation:
    leaf = command
    path = []
    for name in names:
        for option in leaf.get("options", ()):
            if option["type"] in (SUBCOMMAND, GROUP) and option["name"] == name:
                leaf = option
                path.append(option)
                break
        else:
            raise SandboxRefusal(f"/{command['name']} has no subcommand called {name}.")
    if any(option["type"] in (SUBCOMMAND, GROUP) for option in leaf.get("options", ())):
        raise SandboxRefusal(
            f"/{' '.join([command['name'], *names])} is a group: choose one of its subcommands."
        )
    return CommandInvocation(command, leaf, tuple(path))
