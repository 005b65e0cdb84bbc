"""Validates what a bot sends, as Discord does: limits of messages and components, and command
definitions.
"""

import re
from collections.abc import Iterator
from typing import cast

from sandbox.message_components import (
    ACTION_ROW,
    IS_COMPONENTS_V2,
    SELECTS,
    TEXT_DISPLAY,
    check_components,
    check_legacy_fields,
)
from sandbox.sandbox_errors import ApiError, Json

FieldLimits = tuple[tuple[str, int], ...]
"""Maximum characters or items by the path of a field (`[]` stands for each item of a list)."""
MESSAGE: FieldLimits = (
    ("content", 2000),
    ("nonce", 25),
    ("username", 80),
    ("embeds", 10),
    ("embeds[].title", 256),
    ("embeds[].description", 4096),
    ("embeds[].fields", 25),
    ("embeds[].fields[].name", 256),
    ("embeds[].fields[].value", 1024),
    ("embeds[].footer.text", 2048),
    ("embeds[].author.name", 256),
    ("attachments[].description", 1024),
    ("sticker_ids", 3),
    ("poll.question.text", 300),
    ("poll.answers", 10),
    ("poll.answers[].poll_media.text", 55),
)
THREAD: FieldLimits = (("name", 100),)
MODAL: FieldLimits = (
    ("title", 45),
    ("custom_id", 100),
    ("components", 5),
    ("components[].label", 45),
    ("components[].description", 100),
    ("components[].component.custom_id", 100),
    ("components[].component.value", 4000),
    ("components[].component.options", 25),
    ("components[].component.options[].label", 100),
    ("components[].component.options[].value", 100),
    ("components[].component.options[].description", 100),
)
TEXT_INPUT = 4
LABEL = 18
FILE_UPLOAD = 19
MODAL_ROWS = (ACTION_ROW, TEXT_DISPLAY, LABEL)
MODAL_INPUTS = (TEXT_INPUT, *SELECTS, FILE_UPLOAD)
"""What a label may have. Discord has checkboxes and radio groups, too, which discord.py cannot send."""
MAX_SELECT_VALUES = 25
MAX_UPLOAD_FILES = 10
CHOICES: FieldLimits = (("choices", 25), ("choices[].name", 100))
COMMAND: FieldLimits = (
    ("name", 32),
    ("description", 100),
    ("options", 25),
    ("choices", 25),
    ("choices[].name", 100),
    ("choices[].value", 100),
)
"""Limits of a command, and of each of its options."""
COMMANDS: FieldLimits = tuple(
    # A group has subcommands, and these have options.
    (f"[].{'options[].' * depth}{field}", most)
    for depth in range(4)
    for field, most in COMMAND
)
FieldPath = tuple[str, ...]


def check_limits(body: object, rules: FieldLimits) -> None:
    """Raise ApiError 50035, with Discord's tree of errors, if a field is too long."""
    errors: Json = {}
    for path, most in rules:
        steps = path.replace("[]", ".[]").strip(".").split(".")
        for field, value in _find_fields(body, steps, ()):
            if isinstance(value, str | list) and len(value) > most:
                _add_error(errors, field, f"Must be {most} or fewer in length.")
    if errors:
        raise ApiError(50035, errors)


def check_modal(body: Json) -> None:
    """Check a form. Raises ApiError 50035.

    Sources: Discord's reference ("Component Reference"), and its description of the HTTP API.
    """
    check_limits(body, MODAL)
    custom_ids: set[str] = set()
    for index, row in enumerate(body.get("components") or []):
        field = f"components.{index}"
        _check_type(field, row, MODAL_ROWS)
        if row["type"] == TEXT_DISPLAY:
            continue
        is_label = row["type"] == LABEL
        inputs = {f"{field}.component": row["component"]} if is_label else {}
        for place, part in enumerate(row.get("components") or []):
            inputs[f"{field}.components.{place}"] = part
        for path, part in inputs.items():
            _check_type(path, part, MODAL_INPUTS if is_label else (TEXT_INPUT, *SELECTS))
            _check_modal_input(path, part)
            if part["custom_id"] in custom_ids:
                message = "Component custom id cannot be duplicated"
                code = "COMPONENT_CUSTOM_ID_DUPLICATED"
                raise ApiError.field(f"{path}.custom_id", code, message)
            custom_ids.add(part["custom_id"])


