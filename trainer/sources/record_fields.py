"""Reads the fields of JSON records and the cells of tables, or raises `UnusableRecordError`."""

import ast
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from trainer.sources.json_recovery import BrokenJson, decode_json
from trainer.sources.surrogates import replace_half_escapes

MAX_TIME_UNITS = 1e17
TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
THOUGHT_PARTS = ("reasoning", "thinking")
MEDIA_PARTS = ("image", "picture", "photo", "video", "audio", "sound", "speech")
PART_TEXT_KEYS = ("text", "value", "content")
"""Keys of a part's text, beside its own type (LLaMA-Factory writes `value`)."""


class UnusableRecordError(ValueError):
    """Raised for a record that cannot be used; its text is the reason."""


def text_field(record: Mapping[str, Any], key: str) -> str:
    """Return a required text; numbers, as ids sometimes are, are converted."""
    value = record.get(key)
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    fault = "a text was expected" if key in record else "missing"
    raise UnusableRecordError(f"{key}: {fault}")


def optional_text(record: Mapping[str, Any], key: str) -> str:
    """Return a text; empty if missing or null."""
    return text_field(record, key) if record.get(key) is not None else ""


def object_field(record: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return an object; empty if missing or null."""
    value = record.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UnusableRecordError(f"{key}: an object was expected")
    return value


def object_list(record: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return a list of objects; empty if missing or null."""
    value = record.get(key)
    items = value if isinstance(value, list) else []
    return [item for item in items if isinstance(item, dict)]


def timestamp_field(record: Mapping[str, Any], key: str) -> float:
    """Return an ISO 8601 timestamp in seconds since 1970; without a time zone it is UTC."""
    written = text_field(record, key)
    try:
        at = datetime.fromisoformat(written.strip())
        if at.tzinfo is None:
            at = at.replace(tzinfo=UTC)
        return at.timestamp()
    except (ValueError, OverflowError):
        raise UnusableRecordError(f"{key}: {written[:40]!r} is not a date and time") from None


def epoch_seconds(record: Mapping[str, Any], key: str, per_second: float = 1.0) -> float:
    """Convert a number, or a text with one, to seconds since 1970; `per_second` units make a
    second.
    """
    value = record.get(key)
    try:
        at = value if isinstance(value, float) else float(text_field(record, key))
    except ValueError:
        raise UnusableRecordError(f"{key}: a number was expected") from None
    if not abs(at) < MAX_TIME_UNITS:  # written so that NaN is none either
        raise UnusableRecordError(f"{key}: {at} is no time")
    return at / per_second


def cell_text(value: Any) -> str:
    """Convert a cell to text: numbers as written, text parts joined. Raises `UnusableRecordError`
    for anything else.
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, int | float):
        if not math.isfinite(value):
            found = "NaN" if math.isnan(value) else "infinity"
            raise UnusableRecordError(f"{found} where a text was expected")
        return str(value)
    if isinstance(value, list):
        return "\n".join(_text_part(part) for part in value)
    raise UnusableRecordError("an object where a text was expected")


def _text_part(part: Any) -> str:
    """Return the text of a part of a message; thoughts between the tags that models write."""
    if not isinstance(part, dict):
        return cell_text(part)
    kind = str(part.get("type", "text"))
    keys = (kind, *PART_TEXT_KEYS)
    text = next((part[key] for key in keys if part.get(key) is not None), None)
    if kind in TEXT_PARTS:
        return cell_text(text)
    if kind in THOUGHT_PARTS:
        return f"<think>\n{cell_text(text)}\n</think>"
    if "tool" in kind or "function" in kind:
        raise UnusableRecordError("contains tool calls")
    if any(word in kind for word in MEDIA_PARTS):
        raise UnusableRecordError("contains pictures or sound")
    raise UnusableRecordError(f"contains a part of the type {kind[:20]!r}, which is no text")


def cell_list(value: Any) -> list[Any] | None:
    """Convert a cell to a list; None if it is not one.

    Accepts lists stored as JSON or Python literals, and dicts of equally long lists, as Arrow
    stores lists of objects, which become a list of dicts.
    """
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        return _transposed(value)
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return None
    parsed = decode_json(value.encode("utf-8", "replace"))
    if isinstance(parsed, BrokenJson):
        try:
            parsed = ast.literal_eval(replace_half_escapes(value).strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            return None
    return parsed if isinstance(parsed, list) else None


def _transposed(columns: dict[str, Any]) -> list[Any] | None:
    lists = list(columns.values())
    if not lists or not all(isinstance(cells, list) for cells in lists):
        return None
    if any(len(cells) != len(lists[0]) for cells in lists):
        return None
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*lists, strict=True)]
