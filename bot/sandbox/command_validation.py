"""Validation of registered commands. Source: the application-commands page of Discord's documentation."""

import re
from collections.abc import Iterator
from typing import cast

from bot.sandbox import payload_limits
from bot.sandbox.sandbox_errors import ApiError, Json

CHAT_INPUT, USER_COMMAND, MESSAGE_COMMAND = 1, 2, 3
MAX_COMMANDS_BY_TYPE = {CHAT_INPUT: 100, USER_COMMAND: 5, MESSAGE_COMMAND: 5}
"""Commands of each type that a bot may have, globally and again in each guild."""
MAX_COMMAND_CHARACTERS = 8_000
# \w matches letters of every script, as on Discord; capitals are refused separately.
COMMAND_NAME_PATTERN = re.compile(r"[-_'\w]{1,32}")


def check_commands(commands: list[Json]) -> None:
    """Refuse what Discord refuses: 30032 for too many commands, else 50035 with the path of the first error."""
    payload_limits.check_limits(commands, payload_limits.COMMANDS)
    for kind, most in MAX_COMMANDS_BY_TYPE.items():
        if sum(_kind(command) == kind for command in commands) > most:
            raise ApiError(30032, words=f"Maximum number of application commands reached ({most}).")
    seen: set[tuple[int, object]] = set()
    for index, command in enumerate(commands):
        key = _kind(command), command.get("name")
        if key in seen:
            words = "Application command names must be unique"
            raise ApiError.field(f"{index}.name", "APPLICATION_COMMANDS_DUPLICATE_NAME", words)
        seen.add(key)
        _check_one(str(index), command)


def _kind(command: Json) -> int:
    return int(command.get("type") or CHAT_INPUT)


def _check_one(place: str, command: Json) -> None:
    described = bool(command.get("description"))
    if _kind(command) == CHAT_INPUT:
        for where, node in _option_paths(place, command):
            name = str(node.get("name") or "")
            if not COMMAND_NAME_PATTERN.fullmatch(name) or name != name.lower():
                raise ApiError.field(f"{where}.name", "APPLICATION_COMMAND_INVALID_NAME", "Command name is invalid")
            if not node.get("description"):
                raise ApiError.field(f"{where}.description", "BASE_TYPE_REQUIRED", "This field is required")
            _check_order(where, node)
    elif described:
        words = "Context menu commands cannot have description"
        raise ApiError.field(f"{place}.description", "APPLICATION_COMMAND_CONTEXT_MENU_DESCRIPTION_INVALID", words)
    if _size(command) > MAX_COMMAND_CHARACTERS:
        words = f"Command exceeds maximum size ({MAX_COMMAND_CHARACTERS})"
        raise ApiError.field(place, "APPLICATION_COMMAND_TOO_LARGE", words)


def _option_paths(place: str, node: Json) -> Iterator[tuple[str, Json]]:
    """Yield the command and all its options, with their paths."""
    yield place, node
    for index, option in enumerate(node.get("options") or ()):
        yield from _option_paths(f"{place}.options.{index}", option)


def _check_order(place: str, node: Json) -> None:
    optional = False
    for index, option in enumerate(node.get("options") or ()):
        if option.get("required") and optional:
            words = "Required options must be placed before non-required options"
            raise ApiError.field(f"{place}.options.{index}", "APPLICATION_COMMAND_OPTIONS_REQUIRED_INVALID", words)
        optional = optional or not option.get("required")


def _size(node: Json) -> int:
    own = sum(len(str(node.get(part) or "")) for part in ("name", "description", "value"))
    inner = [*(node.get("options") or ()), *(node.get("choices") or ())]
    return own + sum(_size(cast(Json, one)) for one in inner)