def _check_type(field: str, component: Json, allowed: tuple[int, ...]) -> None:
    if component.get("type") not in allowed:
        listed = ", ".join(map(str, allowed))
        message = f'Value of field "type" must be one of ({listed},).'
        raise ApiError.field(f"{field}.type", "UNION_TYPE_CHOICES", message)


def _check_modal_input(field: str, part: Json) -> None:
    if not part.get("custom_id"):
        raise ApiError.field(f"{field}.custom_id", "BASE_TYPE_REQUIRED", "This field is required")
    if part.get("disabled"):
        message = "A component of a modal cannot be disabled"
        raise ApiError.field(f"{field}.disabled", "COMPONENT_MODAL_DISABLED", message)
    most_characters = 100 if part["type"] == TEXT_INPUT else 150
    if len(part.get("placeholder") or "") > most_characters:
        message = f"Must be {most_characters} or fewer in length."
        raise ApiError.field(f"{field}.placeholder", "BASE_TYPE_MAX_LENGTH", message)
    limit = MAX_UPLOAD_FILES if part["type"] == FILE_UPLOAD else MAX_SELECT_VALUES
    for name, low in (("min_values", 0), ("max_values", 1)):
        value = part.get(name)
        if value is not None and not low <= value <= limit:
            message = f"int value should be between {low} and {limit}."
            raise ApiError.field(f"{field}.{name}", "NUMBER_TYPE_RANGE", message)
    defaults = [option for option in part.get("options") or () if option.get("default")]
    most = 1 if part.get("max_values") is None else part["max_values"]
    if len(defaults) > most:
        message = f"The number of default options cannot exceed {most}"
        raise ApiError.field(f"{field}.options", "SELECT_COMPONENT_TOO_MANY_DEFAULTS", message)


def check_message(body: Json, present: Json | None = None) -> None:
    """Check the limits of a message, or of an edit of the `present` one."""
    check_limits(body, MESSAGE)
    before = present or {}
    flags = (before.get("flags") or 0) | (body.get("flags") or 0)
    is_v2 = bool(flags & IS_COMPONENTS_V2)
    check_components(body.get("components") or [], is_v2=is_v2)
    if is_v2:
        check_legacy_fields(before | body)


def _find_fields(
    node: object, path: list[str], field: FieldPath
) -> Iterator[tuple[FieldPath, object]]:
    if not path:
        yield field, node
    elif path[0] == "[]" and isinstance(node, list):
        for index, item in enumerate(node):
            yield from _find_fields(item, path[1:], (*field, str(index)))
    elif isinstance(node, dict) and path[0] in node:
        yield from _find_fields(node[path[0]], path[1:], (*field, path[0]))


def _add_error(errors: Json, field: FieldPath, message: str) -> None:
    for step in field:
        errors = errors.setdefault(step, {})
    errors["_errors"] = [{"code": "BASE_TYPE_MAX_LENGTH", "message": message}]


CHAT_INPUT = 1
USER_COMMAND = 2
MESSAGE_COMMAND = 3
MAX_COMMANDS_BY_TYPE = {CHAT_INPUT: 100, USER_COMMAND: 5, MESSAGE_COMMAND: 5}
"""Commands of each type that a bot may have, globally and again in each guild."""
MAX_COMMAND_CHARACTERS = 8_000
"""Of names, descriptions and values; of a text and its translations, the longest counts."""
MAX_NAME_CHARACTERS = 32
MAX_DESCRIPTION_CHARACTERS = 100
COMMAND_PLACES = {"integration_types": (0, 1), "contexts": (0, 1, 2)}
"""Discord's types of installations and contexts."""


# \w matches letters of every script, as on Discord; capitals are refused separately.
COMMAND_NAME_PATTERN = re.compile(r"[-_'\w]{1,32}")


