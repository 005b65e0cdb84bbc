"""Reads the fields of JSON records and the cells of tables, or raises `UnusableRecordError`."""

import ast
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

MAX_TIME_UNITS = 1e17


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
    if not isinstance(part, dict):
        return cell_text(part)
    if part.get("type", "text") not in ("text", "input_text", "output_text"):
        raise UnusableRecordError("contains pictures or sound")
    return cell_text(part.get("text", part.get("content")))


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
    try:
        parsed = orjson.loads(value)
    except orjson.JSONDecodeError:
        try:
            parsed = ast.literal_eval(value.strip())
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
