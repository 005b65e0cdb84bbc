"""Options of commands, and values of menus: validation as in Discord's client, and the data that the
bot gets.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from sandbox import payloads
from sandbox.application_commands import CommandInvocation
from sandbox.guild import Guild
from sandbox.interactions import ATTACHMENT_LIMIT_BYTES
from sandbox.object_store import StoredFile
from sandbox.sandbox_errors import Json, SandboxRefusal
from sandbox.validation import USER_COMMAND

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


def fill_options(
    guild: Guild, invoked: CommandInvocation, values: Json, focused: str | None = None
) -> Json:
    """Build an interaction's data. Raises SandboxRefusal; with `focused` (autocomplete) leaves
    invalid options out.
    """
    options = {option["name"]: option for option in invoked.leaf.get("options", ())}
    if unknown := set(values) - set(options):
        raise SandboxRefusal(f"/{invoked.command['name']} has no option called {min(unknown)}.")
    # A field that was left empty is not sent, as by Discord's client.
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
    if focused is not None and not any(entry["name"] == focused for entry in filled):
        kind = options[focused]["type"]
        filled.append({"type": kind, "name": focused, "value": "", "focused": True})
    # The options are in the subcommand, and that in its group.
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
        target_id = _user(guild, command, target["user"]["id"], resolved)
        return data | {"target_id": target_id, "resolved": resolved}
    return data | {"target_id": target["id"], "resolved": {"messages": {target["id"]: target}}}


def _check_count(part: Json, values: Sequence[object], unit: str = "") -> None:
    """Check the number of chosen values, or of a unit's. Raises SandboxRefusal."""
    low = 1 if part.get("min_values") is None else part["min_values"]
    high = 1 if part.get("max_values") is None else part["max_values"]
    if not low <= len(values) <= high:
        count = str(low) if low == high else f"between {low} and {high}"
        units = f" {unit}{'' if high == 1 else 's'}" if unit else ""
        raise SandboxRefusal(f"Choose {count}{units}.")


def fill_upload(guild: Guild, part: Json, files: Sequence[object]) -> Json:
    """Build the values of a form's file upload: the ids of the files. Raises SandboxRefusal."""
    _check_count(part, files, "file")
    named = {"name": part["placeholder"]}
    resolved: dict[str, Json] = {}
    return {
        "values": [_attachment(guild, named, file, resolved) for file in files],
        "resolved": resolved,
    }


def fill_select(guild: Guild, select: Json, values: Sequence[object]) -> Json:
    """Build a select menu's values. Raises SandboxRefusal."""
    _check_count(select, values)
    named = {"name": select.get("placeholder") or select["custom_id"], **select}
    if select["type"] == STRING_SELECT:
        options = [{**option, "name": option["label"]} for option in select["options"]]
        choices = {"name": named["name"], "choices": options}
        return {"values": [_choice(choices, value) for value in values]}
    resolved: dict[str, Json] = {}
    find = ENTITY_RESOLVERS[SELECT_OPTION_TYPES[select["type"]]]
    ids = [find(guild, named, value, resolved) for value in values]
    return {"values": ids, "resolved": resolved}


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
        # Members see the name, and the bot gets the value.
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
            permissions = str(guild.permissions_of(user["id"]))
            partial = member | {"permissions": permissions}
            # Members in a command's data lack these on Discord; the user stands beside them.
            for left_out in ("user", "deaf", "mute"):
                partial.pop(left_out, None)
            resolved.setdefault("members", {})[user["id"]] = partial
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
    attachment = payloads.attachment(file_id, "0", value)
    # Discord removes the files of commands after a while, and says so by this.
    resolved.setdefault("attachments", {})[file_id] = attachment | {"ephemeral": True}
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
