"""Values of a lorebook's JSON, whose types nobody has checked."""

from typing import Any

JsonObject = dict[str, Any]


def text_or_empty(value: Any) -> str:
    return value if isinstance(value, str) else ""


def list_or_empty(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def object_or_empty(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}


def objects_of(value: Any) -> list[JsonObject]:
    return [one for one in list_or_empty(value) if isinstance(one, dict)]


def one_line(text: str) -> str:
    return " ".join(text.split())
