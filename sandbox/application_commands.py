"""Application commands: registration, lookup for members, and validation of their options."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox import guild_seed, payloads, validation
from sandbox.guild import Guild
from sandbox.guild_seed import Permission
from sandbox.interactions import ATTACHMENT_LIMIT_BYTES
from sandbox.object_store import StoredFile
from sandbox.payloads import DIRECT_CHANNEL
from sandbox.sandbox_errors import Json, SandboxRefusal
from sandbox.traffic_log import EventFeed
from sandbox.validation import CHAT_INPUT, MESSAGE_COMMAND, USER_COMMAND

SUBCOMMAND = 1
GROUP = 2
GUILD_CONTEXT = 0
DIRECT_CONTEXT = 1
GLOBAL_SCOPE = "global"
STRING = 3
INTEGER = 4
BOOLEAN = 5
USER = 6
CHANNEL = 7
ROLE = 8
NUMBER = 10
ATTACHMENT = 11
STRING_SELECT = 3
SELECT_OPTION_TYPES = {STRING_SELECT: STRING, 5: USER, 6: ROLE, 8: CHANNEL}
"""Types of select menus, and the option types that take the same values."""
BOOLEAN_VALUES = {"true": True, "false": False}


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
            "integration_types": [0],
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
        # "0" means administrators only, not everybody.
        return (
            needed is None
            or granted == guild_seed.ALL_PERMISSIONS
            or (needed != "0" and guild_seed.has_permissions(granted, int(needed)))
        )

    def invoked(self, user_id: str, name: str, channel: Json) -> CommandInvocation:
        """Resolve a command by its full name, such as "finetune start". Raises SandboxRefusal."""
        first, *rest = name.strip().removeprefix("/").split() or [""]
        return _resolve_subcommand(self._offered(user_id, first, channel, (CHAT_INPUT,)), rest)

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


def fill_options(
    guild: Guild, invoked: CommandInvocation, values: Json, focused: str | None = None
) -> Json:
    """Build an interaction's data. Raises SandboxRefusal; with `focused` (autocomplete) leaves
    invalid options out.
    """
    options = {option["name"]: option for option in invoked.leaf.get("options", ())}
    if unknown := set(values) - set(options):
        raise SandboxRefusal(f"/{invoked.command['name']} has no option called {min(unknown)}.")
    entered = {name: value for name, value in values.items() if value not in (None, "")}
    for name, option in options.items():
        if focused is None and option.get("required") and name not in entered:
            raise SandboxRefusal(f"{name}: This option is required. Specify a value.")
    resolved: dict[str, Json] = {}
    filled: list[Json] = []
    for name, option in options.items():
        if name not in entered:
            continue
        try:
            filled.append(_option_data(guild, option, entered[name], resolved, focused=focused))
        except SandboxRefusal:
            if focused is None:
                raise
    if focused is not None and focused not in {entry["name"] for entry in filled}:
        filled.append(
            {"type": options[focused]["type"], "name": focused, "value": "", "focused": True}
        )
    for step in reversed(invoked.path):
        filled = [{"type": step["type"], "name": step["name"], "options": filled}]
    return _command_fields(invoked.command) | {"options": filled, "resolved": resolved}


def _command_fields(command: Json) -> Json:
    return {key: command[key] for key in ("id", "name", "type", "guild_id") if key in command}


def fill_menu(guild: Guild, command: Json, target: Json) -> Json:
    """Build the data of a user or message command; the target is a member or a message."""
    data = _command_fields(command)
    resolved: dict[str, Json] = {}
    if command["type"] == USER_COMMAND:
        return data | {
            "target_id": _user(guild, command, target["user"]["id"], resolved),
            "resolved": resolved,
        }
    return data | {"target_id": target["id"], "resolved": {"messages": {target["id"]: target}}}


def fill_select(guild: Guild, select: Json, values: Sequence[object]) -> Json:
    """Build a select menu's values. Raises SandboxRefusal."""
    low = select.get("min_values", 1)
    high = select.get("max_values", 1)
    if not low <= len(values) <= high:
        count = str(low) if low == high else f"between {low} and {high}"
        raise SandboxRefusal(f"Choose {count}.")
    named = {"name": select.get("placeholder") or select["custom_id"], **select}
    if select["type"] == STRING_SELECT:
        options = [{**option, "name": option["label"]} for option in select["options"]]
        choices = {"name": named["name"], "choices": options}
        return {"values": [_choice(choices, value) for value in values]}
    resolved: dict[str, Json] = {}
    find = ENTITY_RESOLVERS[SELECT_OPTION_TYPES[select["type"]]]
    return {
        "values": [find(guild, named, value, resolved) for value in values],
        "resolved": resolved,
    }