def check_commands(commands: list[Json]) -> None:
    """Refuse what Discord refuses: 30032 for too many commands, else 50035 with the path of the
    first error.
    """
    check_limits(commands, COMMANDS)
    for kind, most in MAX_COMMANDS_BY_TYPE.items():
        if sum(_kind(command) == kind for command in commands) > most:
            raise ApiError(30032, words=f"Maximum number of application commands reached ({most}).")
    seen: set[tuple[int, object]] = set()
    for index, command in enumerate(commands):
        key = _kind(command), command.get("name")
        if key in seen:
            message = "Application command names must be unique"
            raise ApiError.field(f"{index}.name", "APPLICATION_COMMANDS_DUPLICATE_NAME", message)
        seen.add(key)
        _check_one(str(index), command)


def _kind(command: Json) -> int:
    return int(command.get("type") or CHAT_INPUT)


def _check_one(field: str, command: Json) -> None:
    _check_places(field, command)
    described = bool(command.get("description"))
    if _kind(command) == CHAT_INPUT:
        for where, node in _option_paths(field, command):
            name = str(node.get("name") or "")
            if not COMMAND_NAME_PATTERN.fullmatch(name) or name != name.lower():
                raise ApiError.field(
                    f"{where}.name", "APPLICATION_COMMAND_INVALID_NAME", "Command name is invalid"
                )
            if not node.get("description"):
                raise ApiError.field(
                    f"{where}.description", "BASE_TYPE_REQUIRED", "This field is required"
                )
            _check_order(where, node)
            _check_translations(where, node, "description", MAX_DESCRIPTION_CHARACTERS)
    elif described:
        message = "Context menu commands cannot have description"
        raise ApiError.field(
            f"{field}.description", "APPLICATION_COMMAND_CONTEXT_MENU_DESCRIPTION_INVALID", message
        )
    else:
        _check_translations(field, command, "name", MAX_NAME_CHARACTERS)
    if _size(command) > MAX_COMMAND_CHARACTERS:
        message = f"Command exceeds maximum size ({MAX_COMMAND_CHARACTERS})"
        raise ApiError.field(field, "APPLICATION_COMMAND_TOO_LARGE", message)


def _check_places(field: str, command: Json) -> None:
    """Check where a command is offered: by which installations, in which contexts."""
    for name, known in COMMAND_PLACES.items():
        values = command.get(name)
        if values is None:
            continue
        if not values:
            message = f"Must be between 1 and {len(known)} in length."
            raise ApiError.field(f"{field}.{name}", "BASE_TYPE_BAD_LENGTH", message)
        for index, value in enumerate(values):
            where = f"{field}.{name}.{index}"
            if value not in known:
                message = f"Value must be one of {{{', '.join(map(str, known))}}}."
                raise ApiError.field(where, "BASE_TYPE_CHOICES", message)
            if value in values[:index]:
                message = "This value is already contained in the set"
                raise ApiError.field(where, "SET_TYPE_ALREADY_CONTAINS_VALUE", message)


def _option_paths(field: str, node: Json) -> Iterator[tuple[str, Json]]:
    """Yield the command and all its options, with their paths."""
    yield field, node
    for index, option in enumerate(node.get("options") or ()):
        yield from _option_paths(f"{field}.options.{index}", option)


def _check_order(field: str, node: Json) -> None:
    optional = False
    for index, option in enumerate(node.get("options") or ()):
        if option.get("required") and optional:
            message = "Required options must be placed before non-required options"
            raise ApiError.field(
                f"{field}.options.{index}", "APPLICATION_COMMAND_OPTIONS_REQUIRED_INVALID", message
            )
        optional = optional or not option.get("required")


def _check_translations(field: str, node: Json, part: str, most: int) -> None:
    for locale, text in (node.get(f"{part}_localizations") or {}).items():
        if not 1 <= len(str(text)) <= most:
            raise ApiError.field(
                f"{field}.{part}_localizations.{locale}",
                "BASE_TYPE_BAD_LENGTH",
                f"Must be between 1 and {most} in length.",
            )


def _size(node: Json) -> int:
    own = 0
    for part in ("name", "description", "value"):
        texts = [node.get(part), *(node.get(f"{part}_localizations") or {}).values()]
        own += max(len(str(text or "")) for text in texts)
    inner = [*(node.get("options") or ()), *(node.get("choices") or ())]
    return own + sum(_size(cast(Json, one)) for one in inner)
