"""A member's values for a command's options: checked and typed as Discord's client does before it sends them."""

from collections.abc import Callable, Sequence
from typing import Any

from bot.sandbox import shapes
from bot.sandbox.commands import Invoked
from bot.sandbox.errors import Json, SandboxRefusal
from bot.sandbox.guild import Guild
from bot.sandbox.interactions import ATTACHMENT_LIMIT_BYTES
from bot.sandbox.registration import ON_USER
from bot.sandbox.store import StoredFile

STRING, INTEGER, BOOLEAN, USER, CHANNEL, ROLE, NUMBER, ATTACHMENT = 3, 4, 5, 6, 7, 8, 10, 11
STRING_SELECT = 3
SELECTS = {STRING_SELECT: STRING, 5: USER, 6: ROLE, 8: CHANNEL}
"""Types of select menus, and the types of option that take the same values."""
TRUTH = {"true": True, "false": False}


def fill_in(guild: Guild, invoked: Invoked, values: dict[str, object], focused: str | None = None) -> Json:
    """The interaction's data. Raises SandboxRefusal; with `focused` (autocomplete) nothing is required yet.

    What is wrong is then left out, as Discord's client does.
    """
    options = {option["name"]: option for option in invoked.leaf.get("options", ())}
    if unknown := set(values) - set(options):
        raise SandboxRefusal(f"/{invoked.command['name']} has no option called {min(unknown)}.")
    given = [(option, values[name]) for name, option in options.items() if values.get(name) not in (None, "")]
    if focused is None:
        _require(options, {option["name"] for option, _ in given})
    resolved: dict[str, Json] = {}
    filled: list[Json] = []
    for option, value in given:
        try:
            filled.append(_filled(guild, option, value, resolved, focused))
        except SandboxRefusal:
            if focused is None:
                raise
    if focused is not None and focused not in {entry["name"] for entry in filled}:
        filled.append({"type": options[focused]["type"], "name": focused, "value": "", "focused": True})
    for step in reversed(invoked.path):
        filled = [{"type": step["type"], "name": step["name"], "options": filled}]
    command: Json = {key: invoked.command[key] for key in ("id", "name", "type", "guild_id") if key in invoked.command}
    return {**command, "options": filled, "resolved": resolved}


def fill_menu(guild: Guild, command: Json, target: Json) -> Json:
    """The data of a user or message command; the target is a member or a message."""
    data: Json = {key: command[key] for key in ("id", "name", "type", "guild_id") if key in command}
    resolved: dict[str, Json] = {}
    if command["type"] == ON_USER:
        return data | {"target_id": _user(guild, command, target["user"]["id"], resolved), "resolved": resolved}
    return data | {"target_id": target["id"], "resolved": {"messages": {target["id"]: target}}}


def fill_select(guild: Guild, select: Json, values: Sequence[object]) -> Json:
    """A select's values as they are sent. Raises SandboxRefusal."""
    low, high = select.get("min_values", 1), select.get("max_values", 1)
    if not low <= len(values) <= high:
        raise SandboxRefusal(f"Choose {low if low == high else f'between {low} and {high}'}.")
    named = {"name": select.get("placeholder") or select["custom_id"], **select}
    if select["type"] == STRING_SELECT:
        choices = {"name": named["name"], "choices": [{**o, "name": o["label"]} for o in select["options"]]}
        return {"values": [_choice(choices, value) for value in values]}
    resolved: dict[str, Json] = {}
    find = ENTITIES[SELECTS[select["type"]]]
    return {"values": [find(guild, named, value, resolved) for value in values], "resolved": resolved}


def _require(options: dict[str, Json], given: set[str]) -> None:
    for name, option in options.items():
        if option.get("required") and name not in given:
            raise SandboxRefusal(f"{name}: This option is required. Specify a value.")


def _filled(guild: Guild, option: Json, value: object, resolved: dict[str, Json], focused: str | None) -> Json:
    entry: Json = {"type": option["type"], "name": option["name"]}
    if option["name"] == focused:
        # What is being typed goes out as it stands.
        return entry | {"value": str(value), "focused": True}
    typed = _typed(guild, option, value, resolved)
    return entry | {"value": typed}


def _typed(guild: Guild, option: Json, value: object, resolved: dict[str, Json]) -> object:
    if option.get("choices"):
        return _choice(option, value)
    find = ENTITIES.get(option["type"])
    if find is not None:
        return find(guild, option, value, resolved)
    typed = SCALARS.get(option["type"], _unsupported)(option, value)
    _within(option, typed)
    return typed


def _choice(option: Json, value: object) -> object:
    for choice in option["choices"]:
        if str(value) in (str(choice["value"]), choice["name"]):
            return choice["value"]
    raise SandboxRefusal(f"{option['name']}: This is not one of the choices.")


def _text(option: Json, value: object) -> str:
    return str(value)


def _integer(option: Json, value: object) -> int:
    number = _number(option, value)
    if not number.is_integer():
        raise SandboxRefusal(f"{option['name']}: Input a valid integer.")
    return int(number)


def _number(option: Json, value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        raise SandboxRefusal(f"{option['name']}: Input a valid number.") from None


def _boolean(option: Json, value: object) -> bool:
    try:
        return TRUTH[str(value).lower()]
    except KeyError:
        raise SandboxRefusal(f"{option['name']}: Must be true or false.") from None


def _unsupported(option: Json, value: object) -> object:
    raise SandboxRefusal(f"{option['name']}: the sandbox does not know options of type {option['type']}.")


def _within(option: Json, typed: Any) -> None:
    size, low, high, unit = typed, option.get("min_value"), option.get("max_value"), ""
    if isinstance(typed, str):
        size, low, high, unit = len(typed), option.get("min_length"), option.get("max_length"), " characters"
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
            held = {k: v for k, v in member.items() if k not in ("user", "deaf", "mute")}
            held["permissions"] = str(guild.permissions_of(user["id"]))
            resolved.setdefault("members", {})[user["id"]] = held
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
    resolved.setdefault("attachments", {})[file_id] = shapes.attachment(file_id, "0", value) | {"ephemeral": True}
    return file_id


SCALARS: dict[int, Callable[[Json, object], object]] = {
    STRING: _text,
    INTEGER: _integer,
    BOOLEAN: _boolean,
    NUMBER: _number,
}
ENTITIES: dict[int, Callable[[Guild, Json, object, dict[str, Json]], str]] = {
    USER: _user,
    CHANNEL: _channel,
    ROLE: _role,
    ATTACHMENT: _attachment,
}