def _option_data(
    guild: Guild, option: Json, value: object, resolved: dict[str, Json], *, focused: str | None
) -> Json:
    data: Json = {"type": option["type"], "name": option["name"]}
    if option["name"] == focused:  # it is being typed: nothing is checked
        return data | {"value": str(value), "focused": True}
    return data | {"value": _parse_option(guild, option, value, resolved)}


def _parse_option(guild: Guild, option: Json, value: object, resolved: dict[str, Json]) -> object:
    if option.get("choices"):
        return _choice(option, value)
    find = ENTITY_RESOLVERS.get(option["type"])
    if find is not None:
        return find(guild, option, value, resolved)
    typed = SCALAR_PARSERS.get(option["type"], _unsupported)(option, value)
    _check_range(option, typed)
    return typed


def _choice(option: Json, value: object) -> object:
    for choice in option["choices"]:
        if str(value) in (str(choice["value"]), choice["name"]):
            return choice["value"]
    raise SandboxRefusal(f"{option['name']}: This is not one of the choices.")


def _integer(option: Json, value: object) -> int:
    number = _number(option, value)
    if not number.is_integer():
        raise SandboxRefusal(f"{option['name']}: Input a valid integer.")
    return int(number)


def _number(option: Json, value: object) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise SandboxRefusal(f"{option['name']}: Input a valid number.")
    return number


def _boolean(option: Json, value: object) -> bool:
    try:
        return BOOLEAN_VALUES[str(value).lower()]
    except KeyError:
        raise SandboxRefusal(f"{option['name']}: Must be true or false.") from None


def _unsupported(option: Json, value: object) -> object:
    raise SandboxRefusal(
        f"{option['name']}: the sandbox does not know options of type {option['type']}."
    )


def _check_range(option: Json, typed: Any) -> None:
    size = typed
    low = option.get("min_value")
    high = option.get("max_value")
    unit = ""
    if isinstance(typed, str):
        size = len(typed)
        low = option.get("min_length")
        high = option.get("max_length")
        unit = " characters"
    if low is not None and size < low:
        raise SandboxRefusal(f"{option['name']}: Must be {low}{unit} or more.")
    if high is not None and size > high:
        raise SandboxRefusal(f"{option['name']}: Must be {high}{unit} or fewer.")


def _user(guild: Guild, option: Json, value: object, resolved: dict[str, Json]) -> str:
    name = str(getattr(value, "name", value)).removeprefix("@")
    for member in guild.members():
        user = member["user"]
        if name in (user["id"], user["global_name"], user["username"]):
            resolved.setdefault("users", {})[user["id"]] = user
            granted = {k: v for k, v in member.items() if k not in ("user", "deaf", "mute")}
            granted["permissions"] = str(guild.permissions_of(user["id"]))
            resolved.setdefault("members", {})[user["id"]] = granted
            return str(user["id"])
    raise SandboxRefusal(f"{option['name']}: Unknown user.")


def _channel(guild: Guild, option: Json, value: object, resolved: dict[str, Json]) -> str:
    for channel in guild.channels():
        if str(value).removeprefix("#") in (channel["id"], channel["name"]):
            if channel["type"] not in option.get("channel_types", (channel["type"],)):
                break
            bits = str(guild.permissions_of(guild.bot_id))
            resolved.setdefault("channels", {})[channel["id"]] = channel | {"permissions": bits}
            return str(channel["id"])
    raise SandboxRefusal(f"{option['name']}: Unknown channel.")


def _role(guild: Guild, option: Json, value: object, resolved: dict[str, Json]) -> str:
    for role in guild.roles():
        if str(value).removeprefix("@") in (role["id"], role["name"]):
            resolved.setdefault("roles", {})[role["id"]] = role
            return str(role["id"])
    raise SandboxRefusal(f"{option['name']}: Unknown role.")


def _attachment(guild: Guild, option: Json, value: object, resolved: dict[str, Json]) -> str:
    if not isinstance(value, StoredFile):
        raise SandboxRefusal(f"{option['name']}: This option takes a file.")
    if len(value.data) > ATTACHMENT_LIMIT_BYTES:
        raise SandboxRefusal("Your files are too powerful: 10 MiB each at most.")
    file_id = guild.store.put_file(value)
    resolved.setdefault("attachments", {})[file_id] = payloads.attachment(file_id, "0", value) | {
        "ephemeral": True
    }
    return file_id


SCALAR_PARSERS: dict[int, Callable[[Json, object], object]] = {
    STRING: lambda option, value: str(value),
    INTEGER: _integer,
    BOOLEAN: _boolean,
    NUMBER: _number,
}

ENTITY_RESOLVERS: dict[int, Callable[[Guild, Json, object, dict[str, Json]], str]] = {
    USER: _user,
    CHANNEL: _channel,
    ROLE: _role,
    ATTACHMENT: _attachment,
}
